"""Between steps and httpx2: what both clients translate alike."""

from __future__ import annotations

import platform
from typing import Any, Final

import httpx2

from inferq_client.errors import NoAnswer, NotUnderstood
from inferq_client.exchange import Call, Reply, ServerEvent
from inferq_client.settings import Service
from inferq_client.version import __version__

#: Seconds without a byte after which a stream counts as lost; the service sends comments more often.
STREAM_QUIET_S: Final = 45.0
#: Connections at most; each job that is waited for holds one.
CONNECTIONS: Final = 1000


def client_options(service: Service) -> dict[str, Any]:
    """Return what both of httpx2's clients are made with."""
    headers = {"User-Agent": f"inferq-client/{__version__} python/{platform.python_version()}"}
    if service.api_key:
        headers["Authorization"] = f"Bearer {service.api_key}"
    limits = httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    return {"base_url": service.url, "headers": headers, "limits": limits}


def request_options(call: Call, timeout_s: float) -> dict[str, Any]:
    """Return a call as httpx2's ``request`` takes it; what the service holds on purpose is added to the timeout."""
    options: dict[str, Any] = {
        "method": call.method,
        "url": call.path,
        "headers": dict(call.headers),
        "timeout": httpx2.Timeout(timeout_s, read=timeout_s + call.hold_s),
    }
    if call.query:
        options["params"] = dict(call.query)
    if call.body is not None:
        options["json"] = dict(call.body)
    return options


def stream_options(call: Call, timeout_s: float) -> dict[str, Any]:
    """Return a call whose answer is a stream of events."""
    return request_options(call, timeout_s) | {"timeout": httpx2.Timeout(timeout_s, read=STREAM_QUIET_S)}


def reply(response: httpx2.Response) -> Reply:
    """Return an answer that has been read, as data."""
    return Reply(status=response.status_code, headers=_headers(response), body=response.content)


def opened(response: httpx2.Response) -> Reply:
    """Return the head of an open stream; raises NotUnderstood when it is none of events."""
    if response.headers.get("content-type", "").partition(";")[0].strip().lower() != "text/event-stream":
        raise NotUnderstood("what answered does not stream events; is the address right?")
    return Reply(status=response.status_code, headers=_headers(response))


def server_event(event: httpx2.ServerSentEvent) -> ServerEvent:
    """Return a server-sent event as data."""
    return ServerEvent(name=event.event, data=event.data, id=event.id)


def lost(error: httpx2.RequestError) -> NoAnswer:
    """Return what a failure of the network means for a call."""
    sent = not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
    what = "did not answer" if sent else "cannot be reached"
    return NoAnswer(f"the service {what} ({type(error).__name__})", sent=sent)


def _headers(response: httpx2.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}
