"""``/v1/jobs/{id}/events`` and ``/v1/jobs/{id}/ws``: what happens to a job, as it happens."""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import orjson
from flask import Blueprint, Request, Response, request

from api.callers import accept, caller_of, for_callers
from api.errors import Problem, busy
from api.follow import END, Event, Following
from api.jobs import checked
from api.services import Services, services
from api.streams import Follower
from api.websocket import Closed, WebSocket
from inferq.credentials import Caller, Subject
from inferq.event_streams import Followed, Place
from inferq.job_store import Answer

blueprint = Blueprint("events", __name__)

#: Seconds a client may take no byte, after which it is dropped; it may come back with the id of its last event.
STALLED_S: Final = 60.0
#: The media type of server-sent events.
EVENTS: Final = "text/event-stream"


@blueprint.get("/v1/jobs/<job_id>/events")
def events(job_id: str) -> Response:
    """Tell a job's events as server-sent events, after ``Last-Event-ID``; 204 when the client has had the last."""
    svc, caller = services(), caller_of(request)
    place = _last_event(caller, request)
    if place is None:
        accept(svc.jobs.read(caller, checked(job_id)))
        return Response(status=204)  # tells an EventSource not to come back (WHATWG HTML, 9.2.3)
    with ExitStack() as held:
        follower = begin(held, svc, caller, checked(job_id))
        return event_stream(held, request, _from_the_record(svc, caller, follower, job_id, place))


@blueprint.get("/v1/jobs/<job_id>/ws", websocket=True)
@blueprint.get("/v1/jobs/<job_id>/ws")  # to say what is missing
def socket(job_id: str) -> Response:
    """Tell the same events over a WebSocket (RFC 6455), each as one text message of JSON."""
    svc, caller = services(), caller_of(request)
    place = _last_event(caller, request)
    try:
        websocket = WebSocket(request)
    except Problem as problem:
        raise for_callers(caller, problem) from None
    with ExitStack() as held:
        follower = begin(held, svc, caller, checked(job_id))
        told = _from_the_record(svc, caller, follower, job_id, place or Place())
        _limit_stalls(held, request.environ)
        try:
            websocket.open(follower.leave)
            for together in told if place else ():
                for event in together:
                    websocket.send(orjson.dumps({"event": event.name, "id": event.id, "data": event.data}))
                if not together:
                    websocket.ping()
            websocket.close()
        except Closed:
            pass
    return websocket.answer()


def begin(held: ExitStack, svc: Services, caller: Caller, job_id: str) -> Follower:
    """Begin to follow a job, from before its record is read until ``held`` is closed; raises Problem 401 or 503."""
    follower = held.enter_context(svc.streams.follow(job_id))
    if follower is None:
        raise for_callers(caller, busy("As many clients wait here as this process holds.", -1, "waiters"))
    return follower


def follow(svc: Services, caller: Caller, follower: Follower, first: Followed, place: Place) -> Iterator[list[Event]]:
    """Tell a job's events after ``place``, as they happen, from its ``first`` reading on."""

    def read(place: Place) -> Answer:
        return svc.jobs.follow(caller, first.job.id, place, first=False)

    following = Following(
        svc.streams,
        follower,
        read,
        place=place,
        heartbeat_s=svc.settings.stream_heartbeat,
        until=caller.until if isinstance(caller, Subject) else math.inf,
    )
    return following.events(first)


def event_stream(held: ExitStack, call: Request, told: Iterator[list[Event]]) -> Response:
    """Answer with server-sent events; ``held`` is closed when all have been told or the client has gone."""
    _limit_stalls(held, call.environ)
    answer = Response(map(_sse, told), mimetype=EVENTS)
    answer.headers["Cache-Control"] = "private, no-cache"
    answer.headers["X-Accel-Buffering"] = "no"  # a proxy must not collect events until it has a page full
    answer.call_on_close(held.pop_all().close)
    return answer


def _from_the_record(
    svc: Services, caller: Caller, follower: Follower, job_id: str, place: Place
) -> Iterator[list[Event]]:
    """Tell a job's events after ``place``; raises Problem 401, 404, 410 or 429."""
    first: Followed = accept(svc.jobs.follow(caller, job_id, place, first=True)).rest[0]
    return follow(svc, caller, follower, first, place)


def _last_event(caller: Caller, call: Request) -> Place | None:
    """Return how much the client has; None when that was all. Raises Problem 422."""
    header, name = call.headers.get("Last-Event-ID", ""), "Last-Event-ID"
    if not header:
        header, name = call.args.get("last_event_id", ""), "last_event_id"
    if not header:
        return Place()
    try:
        place = Place.parse(header.removesuffix(END))
    except ValueError:
        message = "must be the id of an event of this job"
        errors = [{"field": name, "message": message}]
        raise for_callers(caller, Problem(422, "invalid-request", f"{name}: {message}", errors=errors)) from None
    return None if header.endswith(END) else place


def _sse(together: list[Event]) -> bytes:
    """Return events as they go out, in one piece; a comment for none."""
    return (
        b"".join(
            b"event: %s\nid: %s\ndata: %s\n\n" % (event.name.encode(), event.id.encode(), orjson.dumps(event.data))
            for event in together
        )
        or b": still here\n\n"
    )


def _limit_stalls(held: ExitStack, environ: dict[str, Any]) -> None:
    """Have writes to a client that takes nothing fail, so that it does not hold its place for ever."""
    connection = environ.get("gunicorn.socket")
    if connection is not None:
        connection.settimeout(STALLED_S)
        held.callback(connection.settimeout, None)
