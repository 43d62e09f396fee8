"""Sentinel addresses: what they mean to redis-py and to kombu, and what is said of broken ones."""

import pytest

from inferq.errors import ConfigurationError
from inferq.sentinel_url import SentinelUrl
from inferq.settings import load_settings


def test_other_addresses_are_not_its_business() -> None:
    assert SentinelUrl.parse("redis://localhost:6379") is None


def test_hosts_service_database_and_login_are_read() -> None:
    address = SentinelUrl.parse("sentinel://me:p%40ss@one:1,two/main/3?sentinel_password=s")
    assert address == SentinelUrl(
        hosts=(("one", 1), ("two", 26379)),
        service="main",
        db=3,
        username="me",
        password="p@ss",
        sentinel_password="s",
    )
    assert "p@ss" not in repr(address)


def test_kombu_gets_its_own_spelling() -> None:
    address = SentinelUrl.parse("sentinel://me:p%40ss@one:1,two:2/main/3?sentinel_password=s")
    assert address
    assert address.for_celery() == (
        "sentinel://me:p%40ss@one:1/3;sentinel://me:p%40ss@two:2/3",
        {"master_name": "main", "sentinel_kwargs": {"password": "s"}},
    )


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("sentinel://one:26379", "must name the service too"),
        ("sentinel://one:x/main", "must name hosts and their ports"),
        ("sentinel:///main", "must name hosts and their ports"),
        ("sentinel://one/main/first", "must end in the number of the database"),
    ],
)
def test_a_broken_one_stops_the_start_with_a_sentence(url: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(ConfigurationError, match=f"REDIS_URL: {what}"):
        load_settings(_env_file=None)
