"""The network policies, walked: exactly the connections that the services need are open."""

import ipaddress
from dataclasses import dataclass
from typing import Any

import pytest

from tests.kubernetes import COMPONENTS, OVERLAYS, containers, of_kind, overlay, pods, selects

#: Ports that something listens on somewhere, and one that nothing does.
PORTS = (53, 80, 443, 2375, 5555, 6379, 8000, 8080, 9101, 9102)
#: Of each block that is no public address, one; and addresses that stand for such.
CLOSED = (
    "0.1.2.3", "10.0.0.1", "10.255.255.254", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1",
    "172.31.255.254", "192.0.0.8", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
    "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "100::1", "fc00::1",
    "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "2001::1", "2001:db8::1", "2002:a00:1::1", "3fff::1",
)  # fmt: skip
OPEN = ("1.1.1.1", "8.8.8.8", "93.184.216.34", "172.32.0.1", "192.169.0.1", "2606:4700:4700::1111", "2a00:1450:4001::1")


@dataclass(frozen=True)
class Peer:
    """Whoever may talk: a pod in a namespace, or an address outside."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()
    namespace: tuple[tuple[str, str], ...] = ()
    address: str = ""
    ours: bool = False


def namespace(name: str, **more: str) -> tuple[tuple[str, str], ...]:
    return (("kubernetes.io/metadata.name", name), *((key.replace("_", "-"), value) for key, value in more.items()))


OUTSIDERS = (
    Peer("callers", namespace=namespace("ingress", inferq_may_call="true")),
    Peer("prometheus", namespace=namespace("monitoring", inferq_may_scrape="true")),
    Peer("keda", namespace=namespace("keda", inferq_may_scale="true")),
    Peer("strangers", namespace=namespace("default")),
    Peer("dns", labels=(("k8s-app", "kube-dns"),), namespace=namespace("kube-system")),
    Peer("other system pods", namespace=namespace("kube-system")),
    Peer("the world", address="1.1.1.1"),
    Peer("the nodes' metadata", address="169.254.169.254"),
    Peer("another network of ours", address="10.1.2.3"),
)


def peers(name: str) -> list[Peer]:
    ours = pods(overlay(name))
    assert set(ours) == set(COMPONENTS)
    return [
        *(
            Peer(one, tuple(pod["metadata"]["labels"].items()), namespace("inferq"), ours=True)
            for one, pod in ours.items()
        ),
        *OUTSIDERS,
    ]


def admits(rule: dict[str, Any], side: str, peer: Peer, port: int) -> bool:
    if not any(one["protocol"] in ("TCP", "UDP") and one["port"] == port for one in rule["ports"]):
        return False
    return any(_is(one, peer) for one in rule[side])


def _is(said: dict[str, Any], peer: Peer) -> bool:
    if "ipBlock" in said:
        if not peer.address:
            return False  # pods are no addresses of the outside
        address = ipaddress.ip_address(peer.address)
        block = said["ipBlock"]
        within = [ipaddress.ip_network(one) for one in (block["cidr"], *block.get("except", []))]
        return address in within[0] and not any(address in one for one in within[1:])
    if peer.address:
        return False
    # Without a selector of namespaces the policy's own is meant.
    there = selects(said["namespaceSelector"], dict(peer.namespace)) if "namespaceSelector" in said else peer.ours
    return there and selects(said.get("podSelector", {}), dict(peer.labels))


def may(name: str, source: Peer, target: Peer, port: int) -> bool:
    """Whether ``source`` may connect: its own policies must let it out, and the target's must let it in."""
    policies = [one["spec"] for one in of_kind(overlay(name), "NetworkPolicy").values()]
    for side, peer, other, rules in (("Egress", source, target, "to"), ("Ingress", target, source, "from")):
        if not peer.ours:
            continue
        held = [
            one for one in policies if side in one["policyTypes"] and selects(one["podSelector"], dict(peer.labels))
        ]
        assert held, f"{peer.name} is under no policy for {side}"
        if not any(admits(rule, rules, other, port) for one in held for rule in one.get(side.lower(), [])):
            return False
    return True


def needed(name: str) -> set[tuple[str, str, int]]:
    """Who needs whom, by what docs/deploying.md and docs/operations.md say."""
    wanted = {(one, "redis", 6379) for one in ("api", "worker", "keeper", "flower")}
    wanted |= {(one, "redis-cache", 6379) for one in ("api", "worker")}
    wanted |= {(one, "dns", 53) for one in ("api", "worker", "keeper", "flower")}
    wanted |= {("callers", "api", 8000), ("callers", "flower", 8080), ("keeper", "the world", 443)}
    if name != "cpu":  # the demo model is in the image, and Prometheus is the operator's
        wanted |= {("worker", "the world", 443)}
        wanted |= {("prometheus", one, port) for one, port in (("api", 8000), ("worker", 9101), ("keeper", 9102))}
        wanted |= {("prometheus", "flower", 5555)}
    if name == "keda":
        wanted |= {("keda", "redis", 6379)}
    return wanted


@pytest.mark.parametrize("name", OVERLAYS)
def test_exactly_what_is_needed_is_open(name: str) -> None:
    everybody = peers(name)
    found = {
        (source.name, target.name, port)
        for source in everybody
        for target in everybody
        for port in PORTS
        if source != target and (source.ours or target.ours) and may(name, source, target, port)
    }
    assert found == needed(name)


@pytest.mark.parametrize("component", ["keeper", "worker"])
def test_only_public_addresses_can_be_reached(component: str) -> None:
    (source,) = [one for one in peers("gpu-t4") if one.name == component]
    for address in CLOSED:
        assert not may("gpu-t4", source, Peer(address, address=address), 443), address
    for address in OPEN:
        assert ipaddress.ip_address(address).is_global
        assert may("gpu-t4", source, Peer(address, address=address), 443), address


def test_ports_of_policies_are_ports_of_containers() -> None:
    listens = {
        one: {port["containerPort"] for container in containers(pod).values() for port in container["ports"]}
        for one, pod in pods(overlay("keda")).items()
    }
    labels = {one: pod["metadata"]["labels"] for one, pod in pods(overlay("keda")).items()}
    for policy in of_kind(overlay("keda"), "NetworkPolicy").values():
        for rule in policy["spec"].get("ingress", []):
            (held,) = [one for one in labels if selects(policy["spec"]["podSelector"], labels[one])]
            assert {port["port"] for port in rule["ports"]} <= listens[held]
