"""Streams with real processes: workers killed in the middle, clients cut off, gunicorn, WebSocket."""

import asyncio
import json
import random
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from api.websocket import MOST_BYTES
from deploy.local.stack import free_port
from inferq.credentials import KeyLimits, KeyRing
from inferq.settings import Settings
from tests.conftest import make_settings
from tests.processes import ROOT, Process, Stack, stack, until
from tests.redis_server import RedisServer, binaries
from tests.sse import Listener, Told, parse

CUTS = 50
TOKEN = "a-token-of-tests"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), next(reversed(binaries().values())))
    yield server
    server.close()


@pytest.fixture(scope="module")
def settings(server: RedisServer) -> Settings:
    return make_settings(
        server.url,
        api_port=free_port(),
        lease=2.0,
        max_num_seqs=4,
        simulated_step=0.01,
        stream_heartbeat=0.5,
        metrics_token=TOKEN,
    )


@pytest.fixture(scope="module")
def running(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(settings, tmp_path_factory.mktemp("workers")) as running:
        running.keeper()
        yield running


@pytest.fixture(scope="module")
def api(settings: Settings, running: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    command = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "api" / "gunicorn_conf.py"), "api.wsgi:app"]
    process = Process("api", command, settings, tmp_path_factory.mktemp("api") / "api.log")
    try:
        until(lambda: "Booting worker" in process.output() or not process.alive(), 30, "gunicorn is up")
        yield process
    finally:
        process.close()


@pytest.fixture(scope="module")
def worker(api: Process, running: Stack) -> list[Process]:
    """The worker that runs now; a test that kills it puts another in its place."""
    return [running.worker()]


@pytest.fixture(scope="module")
def key(server: RedisServer) -> str:
    with server.client() as redis:
        return KeyRing(redis).create("acme", limits=KeyLimits(polls=1_000_000))


def session(settings: Settings, key: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        f"http://127.0.0.1:{settings.api_port}",
        headers={"X-API-Key": key},
        timeout=aiohttp.ClientTimeout(total=60),
        connector=aiohttp.TCPConnector(limit=0),
    )


async def submit(http: aiohttp.ClientSession, prompt: str, **body: Any) -> str:
    async with http.post("/v1/jobs", json={"prompt": prompt, "stream": True, **body}) as response:
        assert response.status == 202, await response.text()
        return (await response.json())["id"]


async def output(http: aiohttp.ClientSession, job: str) -> str:
    async with http.get(f"/v1/jobs/{job}") as response:
        return (await response.json())["output"]["text"]


async def hear(http: aiohttp.ClientSession, job: str, listener: Listener, most: int = 1_000_000) -> None:
    """Follow a job from where the listener is, at most so many events; then the connection is cut."""
    headers = {"Last-Event-ID": listener.last} if listener.last else {}
    async with http.get(f"/v1/jobs/{job}/events", headers=headers) as response:
        assert response.status == 200, await response.text()
        buffer = b""
        async for chunk in response.content.iter_any():
            *blocks, buffer = (buffer + chunk).split(b"\n\n")
            for told in parse(block + b"\n\n" for block in blocks):
                if most <= 0:
                    response.close()
                    return
                listener.hear(told)
                most -= 1


async def hear_socket(http: aiohttp.ClientSession, job: str, listener: Listener, most: int = 1_000_000) -> None:
    async with http.ws_connect(f"/v1/jobs/{job}/ws", params={"last_event_id": listener.last}) as websocket:
        async for message in websocket:
            said = json.loads(message.data)
            listener.hear(Told(said["event"], said["id"], said["data"]))
            most -= 1
            if most <= 0:
                return
        assert websocket.close_code == 1000


def test_a_stream_cut_fifty_times_yields_the_output(
    api: Process, worker: list[Process], settings: Settings, key: str
) -> None:
    chance = random.Random(7)  # the same cuts every time

    async def scenario() -> None:
        async with session(settings, key) as http:
            job = await submit(http, "simulate:words=600", max_tokens=600)
            listeners, running = [Listener()], 0
            for number in range(CUTS):
                if listeners[-1].end:
                    listeners.append(Listener())  # to be cut off while it is told what has ended
                way = hear if number % 2 else hear_socket
                await way(http, job, listeners[-1], chance.randint(1, 3))
                running += len(listeners) == 1
            assert running > CUTS / 5, "cut while it ran"
            listeners.append(Listener())
            for way, listener in zip((hear_socket, hear), listeners[-2:], strict=True):
                if not listener.end:
                    await way(http, job, listener)
            text = await output(http, job)
            assert len(text.split()) == 600
            assert {(listener.end.name, listener.text) for listener in listeners} == {("done", text)}

    asyncio.run(scenario())
    assert '"level":"error"' not in api.output()


def test_followers_of_a_killed_worker_hear_of_the_restart_and_then_all_of_it(
    worker: list[Process], running: Stack, settings: Settings, key: str
) -> None:
    async def scenario() -> None:
        async with session(settings, key) as http:
            job = await submit(http, "simulate:slow simulate:words=20", max_tokens=20)
            listeners = [Listener(), Listener()]
            following = [
                asyncio.create_task(way(http, job, listener))
                for way, listener in zip((hear, hear_socket), listeners, strict=True)
            ]
            while not all(listener.text for listener in listeners):
                await asyncio.sleep(0.02)
            worker.pop().signal(signal.SIGKILL)
            worker.append(running.worker())
            await asyncio.gather(*following)
            text = await output(http, job)
            for listener in listeners:
                assert listener.names.count("restarted") == 1
                assert (listener.end.name, listener.end.data["attempt"]) == ("done", 2)
                assert listener.text == text

    asyncio.run(scenario())


def test_a_socket_says_goodbye_and_takes_no_orders(
    api: Process, worker: list[Process], settings: Settings, key: str
) -> None:
    async def scenario() -> None:
        async with session(settings, key) as http:
            job = await submit(http, "simulate:slow simulate:words=500", max_tokens=500)
            async with http.ws_connect(f"/v1/jobs/{job}/ws") as websocket:
                said = await websocket.receive_json()
                assert said["event"] == "status"
                await websocket.send_str("ignored")
                await websocket.ping()
                async with http.post(f"/v1/jobs/{job}/cancel"):
                    pass
                while said["event"] != "error":
                    said = await websocket.receive_json()
                assert said["data"]["status"] == "cancelled"
                assert (await websocket.receive()).type is aiohttp.WSMsgType.CLOSE
            job = await submit(http, "simulate:slow simulate:words=499", max_tokens=499)
            async with http.ws_connect(f"/v1/jobs/{job}/ws") as websocket:
                await websocket.receive_json()
                await websocket.send_str("x" * (MOST_BYTES + 1))
                while (await websocket.receive()).type is aiohttp.WSMsgType.TEXT:
                    pass
                assert websocket.close_code == 1009
            async with http.post(f"/v1/jobs/{job}/cancel"):
                pass
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect("/v1/jobs/01a215c4-3513-7d03-a3e5-feb215d8f32a/ws")
            assert refused.value.status == 404

    asyncio.run(scenario())
    assert '"level":"error"' not in api.output()


def test_who_has_gone_is_noticed(worker: list[Process], settings: Settings, key: str) -> None:
    """By the next sign of life over HTTP, at once over WebSocket: their places are free again."""

    async def scenario() -> None:
        async with session(settings, key) as http:
            job = await submit(http, "simulate:slow simulate:words=500", max_tokens=500)
            for _ in range(5):
                await hear(http, job, Listener(), 1)
                await hear_socket(http, job, Listener(), 1)
            while True:
                async with http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
                    assert response.status == 200
                    text = await response.text()
                if "inferq_http_streams 0.0" in text:
                    break
                await asyncio.sleep(0.1)
            async with http.post(f"/v1/jobs/{job}/cancel") as cancelled:
                assert cancelled.status == 202

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_client_that_reads_nothing_holds_up_nobody(worker: list[Process], settings: Settings, key: str) -> None:
    async def scenario() -> None:
        async with session(settings, key) as http:
            job = await submit(http, "simulate:words=100", max_tokens=100)
            with socket.create_connection(("127.0.0.1", settings.api_port)) as deaf:
                deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
                deaf.sendall(f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n".encode())
                listener = Listener()
                await hear(http, job, listener)
                assert listener.text == await output(http, job)

    asyncio.run(scenario())
