"""Keys an issuer publishes: fetched in bounded time, seldom, and kept while their address is away."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from redis import Redis

from api.jwks import FRESH, PAUSE, KeySet, KeysUnavailable
from deploy.local.stack import free_port
from inferq.scripts import Scripts
from inferq.tenants import Tenants
from tests.conftest import OpenClient, make_settings
from tests.hand_worker import problem
from tests.processes import until
from tests.receiver import Received, Receiver, receiving
from tests.tokens import AUDIENCE, ISSUER, SECRET, ec_key, jwk, rsa_key, token


class Issuer:
    """Publishes what the test says."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        receiver.behaviour = self.answer
        self.keys: list[Any] = [jwk(rsa_key(), "first")]
        self.raw: bytes | None = None
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()

    @property
    def fetches(self) -> int:
        return len(self.receiver.got)

    def answer(self, _: Received, handler: BaseHTTPRequestHandler) -> None:
        self.gate.wait(30)
        body = json.dumps({"keys": self.keys}).encode() if self.raw is None else self.raw
        handler.send_response(self.status)
        handler.send_header("Location", "/elsewhere")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with receiving() as receiver:
        publishing = Issuer(receiver)
        yield publishing
        publishing.gate.set()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(issuer: Issuer, clock: Clock) -> KeySet:
    return KeySet(issuer.receiver.url, "RS256", clock)


def test_tokens_of_a_published_key(issuer: Issuer, redis: Redis, open_client: OpenClient, redis_server: Any) -> None:
    Tenants(redis, Scripts(redis)).set("acme", weight=1)
    settings = make_settings(
        redis_server.url, jwt_algorithm="RS256", jwt_jwks_url=issuer.receiver.url.replace("127.0.0.1", "localhost"),
        jwt_issuer=ISSUER, jwt_audience=AUDIENCE,
    )  # fmt: skip
    client = open_client(settings)

    def show(presented: str) -> Any:
        return client.get("/v1/jobs", headers={"Authorization": f"Bearer {presented}"})

    for kid in ("first", None):  # without an id it is the only key there is
        assert show(token(rsa_key(), "RS256", kid)).status_code == 200
    for forged in (
        token(rsa_key("another"), "RS256", "first"),
        token(SECRET, "HS256", "first"),
        token(ec_key(), "ES256", "first"),
    ):
        assert "is not genuine" in problem(show(forged), 401, "unauthorized")["detail"]
    for number in range(20):
        answer = show(token(rsa_key(), "RS256", f"unknown {number}"))
        assert "a key its issuer does not publish" in problem(answer, 401, "unauthorized")["detail"]
    assert issuer.fetches == 1


def test_without_any_keys_it_is_our_fault(redis_server: Any, open_client: OpenClient) -> None:
    settings = make_settings(
        redis_server.url, jwt_algorithm="RS256", jwt_jwks_url=f"http://127.0.0.1:{free_port()}/",
        jwt_issuer=ISSUER, jwt_audience=AUDIENCE,
    )  # fmt: skip
    presented = token(rsa_key(), "RS256", "first")
    answer = open_client(settings).get("/v1/jobs", headers={"Authorization": f"Bearer {presented}"})
    problem(answer, 503, "keys-unavailable")
    assert answer.headers["Retry-After"] == "10"


def test_a_flood_of_unknown_keys_is_no_flood_of_fetches(keys: KeySet, issuer: Issuer, clock: Clock) -> None:
    for _ in range(5):
        for number in range(50):
            assert keys.find(f"unknown {number}") is None
        clock.now += PAUSE
    assert issuer.fetches == 5
    issuer.status = 500  # a failure is no reason to ask more often
    for number in range(50):
        assert keys.find(f"unknown {number}") is None
    assert issuer.fetches == 6
    assert keys.find("first")


def test_a_new_key_is_found_and_a_withdrawn_one_forgotten(keys: KeySet, issuer: Issuer, clock: Clock) -> None:
    assert keys.find("first")
    issuer.keys = [jwk(rsa_key("second"), "second")]
    assert keys.find("second") is None
    clock.now += PAUSE
    assert keys.find("second")
    assert keys.find("first") is None
    clock.now += FRESH + 1
    issuer.keys = [jwk(rsa_key(), "third")]
    keys.find("second")  # is still good, but looked for again
    until(lambda: keys._keys.keys() == {"third", None}, 10)
    assert issuer.fetches == 3


def test_the_last_good_keys_stay_while_the_address_is_away(keys: KeySet, issuer: Issuer, clock: Clock) -> None:
    assert keys.find("first")
    answers = [
        (500, b"{}"), (302, b"{}"), (200, b""), (200, b"<html>"), (200, b"[]"), (200, b'{"keys": []}'),
        (200, b'{"keys": 5}'), (200, b'{"keys": [5]}'), (200, b"[" * 100_000), (200, b'{"keys": [{"kty": "RSA"}]}'),
    ]  # fmt: skip
    for count, (issuer.status, issuer.raw) in enumerate(answers, 2):
        clock.now += FRESH + 1
        assert keys.find("first")
        until(lambda count=count: issuer.fetches == count and keys._idle.is_set(), 10)
        assert keys.find("first")
    issuer.receiver.close()
    clock.now += FRESH + 1
    assert keys.find("first")
    until(keys._idle.is_set, 10)
    assert keys.find("first")


def test_who_has_a_known_key_waits_for_nobody(keys: KeySet, issuer: Issuer, clock: Clock) -> None:
    assert keys.find("first")
    issuer.gate.clear()
    clock.now += FRESH + 1
    for _ in range(100):
        assert keys.find("first")
    until(lambda: issuer.fetches == 2, 10)
    assert not keys._idle.is_set(), "one fetch hangs, and all others were answered meanwhile"


def test_only_keys_that_suit(issuer: Issuer, clock: Clock) -> None:
    issuer.keys = [
        jwk(rsa_key(), "encryption", use="enc"),
        jwk(rsa_key(), "another", alg="RS512"),
        jwk(rsa_key("short", 1024), "short"),
        jwk(ec_key(), "curve"),
        {"kty": "oct", "kid": "secret", "k": "AAAA"},
        {"kty": "new", "kid": "unheard"},
        jwk(rsa_key(), "good", alg="RS256"),
    ]
    keys = KeySet(issuer.receiver.url, "RS256", clock)
    assert keys.find("good")
    assert keys._keys.keys() == {"good", None}
    curves = KeySet(issuer.receiver.url, "ES256", clock)
    assert curves.find("curve")
    assert curves._keys.keys() == {"curve", None}


def test_many_at_once_are_one_fetch(issuer: Issuer, clock: Clock) -> None:
    keys = KeySet(issuer.receiver.url, "RS256", clock)
    issuer.gate.clear()
    found: list[object] = []
    callers = [threading.Thread(target=lambda: found.append(keys.find("first"))) for _ in range(20)]
    for caller in callers:
        caller.start()
    until(lambda: issuer.fetches == 1, 10)
    issuer.gate.set()
    for caller in callers:
        caller.join()
    assert (len(found), all(found), issuer.fetches) == (20, True, 1)


def test_an_address_that_hangs_holds_nobody_for_long(
    keys: KeySet, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.jwks.FETCH_LIMIT", 0.2)
    issuer.gate.clear()
    with pytest.raises(KeysUnavailable):
        keys.find("first")
