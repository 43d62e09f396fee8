"""Every single thing that ``python -m inferq doctor`` can say, said about a real Redis that is really so."""

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from redis import Redis

from deploy.local.stack import free_port
from inferq import doctor
from inferq.credentials import KeyRing
from inferq.doctor import examine, examine_receiver
from inferq.findings import SAYINGS, Finding, Level
from inferq.keys import key
from inferq.operations import Operations
from inferq.outbox import Outbox, Outcome
from inferq.run_store import RunStore
from inferq.scripts import Scripts
from inferq.settings import Settings
from tests.conftest import api_client, make_settings
from tests.integration.test_keys_command import run
from tests.processes import until
from tests.receiver import receiving
from tests.redis_server import RedisServer

ENGINE = "demo-mistral"


class Case:
    """A Redis of its own, and what can be done to it."""

    def __init__(self, server: RedisServer, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.server = server
        self.redis: Redis = server.client()
        self.directory = directory
        self.patch = patch
        self.changes: dict[str, Any] = {"api_port": 1}
        self.ahead_s = 0.0
        self.receiver = ""

    @property
    def settings(self) -> Settings:
        return make_settings(self.server.url).model_copy(update=self.changes)

    def found(self) -> list[Finding]:
        found = list(examine(self.settings, clock=lambda: time.time() + self.ahead_s))
        return [*found, examine_receiver(self.settings, self.receiver)] if self.receiver else found

    def set(self, **configuration: str | int) -> None:
        for name, value in configuration.items():
            self.redis.config_set(name.replace("_", "-"), value)

    def use_memory(self, share: float) -> None:
        self.redis.set("ballast", "x" * 20_000_000)
        self.set(maxmemory=int(self.redis.info("memory")["used_memory"] / share))

    def worker(self, state: str = "ready", engine: str = ENGINE) -> RunStore:
        worker = RunStore(Scripts(self.redis), engine=engine, worker="w1", lease_ms=60_000)
        worker.heartbeat([], {"state": state, "slots": "4", "running": "0"})
        return worker

    def submit(self, **body: Any) -> dict[str, Any]:
        credential = KeyRing(self.redis).create("acme")
        with api_client(self.settings, credential) as client:
            answer = client.post("/v1/jobs", json={"prompt": "hi"} | body)
            assert answer.status_code == 202, answer.json
            if "webhook" in body:
                client.post(answer.json["urls"]["cancel"])
            return answer.json

    def deliver(self, *, dead: bool = False) -> None:
        Operations(Scripts(self.redis)).rotate_secret("acme", 0)
        self.submit(webhook={"url": "https://shop.example.com/hook"})
        if dead:
            outbox = Outbox(Scripts(self.redis), timeout_s=1.0, waits_s=())
            (parcel,) = outbox.take(proven=1, unproven=1)[0]
            assert outbox.attempted(parcel, Outcome(good=False, ms=1, error="No."), 0.5) == "dead"

    def bury(self) -> None:
        self.submit()
        worker = self.worker()
        for number in range(3):
            claimed, _ = worker.claim(f"token-{number}")
            assert claimed
            worker.release(claimed, strikes=1)

    def tick(self, seconds_ago: float = 0.0) -> None:
        self.redis.hset(key("sweep"), "last_ms", int(1000 * (time.time() - seconds_ago)))

    def fail_to_write(self, *, refuse: bool = False) -> None:
        (self.directory / "dump.rdb").mkdir()
        if refuse:
            self.set(save="3600 1")
        self.redis.bgsave()
        until(lambda: self.redis.info("persistence")["rdb_last_bgsave_status"] == "err", 10, "the write has failed")

    def away(self) -> str:
        return f"redis://127.0.0.1:{free_port()}"

    def close(self) -> None:
        self.redis.close()


@pytest.fixture
def case(own_redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    case = Case(own_redis_server, tmp_path, monkeypatch)
    yield case
    case.close()


def nothing(_: Case) -> None:
    return


def change(**changes: Any) -> Callable[[Case], None]:
    return lambda case: case.changes.update(changes)


def cache(server_configuration: dict[str, str | int]) -> Callable[[Case], None]:
    # The same server under another name: what it is asked for is the same.
    def do(case: Case) -> None:
        case.changes["cache_redis_url"] = case.server.url.replace("127.0.0.1", "localhost")
        case.set(**server_configuration)

    return do


def address(url: str, **changes: Any) -> Callable[[Case], None]:
    def do(case: Case) -> None:
        case.receiver = url
        case.changes.update(changes)

    return do


def ahead(seconds: float) -> Callable[[Case], None]:
    return lambda case: setattr(case, "ahead_s", seconds)


def stuck(case: Case) -> None:
    case.patch.setattr(doctor, "STUCK_S", -1.0)
    case.worker()
    case.submit()


def crowded(case: Case) -> None:
    case.changes["max_queue_depth"] = 1
    case.submit()


def paused(case: Case) -> None:
    case.worker()
    Operations(Scripts(case.redis)).pause(ENGINE, paused=True)


def late(case: Case) -> None:
    case.patch.setattr(doctor, "LATE_S", -1.0)
    case.deliver()


def slow(case: Case) -> None:
    case.patch.setattr(doctor, "SLOW_MS", 0.0)


#: What is done, and how the finding's words must show it.
CASES: dict[str, tuple[Callable[[Case], None], str]] = {
    "settings-fine": (nothing, ENGINE),
    "redis-fine": (nothing, "MiB"),
    "redis-away": (lambda case: case.changes.update(redis_url=case.away()), "127.0.0.1:"),
    "redis-refuses": (lambda case: case.set(requirepass="right"), "refuses the login"),
    "redis-forgetful": (nothing, "append-only"),
    "redis-unwritten": (lambda case: case.fail_to_write(), "rdb_last_bgsave_status"),
    "redis-fails": (lambda case: case.fail_to_write(refuse=True), "while it was looked at"),
    "redis-filling": (lambda case: case.use_memory(0.78), "7"),
    "redis-full": (lambda case: case.use_memory(0.95), "9"),
    "redis-boundless": (nothing, "maxmemory"),
    "redis-slow": (slow, "ms to answer"),
    "cache-fine": (cache({}), "of their own"),
    "cache-away": (lambda case: case.changes.update(cache_redis_url=case.away()), "miss"),
    "cache-refuses": (
        lambda case: case.changes.update(cache_redis_url=f"redis://x:y@127.0.0.1:{case.server.port}"),
        "login",
    ),
    "cache-hoards": (cache({"maxmemory": "100mb"}), "noeviction"),
    "clock-fine": (nothing, "agree"),
    "clock-apart": (ahead(-90), "90 s behind"),
    "api-away": (nothing, ":1."),
    "keys-fine": (lambda case: KeyRing(case.redis).create("acme"), "used: 1"),
    "keys-none": (nothing, "nobody can submit"),
    "workers-fine": (lambda case: case.worker(), "1 ready, 0 of 4 slots"),
    "workers-none": (lambda case: case.submit(), "1 runs wait"),
    "workers-elsewhere": (lambda case: case.worker(engine="other"), "serve other"),
    "workers-warming": (lambda case: case.worker("warming"), "warming"),
    "workers-dead": (lambda case: case.worker("dead"), "has died"),
    "queue-paused": (paused, ENGINE),
    "queue-stuck": (stuck, "4 slots are free"),
    "queue-crowded": (crowded, "1 runs wait"),
    "queue-dead": (lambda case: case.bury(), "1 runs"),
    "keeper-fine": (lambda case: case.tick(), "ticked"),
    "keeper-none": (nothing, "ever"),
    "keeper-silent": (lambda case: case.tick(60), "stand still"),
    "webhooks-fine": (nothing, "under way: 0"),
    "webhooks-late": (late, "1 deliveries"),
    "webhooks-dead": (lambda case: case.deliver(dead=True), "1 deliveries"),
    "webhooks-nameless": (change(webhook_allowed_hosts="no-such-host.invalid"), "no-such-host.invalid"),
    "webhooks-refused": (address("https://127.0.0.1/hook"), "public internet"),
    "webhooks-unreachable": (address("http://127.0.0.1:1/hook", webhook_allowed_hosts="127.0.0.1"), "refused"),
}
#: Said in tests of their own, below.
ELSEWHERE = {"settings-wrong", "api-fine", "api-ill", "webhooks-reachable"}


def test_everything_is_said_somewhere() -> None:
    assert set(CASES) | ELSEWHERE == set(SAYINGS)


@pytest.mark.parametrize("name", CASES)
def test_each_thing_is_said(name: str, case: Case) -> None:
    prepare, words = CASES[name]
    prepare(case)
    found = {one.name: one for one in case.found()}
    assert name in found, sorted(found)
    one = found[name]
    assert words in one.says
    assert (one.level is Level.FINE) == (not one.do)
    assert "{" not in one.says + one.do


@pytest.mark.parametrize(("status", "name"), [(200, "api-fine"), (503, "api-ill")])
def test_the_api(case: Case, status: int, name: str) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        case.changes["api_port"] = server.getsockname()[1]
        answers = answering(server, status)
        assert name in {one.name for one in case.found()}
        answers.join()


def answering(server: socket.socket, status: int) -> threading.Thread:
    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def test_a_receiver_is_reached_as_a_keeper_would(case: Case) -> None:
    case.changes["webhook_allowed_hosts"] = "127.0.0.1,localhost"
    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(theirs)
    authority.configure_trust(ours)
    with receiving() as plain, receiving(tls=theirs) as secure:
        told = examine_receiver(case.settings, plain.url)
        assert (told.name, "answers 501, so" in told.says) == ("webhooks-reachable", True)
        url = f"https://localhost:{secure.port}/hook"
        assert examine_receiver(case.settings, url, ours).name == "webhooks-reachable"
        stranger = examine_receiver(case.settings, url)
        assert (stranger.name, "certificate is not believed" in stranger.says) == ("webhooks-unreachable", True)
    assert examine_receiver(case.settings, "https://nobody.invalid/").name == "webhooks-unreachable"
    assert examine_receiver(case.settings, "ftp://example.com/").name == "webhooks-refused"


def test_the_command_says_it_in_words_and_in_json(case: Case) -> None:
    case.worker()
    case.tick(-30)
    KeyRing(case.redis).create("acme")
    well = run(case.settings, "doctor")
    assert well.returncode == 0, well.stdout
    assert "Traceback" not in well.stderr
    assert "warning   redis     Redis keeps no append-only file" in well.stdout
    assert "\x1b" not in well.stdout
    case.redis.delete(key("sweep"))
    ill = run(case.settings, "doctor", "--json", "--webhook", "https://127.0.0.1/")
    told = json.loads(ill.stdout)
    assert (ill.returncode, told["ok"]) == (1, False)
    problems = {one["name"] for one in told["findings"] if one["level"] == "problem"}
    assert problems == {"keeper-none", "webhooks-refused"}
    wrong = run(case.settings.model_copy(update={"redis_url": "http://nowhere"}), "doctor")
    assert (wrong.returncode, "PROBLEM   settings  Wrong setting: REDIS_URL" in wrong.stdout) == (1, True)
