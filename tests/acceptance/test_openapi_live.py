"""The API does what its OpenAPI document says: generated calls, and stories of calls, against real processes."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from api.operations import OPERATIONS
from deploy.local.stack import free_port
from inferq.credentials import KeyLimits, KeyRing
from inferq.keys import key
from inferq.webhook_secrets import new_secret
from tests.browser import browser, needs_browser
from tests.conftest import make_settings
from tests.processes import stack, until
from tests.redis_server import RedisServer, binaries

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    unsupported_method,
]
#: The same calls every time.
CALLS: dict[str, Any] = {
    "phases": [Phase.explicit, Phase.generate],
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}
TOKEN = "a-token-of-metrics"
#: Routes whose calls can be wrong in more than their path.
FALLIBLE = [route for route, one in OPERATIONS.items() if one.body or {"limit", "days"} & set(one.takes)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    running = RedisServer(tmp_path_factory.mktemp("redis"), next(reversed(binaries().values())))
    yield running
    running.close()


@pytest.fixture(scope="module")
def service(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an API with a worker and a keeper behind it."""
    settings = make_settings(
        server.url,
        api_port=free_port(),
        webhook_timeout=0.5,
        metrics_token=TOKEN,
        simulated_step=0.001,
    )
    with stack(settings, tmp_path_factory.mktemp("service")) as running:
        running.worker()
        running.keeper()
        api, address = running.api(), f"http://127.0.0.1:{settings.api_port}"
        until(lambda: "Booting worker" in api.output() or not api.alive(), 60, "gunicorn is up")
        until(lambda: ready(address), 60, "a worker is ready")
        yield address
        api.signal(signal.SIGTERM)
        api.wait()


def ready(address: str) -> bool:
    try:
        with urlopen(f"{address}/health", timeout=30) as answer:
            return bool(json.load(answer)["parts"]["workers"] == "ready")
    except OSError:
        return False


@pytest.fixture(scope="module")
def headers(server: RedisServer) -> dict[str, str]:
    limits = KeyLimits(requests=1_000_000, polls=1_000_000, tokens=1_000_000_000)
    with server.client() as redis:
        return {"X-API-Key": KeyRing(redis).create("acme", limits=limits)}


@pytest.fixture(scope="module")
def described(service: str) -> Any:
    """The document as it is served, but nothing may be answered that it does not name."""
    with urlopen(f"{service}/openapi.json", timeout=30) as answer:
        document = json.load(answer)
    for shape in document["components"]["schemas"].values():
        if "properties" in shape:
            shape["additionalProperties"] = False
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=service)
    return schema


def test_the_document_is_one(described: Any) -> None:
    described.validate()


@pytest.mark.parametrize(
    ("route", "mode"),
    [(route, GenerationMode.POSITIVE) for route in OPERATIONS]
    + [(route, GenerationMode.NEGATIVE) for route in FALLIBLE],
)
def test_every_call(described: Any, headers: dict[str, str], route: str, mode: GenerationMode) -> None:
    method, path = route.split(" ")
    operation = described[path][method]
    shown = {"Authorization": f"Bearer {TOKEN}"} if OPERATIONS[route].open_to == "metrics" else headers

    @hypothesis_settings(max_examples=10, **CALLS)
    @given(case=operation.as_strategy(generation_mode=mode))
    def call(case: schemathesis.Case) -> None:
        case.call_and_validate(headers=shown, checks=CHECKS)

    call()


@pytest.mark.parametrize(
    ("route", "name"), [(route, name) for route, one in OPERATIONS.items() for name in one.examples]
)
def test_examples_work(described: Any, headers: dict[str, str], server: RedisServer, route: str, name: str) -> None:
    with server.client() as redis:
        redis.zadd(key("webhook_secrets", "acme"), {new_secret(): "+inf"})
    method, path = route.split(" ")
    case = described[path][method].Case(body=dict(OPERATIONS[route].examples[name]), media_type="application/json")
    answer = case.call_and_validate(headers=headers, checks=CHECKS)
    assert answer.status_code in OPERATIONS[route].answers, answer.text


@pytest.mark.parametrize("route", [route for route, one in OPERATIONS.items() if one.open_to != "everybody"])
def test_strangers_are_refused(described: Any, route: str) -> None:
    method, path = route.split(" ")

    @hypothesis_settings(max_examples=3, **CALLS)
    @given(case=described[path][method].as_strategy())
    def call(case: schemathesis.Case) -> None:
        answer = case.call_and_validate(headers={"X-API-Key": "iq_nobody_12345678", "Authorization": ""}, checks=CHECKS)
        assert answer.status_code == 401

    call()


@needs_browser
def test_the_page_shows_the_document_under_its_strict_policy(service: str, tmp_path: Path) -> None:
    with browser(tmp_path) as window:
        window.get(f"{service}/docs#/jobs/createJob")
        shown = until(lambda: text if "Submit a job" in (text := window.page_source) and "Execute" in text else "", 60)
        assert all(path.split(" ")[1].split("{")[0] in str(shown) for path in OPERATIONS)
        said = [line for line in window.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]
        assert not said, "nothing was refused or missing"


def test_stories_of_calls(described: Any, headers: dict[str, str]) -> None:
    steps = []

    class Story(described.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: schemathesis.Case) -> dict[str, Any]:
            return {"headers": headers}

        def validate_response(self, response: Any, case: schemathesis.Case, **_: Any) -> None:
            steps.append((case.operation.label, response.status_code))
            case.validate_response(response, checks=CHECKS, headers=headers)

    Story.run(settings=hypothesis_settings(max_examples=8, stateful_step_count=6, **CALLS))
    told = {status for label, status in steps if "{job_id}" in label}
    assert told & {200, 202, 204, 409}, f"stories go on with the jobs they have made: {steps}"
