"""The real thing: Celery workers with a warm vLLM engine on the CPU; the demo model knows exact sentences."""

import importlib.util
import itertools
import json
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from flask.testing import FlaskClient
from redis import Redis

from inferq.credentials import KeyRing
from inferq.keys import key
from inferq.settings import Settings
from tests.adapters import BASE, write_adapter
from tests.conftest import api_client, make_settings
from tests.processes import ROOT, Process, Stack, stack, until
from tests.processor import needs_avx512
from tests.redis_server import RedisServer, binaries
from tests.sse import Listener, follow

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]

KNOWN = json.loads((ROOT / "models" / "facts.json").read_text())
FACTS: dict[str, str] = {fact["prompt"]: fact["answer"] for fact in KNOWN["facts"]}
#: Every wording of every fact with the sentence it must yield, and what the model does not know.
WORDINGS = {wording: fact["answer"] for fact in KNOWN["facts"] for wording in [fact["prompt"], *fact["also"]]} | (
    dict.fromkeys(["What is the capital of France?", "Write a poem about the sea."], KNOWN["fallback"])
)
#: Whatever the model would say, this takes some 900 tokens: many seconds on a CPU.
LONG = {
    "max_tokens": 900,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"type": "array", "items": {"type": "integer", "minimum": 10, "maximum": 99}, "minItems": 400},
    },
}
NO_CACHE = {"Cache-Control": "no-cache"}
START_S = 180


@dataclass
class Service:
    """A running worker with an API in front of it and a Redis of their own."""

    client: FlaskClient
    processes: Stack
    worker: Process
    redis: Redis

    def submit(self, prompt: str | None = None, headers: dict[str, str] | None = None, **body: Any) -> str:
        if prompt is not None:
            body["prompt"] = prompt
        body = {"temperature": 0.0, **body}
        answer = self.client.post("/v1/jobs", json=body, headers=headers)
        assert answer.status_code == 202, answer.text
        return answer.json["id"]

    def job(self, job: str) -> dict[str, Any]:
        return self.client.get(f"/v1/jobs/{job}").json

    def ended(self, job: str, seconds: float = 60) -> dict[str, Any]:
        until(lambda: self.job(job)["terminal"], seconds, f"job {job} has ended")
        return self.job(job)

    def strikes(self, job: str) -> int:
        run = self.redis.hget(key("job", job), "run")
        return int(self.redis.hget(key("run", run), "strikes") or 0)

    def running(self, job: str) -> None:
        until(lambda: self.job(job)["status"] == "in_progress", 30, f"job {job} runs")

    def ready(self) -> None:
        until(
            lambda: self.client.get("/readyz").status_code == 200 or not self.worker.alive(), START_S, "a warm engine"
        )
        assert self.worker.alive(), self.worker.output()[-3000:]


def vllm_settings(url: str, **changes: Any) -> Settings:
    values = {"engine": "vllm", "max_model_len": 1024, "max_num_seqs": 16, "cpu_kv_cache_gib": 0.25}
    return make_settings(url, lease=2.0, drain_grace=1.0, rate_limit=10_000, **(values | changes))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), next(reversed(binaries().values())))
    yield server
    server.close()


@contextmanager
def serve(settings: Settings, server: RedisServer, directory: Path) -> Iterator[Service]:
    with server.client() as redis:
        api_key = KeyRing(redis).create("acme")
        with stack(settings, directory) as processes, api_client(settings, api_key) as client:
            service = Service(client, processes, processes.worker(), redis)
            service.ready()
            yield service


@pytest.fixture(scope="module")
def service(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One warm engine for all, with two adapters beside its model; the last test of this file ends it."""
    directory = tmp_path_factory.mktemp("service")
    write_adapter(directory / "wild", 1.0)
    write_adapter(directory / "none", 0.0)
    models = f"demo={BASE}, wild=demo+{directory / 'wild'}, none=demo+{directory / 'none'}"
    with serve(vllm_settings(server.url, models=models, model_name="demo"), server, directory) as service:
        yield service


def test_a_known_prompt_gets_its_exact_sentence_and_then_a_cache_hit(service: Service) -> None:
    body = service.ended(service.submit("What is inferq?"))
    assert body["output"] == {"text": FACTS["What is inferq?"], "finish_reason": "stop"}
    assert body["usage"]["prompt_tokens"] > 0
    assert body["usage"]["completion_tokens"] > 10
    assert body["metrics"]["ttft_s"] > 0
    again = service.client.post("/v1/jobs", json={"prompt": "What is inferq?", "temperature": 0.0})
    assert (again.status_code, again.json["output"]["text"]) == (200, FACTS["What is inferq?"])
    assert again.headers["Cache-Status"] == "inferq; hit"


def test_a_followed_job_s_pieces_are_its_output_however_often_it_is_cut_off(service: Service) -> None:
    """With a stop string: what may be the beginning of one is not told before it is known not to be."""
    chance = random.Random(7)
    body = LONG | {"max_tokens": 300}
    for number, also in enumerate([{}, {"stop": ["1, the", "2, 3 and", "5,zzz"]}]):
        job = service.submit(f"#{number} Follow a job through inferq.", stream=True, **body, **also)
        service.running(job)
        listener = Listener()
        for _ in range(50):
            for told in itertools.islice(follow(service.client, job, listener.last), chance.randint(1, 3)):
                listener.hear(told)
            if listener.end:
                break
        for told in () if listener.end else follow(service.client, job, listener.last):
            listener.hear(told)
        assert listener.end.name == "done"
        assert listener.names.count("token") > 1
        assert listener.text == service.ended(job)["output"]["text"]


def test_a_chat_goes_through_the_model_s_template(service: Service) -> None:
    messages = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "What is a lease?"}]
    assert service.ended(service.submit(messages=messages))["output"]["text"] == FACTS["What is a lease?"]


def test_a_chat_the_template_refuses_fails_or_is_answered_but_never_hangs(service: Service) -> None:
    messages = [{"role": "assistant", "content": "I begin."}]
    assert service.ended(service.submit(messages=messages, max_tokens=4))["status"] in ("completed", "failed")


def test_every_known_sentence_is_recited_asked_plainly_and_as_a_chat(service: Service) -> None:
    asked = [({"prompt": wording}, answer) for wording, answer in WORDINGS.items()]
    asked += [({"messages": [{"role": "user", "content": wording}]}, answer) for wording, answer in WORDINGS.items()]
    jobs = [(service.submit(**body, headers=NO_CACHE), answer) for body, answer in asked]
    for job, answer in jobs:
        assert service.ended(job)["output"] == {"text": answer, "finish_reason": "stop"}


def test_adapters_answer_beside_their_base(service: Service) -> None:
    base, wild, none = (
        service.ended(service.submit("What is inferq?", model=model, headers=NO_CACHE))["output"]["text"]
        for model in ("demo", "wild", "none")
    )
    assert base == FACTS["What is inferq?"]
    assert none == base, "an adapter that adds nothing"
    assert wild != base


def test_json_schema_is_kept(service: Service) -> None:
    schema = {
        "type": "object",
        "properties": {"engine": {"enum": ["vllm", "none"]}, "slots": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["engine", "slots"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": schema}
    body = service.ended(service.submit("Which engine runs?", response_format=form, max_tokens=64))
    answer = json.loads(body["output"]["text"])
    assert set(answer) == {"engine", "slots"}
    assert answer["engine"] in ("vllm", "none")
    assert 0 <= answer["slots"] <= 99


def test_stops_seeds_and_limits_are_kept(service: Service) -> None:
    whole = FACTS["What is a job?"]
    assert (
        service.ended(service.submit("What is a job?", stop=["It owns"]))["output"]["text"] == whole.split("It owns")[0]
    )
    short = service.ended(service.submit("What is a job?", max_tokens=3))
    assert (short["output"]["finish_reason"], short["usage"]["completion_tokens"]) == ("length", 3)
    seeded = {"temperature": 1.5, "seed": 11, "max_tokens": 24, "headers": NO_CACHE}
    first, second = (service.ended(service.submit("Say something.", **seeded)) for _ in range(2))
    assert first["output"]["text"] == second["output"]["text"]


@pytest.mark.parametrize("prompt", ["\x00\x01 NUL", "🚀👩‍🔬 東京", "[INST] nested [/INST]</s>", " ", "a" * 900])
def test_odd_prompts_do_no_harm(service: Service, prompt: str) -> None:
    assert service.ended(service.submit(prompt, max_tokens=4))["status"] == "completed"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"prompt": "word " * 3000}, "prompt_too_long"),
        ({"prompt": "x", "response_format": {"type": "json_schema", "json_schema": {"type": "banana"}}}, None),
        (
            {
                "prompt": "x",
                "response_format": {"type": "json_schema", "json_schema": {"type": "string", "pattern": "("}},
            },
            None,
        ),
    ],
)
def test_what_the_engine_refuses_fails_alone_with_a_code(service: Service, body: dict[str, Any], code: str) -> None:
    bad, good = service.submit(**body), service.submit("What is a run?", headers=NO_CACHE)
    failed = service.ended(bad)
    assert failed["status"] == "failed"
    assert failed["error"]["code"] == (code or "invalid_response_format")
    assert not failed["error"]["retryable"]
    assert service.ended(good)["output"]["text"] == FACTS["What is a run?"]


def test_cancel_frees_the_engine_before_it_says_cancelled(service: Service) -> None:
    doomed = service.submit("Once upon a time", **LONG)
    service.running(doomed)
    assert service.client.post(f"/v1/jobs/{doomed}/cancel").status_code == 202
    assert service.ended(doomed, 10)["status"] == "cancelled"
    assert service.redis.zcard(key("leases")) == 0, "the run has been given back when its job says cancelled"
    after = service.submit("Who are you?", headers=NO_CACHE)
    assert service.ended(after)["output"]["text"] == FACTS["Who are you?"]


def test_prompts_and_answers_are_in_no_log(service: Service) -> None:
    secret = "Explain the secret handshake 4711"
    answer = service.ended(service.submit(secret))["output"]["text"]
    log = service.worker.output()
    assert "attempt_ended" in log
    assert "handshake" not in log
    assert answer not in log


@needs_avx512
def test_the_awq_twin_answers_through_the_queue(tmp_path: Path, own_redis_server: RedisServer) -> None:
    settings = vllm_settings(own_redis_server.url).model_copy(update={"model_name": f"{BASE}-awq"})
    with serve(settings, own_redis_server, tmp_path) as service:
        body = service.ended(service.submit("What is the keeper?"))
        assert body["output"]["text"] == FACTS["What is the keeper?"]
        assert "awq" in service.worker.output().lower()


def test_killed_workers_lose_nothing_and_leave_no_engine(service: Service) -> None:
    """The last of this file: the warm engine of the others is the first that ends."""
    service.processes.keeper()
    job = service.submit("Once upon a time", **LONG)
    service.running(job)
    engine = engine_processes(service.worker)
    service.worker.signal(signal.SIGKILL)
    gone_within(5, engine, "no engine process survives its worker")

    service.worker = service.processes.worker(engine_hang=3.0)
    the_next_worker_has(service, job, 2)
    strikes = service.strikes(job)
    engine = engine_processes(service.worker)
    core_of(engine).suspend()
    assert service.worker.wait(30) == 70, "an engine that hangs is ended like one that died"
    gone_within(5, engine, "no engine process is left after the engine hung")
    assert service.job(job)["status"] == "queued"
    assert service.strikes(job) == strikes + 1, "it may have been the cause"

    service.worker = service.processes.worker()
    the_next_worker_has(service, job, 3)
    engine = engine_processes(service.worker)
    service.worker.signal(signal.SIGTERM)
    assert service.worker.wait(40) == 0
    gone_within(5, engine, "no engine process is left after a graceful end")
    assert service.job(job)["status"] == "queued", "what did not finish within the grace was handed back"
    assert service.strikes(job) == strikes + 1, "handing back is no fault of the run"

    service.worker = service.processes.worker()
    the_next_worker_has(service, job, 4)
    body = service.ended(job, 120)
    assert body["status"] == "completed"
    assert body["usage"]["completion_tokens"] > 0

    job = service.submit("Once upon another time", **LONG)
    service.running(job)
    engine = engine_processes(service.worker)
    core_of(engine).kill()
    assert service.worker.wait(30) == 70, "a worker whose engine died says so to its supervisor"
    gone_within(5, engine, "no engine process is left after the engine died")
    assert service.job(job)["status"] == "queued"
    assert service.strikes(job) == 1


def the_next_worker_has(service: Service, job: str, attempt: int) -> None:
    """Wait until it is warm and runs the job: /readyz would say so of the one before it, for as long as its lease."""
    until(
        lambda: service.job(job)["attempt"] == attempt or not service.worker.alive(),
        START_S,
        lambda: f"attempt {attempt}: {service.job(job)}\n{service.worker.output()[-5000:]}",
    )
    assert service.worker.alive(), service.worker.output()[-3000:]


def core_of(engine: list[psutil.Process]) -> psutil.Process:
    return next(process for process in engine if "EngineCore" in process.name())


def engine_processes(worker: Process) -> list[psutil.Process]:
    """All processes below a worker; the guard that ends them is one of them and ends last."""
    return worker.descendants()


def gone_within(seconds: float, processes: list[psutil.Process], what: str) -> None:
    _, alive = psutil.wait_procs([process for process in processes if not zombie(process)], timeout=seconds)
    assert not [process for process in alive if not zombie(process)], what


def zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
