"""The users of deploy/acl on real servers: enough for all that each process does, and for nothing else.

Whole processes under them: tests/acceptance/test_redis_login.py (worker, keeper) and test_flower.py.
"""

import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from redis import Redis
from redis.exceptions import AuthenticationError, ResponseError

from deploy.acl.__main__ import FILE
from deploy.acl.users import USERS
from deploy.local.stack import free_port
from inferq.completion_cache import CachedCompletion
from inferq.credentials import KeyRing
from inferq.ids import new_id
from inferq.job_store import JobStore, ServiceLimits
from inferq.keys import key as iq
from inferq.measures import read_measures
from inferq.outbox import Outbox, Outcome
from inferq.redis_check import check_cache
from inferq.redis_client import connect
from inferq.run_store import ClaimedRun, Completion, RunStore
from inferq.scripts import Scripts
from inferq.sweeps import Sweeps
from tests.conftest import api_client, make_settings
from tests.processes import ROOT
from tests.redis_server import RedisServer, binaries

PASSWORD = "s3cret"


class Guarded(RedisServer):
    """Nobody gets in without a name; the test itself has one."""

    def client(self) -> Redis:
        return Redis.from_url(self.url, username="admin", password="any", decode_responses=True)


@pytest.fixture(params=sorted(binaries()))
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that has read the file as an operator fills it in."""
    text = FILE.read_text(encoding="utf-8") + "user admin on nopass ~* &* +@all\n"
    for user in USERS:
        text = text.replace(f"{user.digest} ", f"#{hashlib.sha256(PASSWORD.encode()).hexdigest()} ")
    file = tmp_path / "users.acl"
    file.write_text(text, encoding="utf-8")
    server = Guarded(tmp_path, binaries()[request.param], "--aclfile", str(file))
    yield server
    server.close()


def url_of(server: RedisServer, user: str) -> str:
    return server.url.replace("redis://", f"redis://inferq-{user}:{PASSWORD}@")


@pytest.fixture
def as_user(server: RedisServer) -> Iterator[dict[str, Redis]]:
    names = [user.name.removeprefix("inferq-") for user in USERS]
    clients = {name: Redis.from_url(url_of(server, name), decode_responses=True) for name in names}
    yield clients
    for client in clients.values():
        client.close()


def test_each_user_may_do_all_its_process_does(server: RedisServer, as_user: dict[str, Redis]) -> None:
    settings = make_settings(url_of(server, "api"), webhook_allowed_hosts="127.0.0.1")
    worker = RunStore(Scripts(as_user["worker"]), engine=settings.engine_queue, worker="w", lease_ms=12_000)
    keeper = Scripts(as_user["keeper"])
    sweeps, outbox = Sweeps(keeper, lease_ms=12_000, tick_ms=1000), Outbox(keeper, timeout_s=2.0, waits_s=(1.0,))

    # A bootstrap key is stored by the API itself.
    key = "iq_boot_notasecret"
    KeyRing(as_user["api"]).store(key, "acme", webhook_secret="whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0")
    with server.client() as redis, api_client(settings, key) as client:
        worker.heartbeat([], {"state": "ready", "slots": "4"})

        job = ask(client, "told and followed", stream=True, webhook={"url": "http://127.0.0.1:9/hook"})
        run = claim(worker)
        assert worker.heartbeat([(run.id, run.fence)], {"state": "ready", "slots": "4"})[0] == {}
        worker.append([(run.id, run.fence, 0, "an ")])
        follow(client, as_user["api"], job, run)
        finish(worker, run)
        client.get(f"/v1/jobs/{job}")
        assert client.post("/v1/jobs", json={"prompt": "told and followed", "max_tokens": 8}).json["cache"]["status"]

        cancelled = ask(client, "no longer wanted")
        assert client.post(f"/v1/jobs/{cancelled}/cancel").status_code == 200
        for fate in ("fails", "comes back"):
            ask(client, fate)
            run = claim(worker)
            if fate == "fails":
                assert worker.fail(run, code="simulated_failure", message="told to", retryable=False)
            else:
                assert worker.release(run, strikes=1)[0] == "queued"

        sweeps.tick()
        (parcel,) = outbox.take(proven=8, unproven=8)[0]
        assert parcel.secrets
        outbox.attempted(parcel, Outcome(good=True, ms=1, status=204), 0.5)
        outbox.lacks_bell()
        assert read_measures(keeper, JobStore(keeper, ServiceLimits(requests=1, polls=1))).engines

        for path in ("/v1/jobs", "/v1/queue", "/v1/usage", "/v1/models", f"/v1/jobs/{job}/deliveries", "/health"):
            assert client.get(path).status_code == 200, path
        told = client.get(f"/v1/jobs/{job}/deliveries").json["data"][0]["id"]
        assert client.post(f"/v1/jobs/{job}/deliveries/{told}/redeliver").status_code < 300
        assert client.post("/v1/webhooks/secrets/rotate", json={}).status_code == 200
        assert client.delete(f"/v1/jobs/{cancelled}").status_code == 204
        worker.leave()

        metrics = as_user["metrics"]
        assert metrics.zcard("iq:engine:demo-mistral:struck") == 1
        assert metrics.llen("iq:celery:generate.demo-mistral") >= 0
        asked = "return {redis.call('TYPE', KEYS[1]).ok, redis.call('ZCARD', KEYS[1])}"
        assert metrics.eval(asked, 1, "iq:engine:demo-mistral:struck") == ["zset", 1]
        # `client setinfo`, a library's greeting, is refused, and the library goes on; older servers log it as `client`.
        refused = [(entry["username"], entry["object"]) for entry in redis.acl_log()]
        assert [one for one in refused if one[1] not in ("client", "client|setinfo")] == []


@pytest.mark.parametrize(
    ("user", "command"),
    [
        *((user.name.removeprefix("inferq-"), ("FLUSHALL",)) for user in USERS),
        *((user.name.removeprefix("inferq-"), ("CONFIG", "GET", "*")) for user in USERS),
        *((user.name.removeprefix("inferq-"), ("KEYS", "*")) for user in USERS),
        ("api", ("GET", "somebody:else")),
        ("worker", ("HGETALL", "iq:key:boot")),
        ("worker", ("ZRANGE", "iq:webhook-secrets:acme", 0, -1)),
        ("worker", ("EVAL", "return redis.call('HGETALL', 'iq:key:boot')", 0)),
        ("worker", ("SUBSCRIBE", "somebody:else")),
        ("keeper", ("HGETALL", "iq:key:boot")),
        ("flower", ("GET", "iq:run:1:request")),
        ("flower", ("EVAL", "return redis.call('GET', 'iq:run:1:request')", 0)),
        ("metrics", ("GET", "iq:run:1:request")),
        ("metrics", ("HSET", "iq:engine:demo", "paused_ms", 1)),
        ("metrics", ("EVAL", "return redis.call('DEL', KEYS[1])", 1, "iq:engine:demo")),
    ],
)
def test_nothing_else(shared: dict[str, Redis], user: str, command: tuple[str | int, ...]) -> None:
    # In a script the error is the script's.
    with pytest.raises(ResponseError, match=r"permission|can't (run|access)|ACL failure"):
        shared[user].execute_command(*command)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Redis]]:
    """The users on one server for all that is refused."""
    server = RedisServer(tmp_path_factory.mktemp("users"), next(reversed(binaries().values())))
    with server.client() as redis:
        for user in USERS:
            redis.execute_command("ACL", "SETUSER", user.name, "on", f">{PASSWORD}", *user.rules())
    clients = {user.name.removeprefix("inferq-"): Redis.from_url(server.url, username=user.name, password=PASSWORD)
               for user in USERS}  # fmt: skip
    yield clients
    for client in clients.values():
        client.close()
    server.close()


def test_the_file_as_it_is_lets_nobody_in(tmp_path: Path) -> None:
    """Its passwords are missing: Redis does not start with it, and says why."""
    port, acl = str(free_port()), str(FILE)
    command = [binaries()["bundled"], "--port", port, "--save", "", "--dir", str(tmp_path), "--aclfile", acl]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert "Aborting Redis startup because of ACL errors" in done.stdout


def test_who_says_no_name_gets_nothing(server: RedisServer) -> None:
    with Redis.from_url(server.url) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()


def test_the_cache_s_own_server_needs_little(as_user: dict[str, Redis], server: RedisServer) -> None:
    """The rule of docs/scaling.md, with an API and a worker's write."""
    (rule,) = re.findall(r"ACL SETUSER inferq-cache on >password (.*)", (ROOT / "docs" / "scaling.md").read_text())
    with server.client() as redis:
        redis.execute_command("ACL", "SETUSER", "inferq-cache", "reset", "on", f">{PASSWORD}", *rule.split())
        cache = url_of(server, "cache")
        settings = make_settings(url_of(server, "api")).model_copy(update={"cache_redis_url": cache})
        check_cache(settings)
        key = "iq_boot_notasecret"
        KeyRing(as_user["api"]).store(key, "acme")
        with api_client(settings, key) as client, connect(cache, settings) as stored:
            ask(client, "a completion")
            run = claim(RunStore(Scripts(as_user["worker"]), engine=settings.engine_queue, worker="w", lease_ms=12_000))
            said = {"text": "stored", "finish_reason": "stop", "prompt_tokens": 4, "completion_tokens": 2}
            entry = CachedCompletion(**said, model=run.model, stored_ms=0)
            stored.set(iq("cache", "acme", run.fingerprint), entry.to_json(), ex=60)
            hit = client.post("/v1/jobs", json={"prompt": "a completion", "max_tokens": 8})
            assert (hit.status_code, hit.json["cache"]["status"]) == (200, "hit")
            with pytest.raises(ResponseError):
                stored.get("iq:run:1:request")


def ask(client: FlaskClient, prompt: str, **fields: object) -> str:
    answer = client.post("/v1/jobs", json={"prompt": prompt, "max_tokens": 8, **fields})
    assert answer.status_code == 202, answer.text
    return str(answer.json["id"])


def claim(worker: RunStore) -> ClaimedRun:
    run, _ = worker.claim(new_id())
    assert run
    return run


def finish(worker: RunStore, run: ClaimedRun) -> None:
    said = {"text": "an answer", "finish_reason": "stop", "prompt_tokens": 4, "completion_tokens": 2}
    entry = CachedCompletion(**said, model=run.model, stored_ms=0)
    assert worker.complete(run, Completion(**said, ttft_ms=1), cache_entry=entry, cache_ttl_s=60)[0]


def follow(client: FlaskClient, redis: Redis, job: str, run: ClaimedRun) -> None:
    """What a follower of a job makes its API do, without waiting for the job's end."""
    assert redis.xread({f"iq:run:{run.id}:events": "0-0"}, count=1)
    with client.get(f"/v1/jobs/{job}", headers={"Prefer": "wait=1"}) as answer:
        assert answer.json["status"] == "in_progress"
