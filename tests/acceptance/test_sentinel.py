"""A Redis that Sentinel watches: found by name, lost, and found again on another server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from inferq.credentials import KeyRing
from tests.acceptance.test_worker_process import finished, ready, submit
from tests.conftest import api_client, make_settings
from tests.processes import stack, until
from tests.redis_server import RedisServer, binaries


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer, RedisServer]]:
    """A master, its replica, and a Sentinel that needs nobody's agreement."""
    binary = next(reversed(binaries().values()))
    directories = [tmp_path / name for name in ("master", "replica", "sentinel")]
    for directory in directories:
        directory.mkdir()
    master = RedisServer(directories[0], binary)
    replica = RedisServer(directories[1], binary, "--replicaof", "127.0.0.1", str(master.port))
    configuration = directories[2] / "sentinel.conf"
    configuration.write_text(
        f"sentinel monitor mymaster 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds mymaster 1000\n"
        "sentinel failover-timeout mymaster 5000\n"
    )
    sentinel = RedisServer(directories[2], binary, configuration=configuration, sentinel=True)
    yield master, replica, sentinel
    for server in (sentinel, replica, master):
        server.close()


def test_a_failover_is_followed(servers: tuple[RedisServer, RedisServer, RedisServer], tmp_path: Path) -> None:
    master, replica, sentinel = servers
    url = f"sentinel://127.0.0.1:{sentinel.port}/mymaster"
    settings = make_settings(url, lease=2.0, redis_timeout=0.5, simulated_step=0.005)
    with master.client() as redis, sentinel.client() as watcher:
        api_key = KeyRing(redis).create("acme")
        until(lambda: watcher.sentinel_master("mymaster")["num-slaves"] == 1, what="Sentinel knows the replica")
        until(lambda: redis.info("replication")["connected_slaves"] == 1)
        with stack(settings, tmp_path) as running, api_client(settings, api_key) as client:
            running.worker()
            running.keeper()
            ready(client)
            before = submit(client, "before")
            assert finished(client, before)[0]["status"] == "completed"
            redis.execute_command("WAIT", 1, 5000)
            master.kill()
            until(lambda: watcher.sentinel_get_master_addr_by_name("mymaster")[1] == replica.port, 30, "a failover")
            until(lambda: client.get("/readyz").status_code == 200, 30, "the worker beats on the new master")
            assert client.get(f"/v1/jobs/{before}").json["status"] == "completed"
            jobs = [submit(client, f"after {number}") for number in range(10)]
            assert {body["status"] for body in finished(client, *jobs)} == {"completed"}
