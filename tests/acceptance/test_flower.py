"""Flower as it is deployed: what it shows, and what it must not."""

import base64
import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
from redis import Redis
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import Select

from deploy.acl.users import USERS
from deploy.local import stack as local
from deploy.local.stack import free_port
from inferq.credentials import Credential, KeyRing
from inferq.ids import new_id
from inferq.job_store import JobStore, ServiceLimits
from inferq.scripts import Scripts
from inferq.settings import Settings, environment_for
from tests.browser import browser, needs_browser
from tests.conftest import make_settings
from tests.processes import ROOT, Process, stack, until
from tests.redis_server import RedisServer
from tests.world import World
from workers.simulated_engine import simulated_words

PASSWORD = "flower-password-0123"
PROMPT = "a planted prompt nobody may see"


class Flower:
    def __init__(self, settings: Settings, log: Path) -> None:
        piece = local.flower_piece(settings)
        self.process = Process("flower", piece.command, settings, log)
        self._url = f"http://127.0.0.1:{settings.flower_port}/flower"
        until(lambda: piece.ready() or not self.process.alive(), 30, "flower is ready")
        assert self.process.alive(), self.process.output()

    def ask(self, path: str, *, password: str | None = PASSWORD, method: str = "GET") -> tuple[int, str]:
        request = urllib.request.Request(self._url + path, method=method, data=b"" if method == "POST" else None)
        if password:
            request.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{password}".encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def attempts(self) -> dict[str, dict[str, Any]]:
        tasks = json.loads(self.ask("/api/tasks?limit=100")[1])
        return {uuid: task for uuid, task in tasks.items() if task["name"] == "inferq.attempt"}


def submit(redis: Redis, settings: Settings, caller: Credential, prompt: str) -> str:
    """Submit by script, without an API; returns the job, whose run has its name."""
    job = new_id()
    submission = World.submission(
        None, job_id=job, run_id=job, engine=settings.engine_queue, request_json=json.dumps({"prompt": prompt})
    )
    store = JobStore(Scripts(redis), ServiceLimits(requests=100, polls=100_000))
    assert store.submit(caller, submission).outcome == "accepted"
    return job


def test_attempts_are_tasks_and_nothing_secret_is_shown(own_redis_server: RedisServer, tmp_path: Path) -> None:
    settings = make_settings(
        own_redis_server.url,
        flower_port=free_port(),
        flower_password=PASSWORD,
        flower_db=str(tmp_path / "seen"),
        simulated_step=0.001,
        lease=2.0,
    )
    with own_redis_server.client() as redis, stack(settings, tmp_path) as running:
        key = KeyRing(redis).create("acme")
        caller = Credential.parse(key)
        assert caller
        (user,) = [user for user in USERS if user.name == "inferq-flower"]
        redis.execute_command("ACL", "SETUSER", user.name, "on", f">{PASSWORD}", *user.rules())
        own = settings.redis_url.replace("//", f"//{user.name}:{PASSWORD}@")
        settings = settings.model_copy(update={"redis_url": own, "cache_redis_url": own})
        flower = Flower(settings, tmp_path / "flower.log")
        try:
            running.keeper()
            running.worker()

            def online() -> dict[str, bool]:
                return {name: up for name, up in json.loads(flower.ask("/api/workers?status=true")[1]).items() if up}

            until(lambda: len(online()) == 2, 20, "a worker and a keeper are online")
            jobs = [submit(redis, settings, caller, prompt) for prompt in (PROMPT, "simulate:fails")]
            until(lambda: len(flower.attempts()) == 2, 30, "both attempts are shown")
            shown = flower.attempts()
            done, failed = (shown[f"{job}.1"] for job in jobs)
            assert (done["state"], failed["state"]) == ("SUCCESS", "FAILURE")
            said = re.fullmatch(
                r"'?outcome=completed tokens=\d+ seconds=\d+\.\d{3} attempt=1 job=([^']+)'?", done["result"]
            )
            assert said
            assert said[1] == jobs[0]
            assert "outcome=failed" in failed["exception"]

            answer = " ".join(simulated_words(PROMPT, 0, 256))
            task = f"/task/{jobs[0]}.1"
            pages = ["/", "/tasks", "/broker", "/api/tasks", "/api/workers?refresh=1", "/metrics", task]
            for page in pages:
                status, text = flower.ask(page)
                assert status == 200, page
                assert not [planted for planted in (PROMPT, answer, key, PASSWORD) if planted in text], page

            assert flower.ask("/api/tasks", password=None)[0] == 401
            assert flower.ask("/", password="another")[0] == 401
            (worker,) = [name for name in online() if name.startswith("app")]
            refused = flower.ask(f"/api/worker/shutdown/{worker}", method="POST")
            assert refused[0] in (403, 405), refused
            assert flower.ask(f"/api/task/revoke/{jobs[0]}.1", method="POST")[0] in (403, 405)
            command = " ".join(psutil.Process(flower.process.pid).cmdline())
            assert PASSWORD not in command

            flower.process.signal(signal.SIGTERM)
            flower.process.wait()
            flower = Flower(settings, tmp_path / "flower2.log")
            assert flower.attempts() == shown, "kept over a restart"
            refused = {(entry["username"], entry["object"]) for entry in redis.acl_log()}
            assert {what for _, what in refused} <= {"client", "client|setinfo"}, (
                "Flower's user may do what Flower does"
            )
        finally:
            flower.process.close()


@needs_browser
def test_a_person_sees_attempts_and_workers_and_nothing_secret(own_redis_server: RedisServer, tmp_path: Path) -> None:
    settings = make_settings(
        own_redis_server.url,
        flower_port=free_port(),
        flower_password=PASSWORD,
        flower_db=str(tmp_path / "seen"),
        simulated_step=0.001,
    )
    with own_redis_server.client() as redis, stack(settings, tmp_path) as running:
        key = KeyRing(redis).create("acme")
        caller = Credential.parse(key)
        assert caller
        flower = Flower(settings, tmp_path / "flower.log")
        try:
            running.keeper()
            worker = running.worker()
            until(lambda: "engine_ready" in worker.output(), 60, "the worker is ready")
            prompts = [f"{PROMPT} {number}" for number in range(12)] + ["simulate:fails"]
            jobs = [submit(redis, settings, caller, prompt) for prompt in prompts]
            until(lambda: len(flower.attempts()) == len(prompts), 30, "all attempts are shown")
            with browser(tmp_path, width=1500, height=800) as window:
                address = f"127.0.0.1:{settings.flower_port}/flower"
                window.get(f"http://admin:{PASSWORD}@{address}/tasks")
                # The address without the password: a page must not be able to tell it.
                window.get(f"http://{address}/tasks")
                until(lambda: "inferq.attempt" in _text(window), 30, "the tasks are listed")
                Select(window.find_element(By.TAG_NAME, "select")).select_by_visible_text("50")
                until(lambda: _text(window).count("inferq.attempt") == len(prompts), 30, "all of them")
                shown = [_text(window)]
                assert shown[0].count("outcome=completed") == len(prompts) - 1
                window.execute_script("window.scrollTo(0, 0)")
                assert window.save_screenshot(str(tmp_path / "flower-tasks.png"))
                window.get(f"http://{address}/workers")
                until(lambda: _text(window).count("Online") >= 2, 30, "worker and keeper are online")
                shown.append(_text(window))
                assert window.save_screenshot(str(tmp_path / "flower-workers.png"))
                answers = [" ".join(simulated_words(prompt, 0, 256)) for prompt in prompts]
                for page in ("/broker", f"/task/{jobs[-1]}.1", f"/worker/{worker_name(flower)}"):
                    window.get(f"http://{address}{page}")
                    until(lambda: len(_text(window)) > 100, 30, page)
                    shown.append(_text(window) + window.page_source)
                for text in shown:
                    assert not [planted for planted in (PROMPT, key, PASSWORD, *answers) if planted in text]
        finally:
            flower.process.close()


def worker_name(flower: Flower) -> str:
    (name,) = [name for name in json.loads(flower.ask("/api/workers?status=true")[1]) if name.startswith("app")]
    return name


def _text(window: WebDriver) -> str:
    return str(window.execute_script("return document.body.innerText"))


def test_without_a_password_it_does_not_start(own_redis_server: RedisServer) -> None:
    settings = make_settings(own_redis_server.url, flower_port=free_port())
    done = subprocess.run(
        [sys.executable, *local.flower_piece(settings).command[1:]],
        cwd=ROOT,
        env=environment_for(settings),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "FLOWER_PASSWORD" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
