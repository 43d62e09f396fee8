"""One attempt at a delivery, at real receivers."""

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest
import trustme
from aiohttp.resolver import AsyncResolver
from standardwebhooks.webhooks import WebhookVerificationError

from inferq.outbox import Outcome, Parcel
from inferq.settings import Settings
from inferq.webhook_secrets import new_secret
from inferq.webhooks import AddressRules
from tests.conftest import make_settings
from tests.receiver import Received, receiving
from tests.sending import BODY, SECRET, Names, send
from workers.sender import PublicResolver, Sender, signed_headers


@pytest.fixture
def open_settings() -> Settings:
    """The loopback is allowed."""
    return make_settings("redis://unused", webhook_allowed_hosts="127.0.0.1, localhost", webhook_timeout=3.0)


def test_the_official_library_verifies_what_a_receiver_gets(open_settings: Settings) -> None:
    old = new_secret()
    with receiving() as receiver:
        outcome = send(receiver.url + "?a=b", open_settings, secrets=(SECRET, old))
    assert (outcome.good, outcome.status, outcome.error) == (True, 204, None)
    (got,) = receiver.got
    assert got.path == "/hook?a=b"
    assert got.headers["webhook-id"] == "msg_1_completed"
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 60
    assert got.headers["content-type"] == "application/json"
    for secret in (SECRET, old):
        assert got.verified(secret)["data"] == {"text": "ü"}
    with pytest.raises(WebhookVerificationError):
        got.verified(new_secret())


def test_each_attempt_is_signed_for_its_own_time() -> None:
    parcel = Parcel(id="msg_1", attempt=1, url="", body=BODY, secrets=(SECRET,), proven=False)
    first, second = signed_headers(parcel, 1_800_000_000.9), signed_headers(parcel, 1_800_000_001)
    assert first["webhook-timestamp"] == "1800000000"
    assert first["webhook-id"] == second["webhook-id"]
    assert first["webhook-signature"] != second["webhook-signature"]


@pytest.mark.parametrize(
    ("status", "down", "gone"),
    [(301, False, False), (400, False, False), (404, False, False), (410, False, True), (429, True, False),
     (500, True, False), (503, True, False)],
)  # fmt: skip
def test_only_2xx_is_success(open_settings: Settings, status: int, down: bool, gone: bool) -> None:
    with receiving(lambda _, __: status) as receiver:
        outcome = send(receiver.url, open_settings)
    assert (outcome.good, outcome.status, outcome.down, outcome.gone) == (False, status, down, gone)
    assert str(status) in (outcome.error or "")


@pytest.mark.parametrize(
    "value", ["7", "date", "soon", "-1", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "99999999999999", "\u0663"]
)
def test_retry_after_is_read_in_both_forms(open_settings: Settings, value: str) -> None:
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 90))

    def busy(_: Received, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(503)
        handler.send_header("Retry-After", date if value == "date" else value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with receiving(busy) as receiver:
        outcome = send(receiver.url, open_settings)
    expected = {"7": 7000, "date": pytest.approx(89_000, abs=2000)}.get(value)
    assert outcome.retry_ms == expected


def test_redirects_are_not_followed(open_settings: Settings) -> None:
    with receiving() as inside:

        def redirect(_: Received, handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(307)
            handler.send_header("Location", inside.url)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        with receiving(redirect) as receiver:
            outcome = send(receiver.url, open_settings)
        assert inside.connections == 0
    assert (outcome.good, outcome.status) == (False, 307)


def test_no_proxy_of_the_environment_is_asked(open_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy, receiving() as receiver:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert send(receiver.url, open_settings).good
        assert (proxy.connections, receiver.connections) == (0, 1)


def hang(received: Received, handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.2)


def drip_headers(received: Received, handler: BaseHTTPRequestHandler) -> None:
    with contextlib.suppress(OSError):
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 100:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(0.05)


def drip_body(received: Received, handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(40):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)


@pytest.mark.parametrize("behaviour", [hang, drip_headers, drip_body])
def test_an_attempt_has_its_time_however_slowly_it_is_answered(
    behaviour: Callable[[Received, BaseHTTPRequestHandler], None],
) -> None:
    settings = make_settings("redis://unused", webhook_allowed_hosts="127.0.0.1", webhook_timeout=0.4)
    with receiving(behaviour) as receiver:
        outcome = send(receiver.url, settings)
    assert (outcome.good, outcome.down) == (False, True)
    assert outcome.error == "No complete answer within 0.4 s."
    assert 300 < outcome.ms < 5000


def test_a_long_answer_is_not_read_to_its_end(open_settings: Settings) -> None:
    taken: list[int] = []

    def much(_: Received, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(1 << 30))
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(1 << 10):
                handler.wfile.write(b"x" * (1 << 20))
                taken.append(1)

    with receiving(much) as receiver:
        assert send(receiver.url, open_settings).good
    assert len(taken) < 64, "megabytes, most of them in the sockets' buffers"


def test_what_is_no_answer_is_said_in_words(open_settings: Settings) -> None:
    def rude(_: Received, handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n")

    def silent(_: Received, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True

    for behaviour in (rude, silent):
        with receiving(behaviour) as receiver:
            outcome = send(receiver.url, open_settings)
        assert not outcome.good
        assert outcome.error
    refused = send(receiver.url, open_settings)
    assert (refused.good, refused.down) == (False, True)
    assert "No connection" in (refused.error or "")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def https(authority: trustme.CA, *names: str) -> tuple[ssl.SSLContext, ssl.SSLContext, list[str | None]]:
    """Contexts of a server for these names and of a client that believes it; and the names clients asked for."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(server)
    asked: list[str | None] = []
    server.sni_callback = lambda _, name, __: asked.append(name)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client, asked


def test_the_checked_address_is_connected_to_under_the_name(authority: trustme.CA) -> None:
    server, client, asked = https(authority, "hooks.example.com")
    settings = make_settings("redis://unused", webhook_allowed_hosts="hooks.example.com")
    with receiving(tls=server) as receiver:
        outcome = send(f"https://hooks.example.com:{receiver.port}/x", settings, names=Names(["127.0.0.1"]), tls=client)
        assert outcome.good, outcome
        assert asked == ["hooks.example.com"]
        assert receiver.got[0].headers["host"] == f"hooks.example.com:{receiver.port}"


@pytest.mark.parametrize("wrong", ["name", "authority"])
def test_a_certificate_that_does_not_hold_is_refused(authority: trustme.CA, wrong: str) -> None:
    server, client, _ = https(authority, "other.example.com" if wrong == "name" else "hooks.example.com")
    settings = make_settings("redis://unused", webhook_allowed_hosts="hooks.example.com")
    with receiving(tls=server) as receiver:
        outcome = send(
            f"https://hooks.example.com:{receiver.port}/x",
            settings,
            names=Names(["127.0.0.1"]),
            tls=client if wrong == "name" else None,
        )
        assert receiver.got == []
    assert not outcome.good
    assert "certificate" in (outcome.error or "").lower()


def test_many_at_once_share_nothing_that_a_slow_one_could_hold(open_settings: Settings) -> None:
    """Forty attempts on one loop, half of them at a receiver that hangs."""
    release = threading.Event()

    def stuck(_: Received, __: BaseHTTPRequestHandler) -> int:
        release.wait(10)
        return 204

    async def attempts(slow: str, quick: str) -> list[Outcome]:
        rules = AddressRules(open_settings)
        resolver = PublicResolver(rules.allows)
        sender = Sender(rules, 8.0, resolver)
        parcels = [
            Parcel(id=f"msg_{number}", attempt=1, url=url, body=BODY, secrets=(SECRET,), proven=True)
            for number, url in enumerate([slow, quick] * 20)
        ]
        hanging = [asyncio.create_task(sender.send(parcel)) for parcel in parcels[::2]]
        outcomes = await asyncio.gather(*(sender.send(parcel) for parcel in parcels[1::2]))
        assert not any(task.done() for task in hanging)
        release.set()
        await asyncio.gather(*hanging)
        await sender.close()
        return outcomes

    with receiving(stuck) as slow, receiving() as quick:
        outcomes = asyncio.run(attempts(slow.url, quick.url))
    assert all(outcome.good for outcome in outcomes)


def test_a_name_server_that_never_answers_holds_nobody(open_settings: Settings) -> None:
    async def attempts(quick: str) -> Outcome:
        rules = AddressRules(open_settings)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            names = AsyncResolver(nameservers=[f"127.0.0.1:{silent.getsockname()[1]}"], timeout=20, tries=1)
            sender = Sender(rules, 5.0, PublicResolver(rules.allows, names))
            parcels = [
                Parcel(id=f"msg_{number}", attempt=1, url=url, body=BODY, secrets=(SECRET,), proven=True)
                for number, url in enumerate([*(f"https://slow{n}.example.com/" for n in range(100)), quick])
            ]
            slow = [asyncio.create_task(sender.send(parcel)) for parcel in parcels[:-1]]
            await asyncio.sleep(0.1)
            outcome = await sender.send(parcels[-1])
            assert not any(task.done() for task in slow)
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
            await sender.close()
            return outcome

    with receiving() as quick:
        assert asyncio.run(attempts(f"http://localhost:{quick.port}/")).good
