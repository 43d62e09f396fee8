"""Settings: complete in ``.env.example``, and wrong ones are named in one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

from inferq.errors import ConfigurationError
from inferq.settings import Settings, environment_for, load_settings
from tests.processes import ROOT


def example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_env_example_names_every_setting_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    assert {name.lower() for name in example()} == set(Settings.model_fields)
    assert Settings(_env_file=ROOT / ".env.example") == Settings(_env_file=None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RATE_LIMIT", "0"),
        ("CACHE_TTL", "soon"),
        ("REDIS_URL", "http://localhost"),
        ("ENGINE", "gpt"),
        ("GPU_MEMORY_UTIL", "1.5"),
        ("API_PORT", "70000"),
        ("BOOTSTRAP_API_KEY", "hunter2"),
        ("DRAIN_GRACE", "-1"),
        ("STREAM_HEARTBEAT", "31"),
        ("WEBHOOK_PORTS", "https"),
        ("WEBHOOK_PORTS", "443,70000"),
        ("WEBHOOK_RETRIES", "5,soon"),
        ("WEBHOOK_RETRIES", "5,-1"),
        ("WEBHOOK_RETRIES", "nan"),
        ("WEBHOOK_ALLOWED_HOSTS", "http://localhost"),
        ("BOOTSTRAP_WEBHOOK_SECRET", "whsec_c2hvcnQ="),
        ("BOOTSTRAP_WEBHOOK_SECRET", "hunter2"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"^wrong setting: {name}: "):
        load_settings()


GOOD_TOKENS = {
    "JWT_ALGORITHM": "HS256", "JWT_SECRET": "s" * 32, "JWT_ISSUER": "https://issuer", "JWT_AUDIENCE": "inferq",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"JWT_ALGORITHM": ""}, "JWT_ALGORITHM"),
        ({"JWT_ALGORITHM": "none"}, "JWT_ALGORITHM"),
        ({"JWT_ALGORITHM": "HS512"}, "JWT_ALGORITHM"),
        ({"JWT_SECRET": ""}, "JWT_SECRET"),
        ({"JWT_SECRET": "s" * 31}, "JWT_SECRET"),
        ({"JWT_KEY_FILE": "/key.pem"}, "JWT_KEY_FILE"),
        ({"JWT_JWKS_URL": "https://issuer/jwks"}, "JWT_JWKS_URL"),
        ({"JWT_ALGORITHM": "RS256"}, "JWT_SECRET"),
        ({"JWT_ALGORITHM": "RS256", "JWT_SECRET": ""}, "JWT_KEY_FILE"),
        (
            {"JWT_ALGORITHM": "ES256", "JWT_SECRET": "", "JWT_KEY_FILE": "/k", "JWT_JWKS_URL": "https://issuer/jwks"},
            "JWT_KEY_FILE",
        ),
        ({"JWT_ALGORITHM": "RS256", "JWT_SECRET": "", "JWT_JWKS_URL": "http://issuer/jwks"}, "JWT_JWKS_URL"),
        ({"JWT_ALGORITHM": "RS256", "JWT_SECRET": "", "JWT_JWKS_URL": "file:///etc/passwd"}, "JWT_JWKS_URL"),
        ({"JWT_ALGORITHM": "RS256", "JWT_SECRET": "", "JWT_JWKS_URL": "https:///jwks"}, "JWT_JWKS_URL"),
        ({"JWT_ISSUER": ""}, "JWT_ISSUER"),
        ({"JWT_AUDIENCE": ""}, "JWT_AUDIENCE"),
        ({"JWT_LEEWAY": "301"}, "JWT_LEEWAY"),
        ({"JWT_LEEWAY": "-1"}, "JWT_LEEWAY"),
        ({"JWT_LIMITS_CLAIM": "tenant"}, "JWT_LIMITS_CLAIM"),
    ],
)
def test_settings_of_tokens_that_do_not_go_together(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], name: str
) -> None:
    for setting, value in (GOOD_TOKENS | changes).items():
        monkeypatch.setenv(setting, value)
    with pytest.raises(ConfigurationError, match=f"^wrong setting: {name}: [^;]*$"):
        load_settings()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"JWT_ALGORITHM": "RS256", "JWT_SECRET": "", "JWT_KEY_FILE": "/key.pem"},
        {"JWT_ALGORITHM": "ES256", "JWT_SECRET": "", "JWT_JWKS_URL": "https://issuer/jwks"},
        {"JWT_ALGORITHM": "ES256", "JWT_SECRET": "", "JWT_JWKS_URL": "http://localhost:8080/jwks"},
    ],
)
def test_settings_of_tokens_that_do(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]) -> None:
    for setting, value in (GOOD_TOKENS | changes).items():
        monkeypatch.setenv(setting, value)
    assert load_settings().jwt_algorithm


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "gunicorn", "-c", "api/gunicorn_conf.py", "api.wsgi:app"],
        ["-m", "celery", "-A", "workers.app", "worker"],
        ["-m", "celery", "-A", "workers.keeper", "worker"],
    ],
    ids=["api", "worker", "keeper"],
)
def test_no_process_starts_with_a_wrong_setting(command: list[str]) -> None:
    environment = environment_for(Settings(_env_file=None)) | {"RATE_LIMIT": "many"}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "wrong setting: RATE_LIMIT" in done.stderr
    assert "Traceback" not in done.stderr


def test_secrets_are_not_shown() -> None:
    assert "whisper" not in repr(Settings(_env_file=None, bootstrap_api_key="iq_dev_whisper123"))


def test_secrets_may_be_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("inferq.settings.SECRETS", tmp_path)
    monkeypatch.setenv("FLOWER_PASSWORD", "")
    (tmp_path / "flower_password").write_text("from-a-file\n")
    (tmp_path / "metrics_token").write_text("too-short")
    with pytest.raises(ConfigurationError, match=r"^wrong setting: METRICS_TOKEN: "):
        load_settings()
    monkeypatch.setenv("METRICS_TOKEN", "from-the-environment")
    settings = load_settings()
    assert settings.flower_password
    assert settings.flower_password.get_secret_value() == "from-a-file", "an empty variable is as good as none"
    assert settings.metrics_token
    assert settings.metrics_token.get_secret_value() == "from-the-environment", "the environment comes first"
