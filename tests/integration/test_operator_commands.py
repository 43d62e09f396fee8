"""``python -m inferq pause|resume|purge|dead-letters``: what an operator types and reads."""

from redis import Redis

from inferq.keys import key
from inferq.run_store import RunStore
from inferq.scripts import Scripts
from inferq.settings import Settings
from tests.conftest import api_client
from tests.integration.test_keys_command import run


def test_an_operator_pauses_purges_and_asks_a_dead_letter_again(settings: Settings, redis: Redis, api_key: str) -> None:
    with api_client(settings, api_key) as client:
        poison = client.post("/v1/jobs", json={"prompt": "the secret recipe"}).json["id"]
        engine = client.get("/v1/queue").json["engines"][0]["engine"]
        assert run(settings, "pause", engine).stdout == f"paused {engine}\n"
        assert client.get("/v1/queue").json["engines"][0]["paused"]
        assert run(settings, "resume", engine).stdout == f"resumed {engine}\n"

        worker = RunStore(Scripts(redis), engine=engine, worker="w", lease_ms=10_000)
        for number in range(3):
            claimed, _ = worker.claim(f"token-{number}")
            assert claimed
            worker.release(claimed, strikes=1)
        assert client.get(f"/v1/jobs/{poison}").json["error"]["code"] == "poison"
        listed = run(settings, "dead-letters", "list").stdout
        assert all(word in listed for word in (claimed.id, "poison", poison))
        assert "recipe" not in listed
        tenant, again = run(settings, "dead-letters", "requeue", claimed.id).stdout.split()
        assert client.get(f"/v1/jobs/{again}").json["status"] == "queued"
        assert run(settings, "purge", tenant).stdout == f"cancelled 1 jobs of {tenant}\n"
        assert client.get(f"/v1/jobs/{again}").json["status"] == "cancelled"
        assert redis.zcard(key("queue", engine)) == 0


def test_what_is_not_there_is_said_in_a_sentence(settings: Settings, redis: Redis) -> None:
    for command in (("pause", "nowhere"), ("dead-letters", "requeue", "nothing")):
        done = run(settings, *command)
        assert done.returncode == 1
        assert done.stderr.startswith("inferq: there is no ")
        assert "Traceback" not in done.stderr


def test_an_operator_sees_who_uses_how_much_and_gives_weight(settings: Settings, api_key: str) -> None:
    with api_client(settings, api_key) as client:
        client.post("/v1/jobs", json={"prompt": "the secret recipe"})
        changed = run(
            settings, "tenants", "set", "acme", "--weight", "2.5", "--max-priority", "high", "--max-jobs", "2"
        )
        assert changed.stdout == "changed acme\n"
        usage = client.get("/v1/usage").json
        assert (usage["weight"], usage["max_priority"], usage["limits"]) == (2.5, "high", {"jobs": 2})
        assert client.post("/v1/jobs", json={"prompt": "urgent", "priority": "high"}).json["priority"] == "high"
        assert client.post("/v1/jobs", json={"prompt": "one more"}).json["violated-policies"] == ["jobs"]
        (row,) = [line for line in run(settings, "tenants", "list").stdout.splitlines() if "acme" in line]
        assert [cell.strip() for cell in row.strip("│ ").split("│")][:7] == ["acme", "2.5", "high", "2", "2", "2", "0"]
    refused = run(settings, "tenants", "set", "acme", "--weight", "0")
    assert (refused.returncode, "a weight is a number" in refused.stderr) == (1, True)
