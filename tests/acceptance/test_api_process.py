"""The API as it is deployed: under gunicorn, with its own settings, and many clients at once."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from deploy.local.stack import free_port
from inferq.credentials import KeyLimits, KeyRing
from inferq.settings import Settings
from tests.conftest import make_settings
from tests.processes import ROOT, Process, until
from tests.redis_server import RedisServer

#: Long-polls the API under test may hold, and clients that want to wait.
BOUND, CLIENTS = 200, 260


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return make_settings(redis_server.url, api_port=free_port(), max_waiters=BOUND, rate_limit=100_000)


@pytest.fixture
def api(settings: Settings, tmp_path: Path) -> Iterator[Process]:
    command = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "api" / "gunicorn_conf.py"), "api.wsgi:app"]
    process = Process("api", command, settings, tmp_path / "api.log")
    try:
        until(lambda: "Booting worker" in process.output() or not process.alive(), 30, "gunicorn is up")
        yield process
    finally:
        process.close()


def test_long_polls_above_the_bound_are_answered_at_once_and_block_nobody(
    api: Process, settings: Settings, redis_server: RedisServer
) -> None:
    with redis_server.client() as redis:
        key = KeyRing(redis).create("acme", limits=KeyLimits(polls=1_000_000))
    url = f"http://127.0.0.1:{settings.api_port}"

    async def scenario() -> None:
        connector, limit = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=60)
        headers = {"X-API-Key": key}
        async with aiohttp.ClientSession(url, connector=connector, timeout=limit, headers=headers) as session:
            jobs = [await submit(session, number) for number in range(CLIENTS)]
            polls = [asyncio.create_task(poll(session, job)) for job in jobs]
            while sum(task.done() for task in polls) < CLIENTS - BOUND:
                await asyncio.sleep(0.02)
            assert {task.result() for task in polls if task.done()} == {"queued"}
            assert sum(not task.done() for task in polls) == BOUND
            async with session.get("/health") as health:
                assert health.status == 200, "those who wait take nothing from those who do not"
            for job in jobs:
                async with session.post(f"/v1/jobs/{job}/cancel") as cancelled:
                    assert cancelled.status == 200
            assert sorted(await asyncio.gather(*polls)) == ["cancelled"] * BOUND + ["queued"] * (CLIENTS - BOUND)

    asyncio.run(scenario())
    assert "error" not in api.output().replace("gunicorn.error", "").lower()  # the name of its logger


async def submit(session: aiohttp.ClientSession, number: int) -> str:
    async with session.post("/v1/jobs", json={"prompt": f"number {number}"}) as response:
        assert response.status == 202
        return (await response.json())["id"]


async def poll(session: aiohttp.ClientSession, job: str) -> str:
    async with session.get(f"/v1/jobs/{job}", headers={"Prefer": "wait=30"}) as response:
        return (await response.json())["status"]
