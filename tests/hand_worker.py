"""The test as a worker, and what tests of HTTP say again and again."""

from typing import Any

from flask.testing import FlaskClient
from redis import Redis

from inferq.completion_cache import CachedCompletion
from inferq.ids import new_id
from inferq.run_store import ClaimedRun, Completion, RunStore
from inferq.scripts import Scripts
from inferq.settings import Settings
from tests.processes import until


class HandWorker:
    """A worker whose every step the test takes."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self.store = RunStore(Scripts(redis), engine=settings.engine_queue, worker="hand", lease_ms=12_000)

    def claim(self) -> ClaimedRun:
        run, _ = self.store.claim(new_id())
        assert run
        return run

    def claim_when_there_is_one(self) -> ClaimedRun:
        found: list[ClaimedRun] = []
        until(lambda: (run := self.store.claim(new_id())[0]) and not found.append(run), 20, "a run waits")
        return found[0]

    def finish(self, run: ClaimedRun, text: str = "an answer") -> None:
        completion = Completion(text=text, finish_reason="stop", prompt_tokens=4, completion_tokens=3, ttft_ms=7)
        entry = CachedCompletion(
            text=text, finish_reason="stop", prompt_tokens=4, completion_tokens=3, model=run.model, stored_ms=0
        )
        assert self.store.complete(run, completion, cache_entry=entry if run.store else None, cache_ttl_s=60)[0]


def submit(client: FlaskClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json={"prompt": "hi", **body})
    assert answer.status_code == 202, answer.text
    return answer.json


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "application/problem+json"
    assert {"type", "title", "status", "detail", "code", "request_id"} <= set(answer.json)
    assert (answer.json["status"], answer.json["code"]) == (status, code)
    return answer.json
