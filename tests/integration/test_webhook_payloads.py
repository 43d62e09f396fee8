"""What webhooks carry is what the OpenAPI document says of them."""

import json
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from api.answers import PingBody, PingData, ToldBody, ToldJob
from api.openapi import document
from tests.post import URL, Post
from tests.world import World


@pytest.fixture
def post(world: World) -> Post:
    return Post(world)


def test_what_is_told_has_the_documented_shape(post: Post) -> None:
    world = post.world
    rich = {
        "hook_events": "started completed failed cancelled expired",
        "hook_output": True,
        "metadata_json": '{"a": "b"}',
    }
    cancelled, _expired = post.submit(**rich), post.submit(start_ms=1000, **rich)
    world.jobs.cancel(world.caller, cancelled.id)
    world.tick(2)
    post.submit(**rich)
    world.finish(world.claim(), text="the answer")
    post.submit(**rich)
    world.worker.fail(world.claim(), code="prompt_too_long", message="too long", retryable=False)
    told = []
    while parcels := post.take():
        for parcel in parcels:
            body = json.loads(parcel.body)
            TypeAdapter(ToldBody).validate_json(parcel.body, strict=True)
            assert body.keys() == ToldBody.__annotations__.keys()
            assert body["data"].keys() == ToldJob.__annotations__.keys()
            told.append(body["type"])
            post.told(parcel)
    assert set(told) == set(get_args(ToldBody.__annotations__["type"]))
    world.jobs.ping(world.caller, "ping_1", URL)
    (ping,) = post.take()
    body = json.loads(ping.body)
    TypeAdapter(PingBody).validate_json(ping.body, strict=True)
    assert (body.keys(), body["data"].keys()) == (PingBody.__annotations__.keys(), PingData.__annotations__.keys())


@pytest.mark.parametrize(("path", "shape"), [("/v1/jobs", "ToldBody"), ("/v1/webhooks/test", "PingBody")])
def test_callbacks_go_to_an_address_in_the_body_with_a_shape_that_is_there(path: str, shape: str) -> None:
    said = document()
    operation = said["paths"][path]["post"]
    (address,) = operation["callbacks"]["webhook"]
    told = operation["callbacks"]["webhook"][address]["post"]
    assert {one["name"] for one in told["parameters"] if one["required"]} == {
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    }
    sent = resolved(said, told["requestBody"]["content"]["application/json"]["schema"])
    assert sent["title"] == shape
    body = resolved(said, operation["requestBody"]["content"]["application/json"]["schema"])
    for part in address.removeprefix("{$request.body#/").removesuffix("}").split("/"):
        body = resolved(said, body["properties"][part])
    assert body["type"] == "string"


def resolved(said: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference, and out of what may be null."""
    schema = next((one for one in schema.get("anyOf", ()) if one.get("type") != "null"), schema)
    if "$ref" in schema:
        found: dict[str, Any] = said["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        return found
    return schema
