"""``python -m inferq pause|resume|purge|dead-letters|tenants``: what an operator types and reads."""

from redis import Redis

from inferq.keys import key
from inferq.outbox import Outbox, Outcome
from inferq.run_store import RunStore
from inferq.scripts import Scripts
from inferq.settings import Settings
from inferq.webhook_secrets import check_secret
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


def test_an_operator_suspends_a_tenant(settings: Settings, api_key: str) -> None:
    with api_client(settings, api_key) as client:
        assert run(settings, "tenants", "suspend", "acme").stdout == "suspended acme\n"
        assert client.get("/v1/jobs").json["code"] == "tenant-suspended"
        assert "acme (suspended)" in run(settings, "tenants", "list").stdout
        assert run(settings, "tenants", "reinstate", "acme").stdout == "reinstated acme\n"
        assert client.get("/v1/jobs").status_code == 200


def test_an_operator_makes_secrets_and_looks_after_dead_deliveries(settings: Settings, redis: Redis) -> None:
    key = run(settings, "keys", "create", "acme").stdout.strip()
    secret = run(settings, "webhooks", "rotate", "acme").stdout.strip()
    assert check_secret(secret) == secret
    outbox = Outbox(Scripts(redis), timeout_s=1.0, waits_s=())
    with api_client(settings, key) as client:
        for event in ("retry", "drop"):
            webhook = {"url": f"https://{event}.example.com/hook"}
            job = client.post("/v1/jobs", json={"prompt": event, "webhook": webhook}).json
            client.post(job["urls"]["cancel"])
            (parcel,) = outbox.take(proven=1, unproven=1)[0]
            failed = Outcome(good=False, ms=1, error="No connection: it is not there.")
            assert outbox.attempted(parcel, failed, 0.5) == "dead"
            listed = run(settings, "webhooks", "dead").stdout
            assert all(word in listed for word in (parcel.id, webhook["url"], "acme", "No connection"))
            done = run(settings, "webhooks", event, parcel.id)
            assert done.returncode == 0
            assert parcel.id not in run(settings, "webhooks", "dead").stdout
            left = client.get(job["urls"]["deliveries"]).json["data"]
            assert [one["status"] for one in left] == (["pending"] if event == "retry" else [])
            for taken in outbox.take(proven=9, unproven=9)[0]:
                outbox.attempted(taken, Outcome(good=True, ms=1, status=200), 0.5)


def test_what_is_not_there_is_said_in_a_sentence(settings: Settings, redis: Redis) -> None:
    for command in (
        ("pause", "nowhere"),
        ("dead-letters", "requeue", "nothing"),
        ("webhooks", "retry", "nothing"),
        ("webhooks", "drop", "nothing"),
    ):
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
