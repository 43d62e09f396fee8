"""The scene of webhooks: keepers and Redis die while they are sent, and logs are held against what receivers saw."""

import asyncio
from collections import Counter
from typing import Any

from bench.receivers import Arrival, Receivers
from chaos.fleet import RECEIVERS
from chaos.scenarios import Stage
from chaos.verdict import exactly, most
from inferq.ids import is_id


async def deliver(stage: Stage) -> None:
    """Kill keepers while they send webhooks, and Redis at times; some receivers answer with errors now and then."""
    fleet, scale, dice, clients = stage.fleet, stage.scale, stage.dice, stage.clients
    secret = fleet.settings.bootstrap_webhook_secret
    assert secret  # noqa: S101  # the fleet has one
    receivers = Receivers(
        secret.get_secret_value(),
        RECEIVERS,
        lambda _: 500 if dice.random() < 0.1 else 204,
        lambda: dice.uniform(0.0, 0.5),  # so that most kills find something under way
    )
    await receivers.start()
    killed = {"keeper": 0, "redis": 0}
    try:
        async with stage.scene("webhooks", per_s=0.0):
            for number in range(1, scale.deliverer_kills + 1):
                for place in range(scale.deliveries // scale.deliverer_kills):
                    clients.submit(f"told {number} {place} {dice.random()}", max_tokens=2, webhook=receivers.url(place))
                await asyncio.sleep(dice.uniform(0.1, 0.8))
                fleet.kill(dice.choice(fleet.keepers))
                killed["keeper"] += 1
                if number * scale.outbox_redis_kills // scale.deliverer_kills > killed["redis"]:
                    await fleet.kill_redis(dice.uniform(0.0, 1.0))
                    killed["redis"] += 1
                await asyncio.sleep(dice.uniform(0.0, 2.0))
        await stage.ended()
        await clients.told(240.0)
    finally:
        await receivers.close()
    logs = {log["id"]: log for found in clients.logs.values() for log in found}
    events = {f"msg_{job}_completed" for job in [*clients.logs, *clients.telling]}
    seen: dict[str, list[Arrival]] = {}
    for arrival in receivers.arrived:
        seen.setdefault(arrival.id, []).append(arrival)
    # A submit whose answer was lost with Redis may have been accepted: then its receiver is told too, once.
    unheard = {name.removeprefix("msg_").removesuffix("_completed") for name in seen.keys() - events}
    beside = [job for job in unheard if not is_id(job) or stage.ledger.knows(job)]
    cut = len([one for log in logs.values() for one in log["attempts"] if not one["status_code"]])
    stage.say(f"  {len(events)} events, {len(receivers.arrived)} attempts at receivers, {cut} cut off by kills")
    stage.targets += [
        exactly("keepers killed while there were webhooks to send", killed["keeper"], scale.deliverer_kills),
        exactly("times Redis was killed meanwhile", killed["redis"], scale.outbox_redis_kills),
        exactly("webhook events whose receiver was not told", len(events - seen.keys()), 0),
        exactly("webhook ids beside one for each event", len(beside), 0),
        most("jobs told of whose client had heard no 202", len(unheard), stage.ledger.counts("webhooks").refused),
        exactly("webhooks whose signature or words were not right", len(_unsound(seen)), 0),
        exactly("deliveries whose log is not what the receiver saw", len(_misreported(events, logs, seen)), 0),
    ]


def _unsound(seen: dict[str, list[Arrival]]) -> list[str]:
    """Return ids whose attempts were not all signed, or did not all say the same."""
    return [
        name
        for name, arrivals in seen.items()
        if not all(one.signed for one in arrivals) or len({one.body for one in arrivals}) > 1
    ]


def _misreported(events: set[str], logs: dict[str, dict[str, Any]], seen: dict[str, list[Arrival]]) -> list[str]:
    """Return ids whose log and receiver differ: attempts of killed keepers are unknown to the log, which says so."""
    wrong = []
    for name in events:
        attempts = logs.get(name, {"attempts": [], "status": "?"})["attempts"]
        told = Counter(one["status_code"] for one in attempts if one["status_code"])
        unknown = len([one for one in attempts if not one["status_code"]])
        saw = Counter(arrival.status for arrival in seen.get(name, []))
        delivered = logs.get(name, {}).get("status") == "delivered"
        if not delivered or not told <= saw or saw.total() - told.total() > unknown:
            wrong.append(name)
    return wrong
