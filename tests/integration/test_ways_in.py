"""What a webhook must never reach, asserted at its socket; and what addresses are accepted."""

from collections.abc import Iterator

import pytest

from inferq.settings import Settings
from inferq.webhooks import AddressRules, BadAddress
from tests.conftest import make_settings
from tests.receiver import Receiver, receiving
from tests.sending import Names, send


@pytest.fixture
def open_settings() -> Settings:
    """The loopback is allowed."""
    return make_settings("redis://unused", webhook_allowed_hosts="127.0.0.1, localhost", webhook_timeout=3.0)


#: Spellings of the loopback and other ways in; PORT is where a receiver listens on it.
WAYS_IN = [
    "http://127.0.0.1:PORT/",
    "http://127.1:PORT/",
    "http://127.0.1:PORT/",
    "http://2130706433:PORT/",
    "http://0x7f000001:PORT/",
    "http://0x7f.0.0.1:PORT/",
    "http://0177.0.0.1:PORT/",
    "http://017700000001:PORT/",
    "http://127.0.0.1.:PORT/",
    "http://127.0.0.1..:PORT/",
    "http://127.0.0.1...:PORT/",
    "http://127.1..:PORT/",
    "http://a.127.0.0.1.example.1:PORT/",
    "http://127.8.9.10:PORT/",
    "http://0:PORT/",
    "http://0.0.0.0:PORT/",
    "http://[::1]:PORT/",
    "http://[::]:PORT/",
    "http://[0:0:0:0:0:0:0:1]:PORT/",
    "http://[::ffff:127.0.0.1]:PORT/",
    "http://[::ffff:7f00:1]:PORT/",
    "http://[::127.0.0.1]:PORT/",
    "http://[64:ff9b::127.0.0.1]:PORT/",
    "http://[64:ff9b:1::127.0.0.1]:PORT/",
    "http://[2002:7f00:1::]:PORT/",
    "http://[2001:0:7f00:1::]:PORT/",
    "http://[fe80::1]:PORT/",
    "http://[fec0::1]:PORT/",
    "http://[fd00:ec2::254]:PORT/",
    "http://[ff02::1]:PORT/",
    "http://[2001:db8::1]:PORT/",
    "http://localhost:PORT/",
    "http://LOCALHOST:PORT/",
    "http://localhost.:PORT/",
    "http://a.localhost:PORT/",
    "http://printer.local:PORT/",
    "http://metadata.google.internal:PORT/",
    "http://169.254.169.254:PORT/latest/meta-data/",
    "http://100.64.0.1:PORT/",
    "http://10.0.0.1:PORT/",
    "http://172.16.0.1:PORT/",
    "http://192.168.0.1:PORT/",
    "http://192.0.0.170:PORT/",
    "http://192.88.99.1:PORT/",
    "http://198.18.0.1:PORT/",
    "http://224.0.0.1:PORT/",
    "http://240.0.0.1:PORT/",
    "http://255.255.255.255:PORT/",
    "http://example.com@127.0.0.1:PORT/",
    "http://example.com:80@127.0.0.1:PORT/",
    "http://127.0.0.1:PORT@example.com/",
    "http://example.com\\@127.0.0.1:PORT/",
    "http://127.0.0.1:PORT\\@example.com/",
    "http://127.0.0.1:PORT#@example.com/",
    "http://example.com#@127.0.0.1:PORT/",
    "http://①②⑦.⓪.⓪.①:PORT/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:PORT/",
    "http://127。0。0。1:PORT/",
    "http://127%2e0%2e0%2e1:PORT/",
    "http://127.0.0.1%00.example.com:PORT/",
    "http:127.0.0.1:PORT/",
    "http:///127.0.0.1:PORT/",
    "http://\t127.0.0.1:PORT/",
    "http://127.0.0.1:PORT\r\nHost: x/",
    "//127.0.0.1:PORT/",
    "ftp://127.0.0.1:PORT/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:PORT/",
    "unix:///tmp/socket",
]


@pytest.fixture(scope="module")
def inside() -> Iterator[Receiver]:
    """What must not be reached."""
    with receiving() as receiver:
        yield receiver


def wide_settings(inside: Receiver) -> Settings:
    """Everything but the address itself is allowed: http, and the port."""
    return make_settings(
        "redis://unused", webhook_allow_http=True, webhook_ports=f"443,{inside.port}", webhook_timeout=1.0
    )


@pytest.mark.parametrize("way", WAYS_IN)
def test_there_is_no_way_in(inside: Receiver, way: str) -> None:
    outcome = send(way.replace("PORT", str(inside.port)), wide_settings(inside))
    assert not outcome.good
    assert (outcome.error or "").startswith("Not sent: the address ")
    assert inside.connections == 0


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["192.0.43.8", "127.0.0.1"],
        ["127.0.0.1", "192.0.43.8"],
        ["2606:4700::1111", "::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["169.254.169.254"],
        ["0.0.0.0"],
        ["fe80::1%1"],
    ],
)
def test_a_name_that_also_leads_inside_is_not_connected_to(inside: Receiver, addresses: list[str]) -> None:
    url = f"http://rebound.example.com:{inside.port}/"
    outcome = send(url, wide_settings(inside), names=Names(addresses))
    assert not outcome.good
    assert "which is not on the public internet" in (outcome.error or "")
    assert inside.connections == 0


def test_a_name_is_resolved_once_so_a_second_answer_leads_nowhere(inside: Receiver) -> None:
    names = Names(["192.0.43.8"], ["127.0.0.1"])
    assert not send(f"http://rebound.example.com:{inside.port}/", wide_settings(inside), names=names).good
    assert names.asked == ["rebound.example.com"]
    assert inside.connections == 0


def test_allowed_hosts_are_allowed_by_name_or_address_and_nobody_beside_them(inside: Receiver) -> None:
    with receiving() as receiver:
        for host in ("localhost", "127.0.0.1"):
            settings = make_settings("redis://unused", webhook_allowed_hosts=host)
            assert send(f"http://{host}:{receiver.port}/", settings).good
            assert not send(f"http://127.0.0.2:{inside.port}/", settings).good
        assert inside.connections == 0


@pytest.mark.parametrize(
    "url", ["https://a.example.com/ü?ü=" + "ü" * 100, "https://A.example.com", "https://ü.example.com/"]
)
def test_an_address_in_its_one_spelling_is_that_address(open_settings: Settings, url: str) -> None:
    rules = AddressRules(open_settings)
    once = str(rules.check(url))
    assert str(rules.check(once)) == once
    assert once.isascii()


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example.com/?q=" + "ü" * 400,
        "https://" + "a" * 64 + ".example.com/",
        "https://" + "a." * 127 + "com/",
        "https://a*.example.com/",
        "https://example.com../",
    ],
)
def test_what_could_never_be_delivered_is_not_accepted(open_settings: Settings, url: str) -> None:
    with pytest.raises(BadAddress):
        AddressRules(open_settings).check(url)
