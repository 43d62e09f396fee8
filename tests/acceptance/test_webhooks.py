"""Webhooks through real keepers that are really killed, to real receivers, of which some are dead."""

import itertools
import random
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from redis import Redis

from deploy.local.stack import free_port, status
from inferq.credentials import Credential, KeyRing
from inferq.ids import new_id
from inferq.job_store import JobStore, ServiceLimits, Submission
from inferq.operations import Operations
from inferq.outbox import Delivery
from inferq.scripts import Scripts
from inferq.settings import Settings
from tests.conftest import api_client, make_settings
from tests.hand_worker import HandWorker, submit
from tests.integration.test_keys_command import run
from tests.processes import Process, stack, until
from tests.receiver import Received, receiving
from tests.redis_server import RedisServer, binaries

#: Addresses of this machine, each a receiver of its own.
HOSTS = [f"127.0.7.{number}" for number in range(1, 21)]


def webhook_settings(url: str, **changes: object) -> Settings:
    return make_settings(
        url, **{"webhook_allowed_hosts": ",".join(["127.0.0.1", *HOSTS]), "rate_limit": 1_000_000} | changes
    )


class Sender:
    """Jobs with webhooks, ended as soon as they are submitted: by a cancel, which needs no worker."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        scripts = Scripts(redis)
        self.jobs = JobStore(scripts, ServiceLimits(requests=1_000_000, polls=1_000_000))
        caller = Credential.parse(KeyRing(redis).create("acme"))
        assert caller
        self.caller = caller
        self.secret = Operations(scripts).rotate_secret("acme", 0)
        self._engine = settings.engine_queue

    def send(self, url: str) -> str:
        job = new_id()
        submission = Submission(
            job_id=job, run_id=job, engine=self._engine, model="m", priority="normal", cost=10, prompt_tokens=2,
            fingerprint=job, scope="tenant", read_cache=False, store=False, share=False, only_if_cached=False,
            cache_status="bypass", max_depth=100_000, max_tokens=10**9, ttl_ms=3_600_000, request_json="{}",
            hook_url=url, hook_events="cancelled",
        )  # fmt: skip
        assert self.jobs.submit(self.caller, submission).outcome == "accepted"
        assert self.jobs.cancel(self.caller, job).outcome == "cancelled"
        return job

    def log(self, job: str) -> Delivery:
        (delivery,) = self.jobs.deliveries(self.caller, job).rest[0]
        found: Delivery = delivery
        return found


def test_every_event_arrives_though_keepers_and_redis_are_killed(tmp_path: Path) -> None:
    binary = next(reversed(binaries().values()))
    server = RedisServer(tmp_path, binary, "--appendonly", "yes", "--appendfsync", "always")
    settings = webhook_settings(server.url, webhook_timeout=1.0, webhook_retries="0.2,0.2,0.5,1,1,2,2,3,5,5")
    dice = random.Random(5)
    fails = threading.Lock()
    answered: list[tuple[str, int]] = []

    def moody(received: Received, _: BaseHTTPRequestHandler) -> int:
        time.sleep(0.05)
        with fails:
            status = 500 if dice.random() < 0.15 else 204
            answered.append((received.headers["webhook-id"], status))
        return status

    try:
        with (
            receiving(moody, host="0.0.0.0") as receiver,
            stack(settings, tmp_path) as processes,
            server.client() as redis,
        ):
            sender = Sender(redis, settings)
            keepers = [processes.keeper(), processes.keeper()]
            addresses = itertools.cycle(f"http://{host}:{receiver.port}/hook" for host in HOSTS[:6])
            jobs = []
            for batch in range(6):
                jobs += [sender.send(next(addresses)) for _ in range(20)]
                moves_on(answered)
                kill(keepers[batch % 2])
                keepers[batch % 2] = processes.keeper()
            server.kill()
            server.start()
            until(lambda: all(sender.log(job).status == "delivered" for job in jobs), 60, "all are delivered")
            logs = {(log := sender.log(job)).id: log for job in jobs}
        assert {name for name, _ in answered} == set(logs), "one id for each event, and none beside"
        for received in receiver.got:
            assert received.verified(sender.secret)["data"]["id"] in received.headers["webhook-id"]
        bodies = {(one.headers["webhook-id"], one.body) for one in receiver.got}
        assert len(bodies) == len(jobs), "the same words at every attempt"
        for name, log in logs.items():
            seen = Counter(status for one, status in answered if one == name)
            told = Counter(attempt.status for attempt in log.attempts if attempt.status)
            unknown = len([attempt for attempt in log.attempts if not attempt.status])
            assert told <= seen, (name, told, seen)
            assert seen.total() - told.total() <= unknown, "what the log does not know it says it does not"
            assert told[204] >= 1
    finally:
        server.close()


def moves_on(answered: list[tuple[str, int]]) -> None:
    before = len(answered)
    until(lambda: len(answered) > before, 30, "something is being delivered")


def kill(process: Process) -> None:
    process.signal(signal.SIGKILL)
    process.wait()


def test_receivers_that_hang_delay_no_others(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> None:
    settings = webhook_settings(redis_server.url)
    release = threading.Event()
    hanging, well = HOSTS[:10], HOSTS[10:]

    def stuck(received: Received, _: BaseHTTPRequestHandler) -> int:
        if received.headers["host"].split(":")[0] in hanging:
            release.wait(60)
        return 204

    with receiving(stuck, host="0.0.0.0") as receiver, stack(settings, tmp_path) as processes:
        processes.keeper()
        sender = Sender(redis, settings)
        bad = [sender.send(f"http://{host}:{receiver.port}/") for host in hanging for _ in range(5)]
        until(lambda: len(receiver.got) == len(hanging), 30, "one attempt at each that hangs")
        good = [sender.send(f"http://{host}:{receiver.port}/") for host in well for _ in range(5)]
        until(lambda: all(sender.log(job).status == "delivered" for job in good), 10, "the others have theirs")
        assert {sender.log(job).status for job in bad} == {"sending", "pending"}
        release.set()


def test_receivers_that_begin_to_hang_together_delay_no_others(
    redis: Redis, redis_server: RedisServer, tmp_path: Path
) -> None:
    """They have all answered till now, so each gets four at once: more than a keeper has places."""
    settings = webhook_settings(redis_server.url, webhook_concurrency=8)
    release, outage = threading.Event(), threading.Event()
    hanging, well = HOSTS[:5], HOSTS[5:10]

    def moody(received: Received, _: BaseHTTPRequestHandler) -> int:
        if outage.is_set() and received.headers["host"].split(":")[0] in hanging:
            release.wait(60)
        return 204

    with receiving(moody, host="0.0.0.0") as receiver, stack(settings, tmp_path) as processes:
        processes.keeper()
        sender = Sender(redis, settings)
        first = [sender.send(f"http://{host}:{receiver.port}/") for host in [*hanging, *well]]
        until(lambda: all(sender.log(job).status == "delivered" for job in first), 30, "all have proved themselves")
        outage.set()
        for host in hanging * 4:
            sender.send(f"http://{host}:{receiver.port}/")
        until(lambda: len(receiver.got) >= len(first) + 8, 30, "all places are taken")
        good = [sender.send(f"http://{host}:{receiver.port}/") for host in well]
        until(lambda: all(sender.log(job).status == "delivered" for job in good), 10, "the others have theirs")
        release.set()


def test_a_keeper_told_to_stop_sees_its_attempts_through(
    redis: Redis, redis_server: RedisServer, tmp_path: Path
) -> None:
    settings = webhook_settings(redis_server.url)

    def slow(_: Received, __: BaseHTTPRequestHandler) -> int:
        time.sleep(1.0)
        return 204

    with receiving(slow) as receiver, stack(settings, tmp_path) as processes:
        keeper = processes.keeper()
        sender = Sender(redis, settings)
        job = sender.send(receiver.url)
        until(lambda: receiver.got, 30, "the attempt has begun")
        keeper.signal(signal.SIGTERM)
        assert keeper.wait(30) == 0
        assert sender.log(job).status == "delivered"
        assert len(receiver.got) == 1


def test_the_example_receiver_verifies_and_acts_once(
    redis: Redis, redis_server: RedisServer, api_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = webhook_settings(redis_server.url)
    port = free_port()
    monkeypatch.setenv("WEBHOOK_SECRET", run(settings, "webhooks", "rotate", "acme").stdout.strip())
    monkeypatch.setenv("PORT", str(port))
    monkeypatch.setenv("DATABASE", str(tmp_path / "events.sqlite"))
    command = [sys.executable, "examples/receiver.py"]
    receiver, address = Process("receiver", command, settings, tmp_path / "receiver.log"), f"http://127.0.0.1:{port}"
    try:
        until(lambda: status("127.0.0.1", port, "/") == 404, 30, "the receiver listens")
        with api_client(settings, api_key) as client, stack(settings, tmp_path) as processes:
            processes.keeper()
            worker = HandWorker(redis, settings)
            job = submit(client, webhook={"url": f"{address}/webhooks/inferq"})
            worker.finish(worker.claim())
            url = job["urls"]["deliveries"]
            until(lambda: client.get(url).json["data"][0]["status"] == "delivered", 30)
            client.post(client.get(url).json["data"][0]["urls"]["redeliver"])
            until(lambda: len(client.get(url).json["data"][0]["attempts"]) == 2, 30)
            until(lambda: client.get(url).json["data"][0]["status"] == "delivered", 30)
            for signature in ("v1,eA==", "garbage", "v1,a", "v1,eA==,x", ""):
                forged = urllib.request.Request(
                    f"{address}/webhooks/inferq",
                    data=b'{"type":"job.completed"} \xff',
                    headers={
                        "webhook-id": "x",
                        "webhook-timestamp": str(int(time.time())),
                        "webhook-signature": signature,
                    },
                )
                with pytest.raises(urllib.error.HTTPError, match="401"):
                    urllib.request.urlopen(forged, timeout=5)
        assert receiver.output().count(f"job.completed {job['id']}") == 1
    finally:
        receiver.close()
