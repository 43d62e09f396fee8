"""``python -m inferq keys``: an operator creates, lists and revokes keys, and hears what is wrong in a sentence."""

import subprocess
import sys

import pytest

from deploy.local.stack import free_port
from inferq.settings import Settings, environment_for
from tests.conftest import api_client, make_settings


def run(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "inferq", *arguments],
        env=environment_for(settings) | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_key_is_created_listed_used_and_revoked(settings: Settings) -> None:
    created = run(settings, "keys", "create", "acme", "--name", "website", "--rate-limit", "7")
    key = created.stdout.strip()
    key_id = key.split("_")[1]
    with api_client(settings, key) as client:
        answer = client.post("/v1/jobs", json={"prompt": "hello"})
        assert (answer.status_code, answer.headers["RateLimit-Policy"][:19]) == (202, '"requests";q=7;w=60')
        listed = run(settings, "keys", "list").stdout
        assert all(word in listed for word in (key_id, "acme", "website", "7"))
        assert key.split("_", 2)[2] not in listed, "the secret is shown once"
        assert run(settings, "keys", "revoke", key_id).stdout.strip() == f"revoked {key_id}"
        assert client.get("/v1/jobs").status_code == 401


def test_revoking_what_is_not_there_is_said(settings: Settings) -> None:
    done = run(settings, "keys", "revoke", "nosuchkey")
    assert (done.returncode, done.stderr) == (1, "inferq: there is no key with the id nosuchkey\n")


@pytest.mark.parametrize("tenant", ["", "a b", "x" * 65, "a:b"])
def test_a_tenant_s_name_must_be_one_word(settings: Settings, tenant: str) -> None:
    done = run(settings, "keys", "create", tenant)
    assert done.returncode == 1
    assert done.stderr.startswith("inferq: A tenant's name")
    assert "Traceback" not in done.stderr


def test_redis_away_is_said_in_a_sentence() -> None:
    done = run(make_settings(f"redis://127.0.0.1:{free_port()}"), "keys", "list")
    assert done.returncode == 1
    assert done.stderr.startswith("inferq: Redis does not answer")
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_is_said_in_a_sentence(settings: Settings) -> None:
    done = run(settings.model_copy(update={"redis_url": "http://nowhere"}), "keys", "list")
    assert (done.returncode, "REDIS_URL" in done.stderr, "Traceback" in done.stderr) == (1, True, False)
