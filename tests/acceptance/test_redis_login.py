"""A Redis behind TLS that wants a name and a password, and lets inferq do only what it needs.

The API logs in by the one rule of docs/operations.md, worker and keeper as the users of deploy/acl.
"""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from kombu.exceptions import OperationalError

from deploy.acl.users import USERS
from deploy.local.stack import free_port
from inferq.credentials import KeyRing
from inferq.queue import make_celery
from tests.acceptance.test_worker_process import finished, ready, submit
from tests.conftest import api_client, make_settings
from tests.processes import stack
from tests.redis_server import RedisServer

#: As docs/operations.md gives it.
RULE = "~iq:* &* +@all -@admin -@dangerous +info +client|setname"


class TlsFront:
    """Speaks TLS to clients and plain TCP to a port of loopback, on a thread of its own."""

    def __init__(self, target: int, context: ssl.SSLContext) -> None:
        self.port = free_port()
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        opening = asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
        self._server = asyncio.run_coroutine_threadsafe(opening, self._loop).result(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        ways = [
            asyncio.create_task(self._pass(reader, there_writer)),
            asyncio.create_task(self._pass(there_reader, writer)),
        ]
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, there_writer):
            end.transport.abort()
            with contextlib.suppress(OSError):
                await end.wait_closed()
        await asyncio.gather(*ways)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # the other end went first
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            serving = asyncio.all_tasks() - {asyncio.current_task()}
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def front(own_redis_server: RedisServer, authority: trustme.CA) -> Iterator[TlsFront]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    front = TlsFront(own_redis_server.port, context)
    yield front
    front.close()


def test_a_whole_stack_behind_tls_and_an_acl(
    own_redis_server: RedisServer, front: TlsFront, authority: trustme.CA, tmp_path: Path
) -> None:
    certificate = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(certificate))
    url = f"rediss://inferq:s%2Fcret@127.0.0.1:{front.port}/0?ssl_ca_certs={certificate}"
    settings = make_settings(url, lease=2.0, simulated_step=0.005)
    other = {name: url.replace("//inferq:", f"//inferq-{name}:") for name in ("worker", "keeper")}
    with own_redis_server.client() as redis:
        api_key = KeyRing(redis).create("acme")
        redis.execute_command("ACL", "SETUSER", "inferq", "reset", "on", ">s/cret", *RULE.split())
        for user in USERS:
            redis.execute_command("ACL", "SETUSER", user.name, "reset", "on", ">s/cret", *user.rules())
        with stack(settings, tmp_path) as running, api_client(settings, api_key) as client:
            for module, name in (("app", "worker"), ("keeper", "keeper")):
                running.celery(module, redis_url=other[name], cache_redis_url=other[name])
            ready(client)
            jobs = [submit(client, f"question {number}") for number in range(5)]
            assert {body["status"] for body in finished(client, *jobs)} == {"completed"}
            assert client.get("/health").json["status"] == "ok"
        # Redis 6.2 knows no rule for `client setinfo` alone; redis-py goes on when it is refused.
        refused = [entry for entry in redis.acl_log() if entry["object"] not in ("client", "client|setinfo")]
        assert refused == [], "somebody did what the rule does not allow"


def test_the_one_rule_covers_what_every_process_does(own_redis_server: RedisServer) -> None:
    """So whoever wants one user for all has enough with the rule."""
    with own_redis_server.client() as redis:
        denied = {command for group in ("admin", "dangerous") for command in redis.acl_cat(group)}
    needed = {rule[1:] for user in USERS for rule in user.rules() if rule.startswith("+")}
    assert needed & {name.lower() for name in denied} <= {"info", "client|setname"}


def test_a_certificate_nobody_vouches_for_is_refused(front: TlsFront) -> None:
    settings = make_settings(f"rediss://127.0.0.1:{front.port}")
    with api_client(settings) as client:
        assert client.get("/health").status_code == 503
    with make_celery(settings).connection() as broker, pytest.raises(OperationalError, match="CERTIFICATE_VERIFY"):
        broker.ensure_connection(max_retries=1, timeout=2, reraise_as_library_errors=True)
