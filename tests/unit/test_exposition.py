"""The port on which workers and keepers offer their metrics."""

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter
from pydantic import SecretStr

from inferq.errors import ConfigurationError
from workers.exposition import Exposition
from workers.metrics import WorkerMetrics

TOKEN = "a-token-of-sixteen"
ALWAYS: dict[str, Callable[[], bool]] = {"ready": lambda: True, "alive": lambda: True}


class Ready:
    ready = False
    alive = True


@pytest.fixture(params=[None, TOKEN])
def offered(request: pytest.FixtureRequest) -> Iterator[tuple[Exposition, Ready, str | None]]:
    registry, ready = CollectorRegistry(), Ready()
    WorkerMetrics(registry, "demo")
    token = SecretStr(request.param) if request.param else None
    exposition = Exposition(
        registry,
        address=("127.0.0.1", 0),
        setting="METRICS_PORT",
        token=token,
        ready=lambda: ready.ready,
        alive=lambda: ready.alive,
    )
    exposition.start()
    yield exposition, ready, request.param
    exposition.close()


def ask(exposition: Exposition, path: str, token: str | None = None, **more: str) -> tuple[int, str]:
    headers = ({"Authorization": f"Bearer {token}"} if token else {}) | more
    request = urllib.request.Request(f"http://127.0.0.1:{exposition.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_are_for_who_shows_the_token(offered: tuple[Exposition, Ready, str | None]) -> None:
    exposition, _, token = offered
    assert ask(exposition, "/metrics")[0] == (401 if token else 200)
    assert ask(exposition, "/metrics", "another-token-than-this")[0] == (401 if token else 200)
    status, text = ask(exposition, "/metrics", TOKEN)
    assert status == 200
    assert 'inferq_engine_state{state="warming"} 1.0' in text
    assert 'inferq_attempts_total{outcome="failed"} 0.0' in text, "a series from the start, so that rates see zeros"
    assert "_created" not in text


def test_names_stay_as_they_are_whatever_format_is_preferred() -> None:
    registry = CollectorRegistry()
    Counter("vllm:tokens_total", "As vLLM calls its own.", registry=registry).inc()
    exposition = Exposition(registry, address=("127.0.0.1", 0), setting="METRICS_PORT", token=None, **ALWAYS)
    exposition.start()
    try:
        accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
        status, text = ask(exposition, "/metrics", Accept=accept)
        assert status == 200
        assert "\nvllm:tokens_total 1.0" in text
        assert "vllm_" not in text
    finally:
        exposition.close()


def test_probes_need_no_token(offered: tuple[Exposition, Ready, str | None]) -> None:
    exposition, ready, _ = offered
    assert ask(exposition, "/readyz")[0] == 503
    ready.ready = True
    assert ask(exposition, "/readyz") == (200, "ready\n")
    assert ask(exposition, "/livez") == (200, "alive\n")
    ready.alive = False
    assert ask(exposition, "/livez") == (503, "stuck\n")
    assert ask(exposition, "/readyz")[0] == 200, "asked apart"
    assert ask(exposition, "/")[0] == 404


def test_a_taken_port_is_said_with_its_setting(offered: tuple[Exposition, Ready, str | None]) -> None:
    taken = ("127.0.0.1", offered[0].port)
    with pytest.raises(ConfigurationError, match=r"METRICS_PORT: 127\.0\.0\.1:"):
        Exposition(CollectorRegistry(), address=taken, setting="METRICS_PORT", token=None, **ALWAYS)
