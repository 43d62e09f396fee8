"""Bearer tokens: whom they name, what they may tighten, and the many that are refused."""

import hashlib
import hmac
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from api.tokens import TokenVerifier
from inferq.credentials import KeyLimits, KeyRing, Subject
from inferq.errors import ConfigurationError
from inferq.event_streams import Place
from inferq.job_store import JobStore, ServiceLimits
from inferq.keys import key
from inferq.scripts import Scripts
from inferq.settings import environment_for
from inferq.tenants import Tenants
from tests.conftest import OpenClient, make_settings
from tests.hand_worker import problem
from tests.processes import ROOT
from tests.redis_server import RedisServer
from tests.sse import parse
from tests.tokens import (
    AUDIENCE,
    ISSUER,
    SECRET,
    assembled,
    claims,
    ec_key,
    pem,
    private_pem,
    rsa_key,
    token,
)

TRUSTED = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_leeway": 10.0}

OpenWith = Callable[..., FlaskClient]


@pytest.fixture
def tenants(redis: Redis) -> Tenants:
    found = Tenants(redis, Scripts(redis))
    found.set("acme", weight=1)
    return found


@pytest.fixture
def open_with(redis_server: RedisServer, open_client: OpenClient, tenants: Tenants) -> OpenWith:
    """Opens a client of an API that takes tokens as its settings say."""
    return lambda **changes: open_client(make_settings(redis_server.url, **(TRUSTED | changes)))


@pytest.fixture
def client(open_with: OpenWith) -> FlaskClient:
    return open_with(jwt_algorithm="HS256", jwt_secret=SECRET)


@pytest.fixture
def rsa_client(open_with: OpenWith, tmp_path: Path) -> FlaskClient:
    (tmp_path / "key.pem").write_bytes(pem(rsa_key()))
    return open_with(jwt_algorithm="RS256", jwt_key_file=str(tmp_path / "key.pem"))


def shown(client: FlaskClient, presented: str, path: str = "/v1/jobs", **body: Any) -> Any:
    headers = {"Authorization": f"Bearer {presented}"}
    return client.post(path, json=body, headers=headers) if body else client.get(path, headers=headers)


def refused(answer: Any, words: str) -> None:
    assert words in problem(answer, 401, "unauthorized")["detail"]
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="inferq", error="invalid_token"'


def test_a_token_makes_jobs_of_its_tenant_in_one_call_to_redis(client: FlaskClient, redis: Redis) -> None:
    shown(client, token())
    shown(client, token(), prompt="first")  # both scripts are loaded
    before = calls(redis)
    job = shown(client, token(), prompt="hello")
    assert (job.status_code, calls(redis) - before) == (202, 1)
    by_key = KeyRing(redis).create("acme")
    read = client.get(job.headers["Location"], headers={"X-API-Key": by_key})
    assert (read.status_code, read.json["id"]) == (200, job.json["id"])
    assert shown(client, token(sub="bob"), job.headers["Location"]).status_code == 200
    Tenants(redis, Scripts(redis)).set("rival", weight=1)
    problem(shown(client, token(tenant="rival"), job.headers["Location"]), 404, "not-found")


def calls(redis: Redis) -> int:
    stats = redis.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval"))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_public_keys_from_a_file(open_with: OpenWith, tmp_path: Path, algorithm: str) -> None:
    of = {"RS256": rsa_key, "ES256": ec_key}[algorithm]
    (tmp_path / "key.pem").write_bytes(pem(of()))
    client = open_with(jwt_algorithm=algorithm, jwt_key_file=str(tmp_path / "key.pem"))
    assert shown(client, token(of(), algorithm), prompt="hello").status_code == 202
    assert shown(client, token(of(), algorithm, kid="any"), prompt="hello").status_code == 202
    refused(shown(client, token(of("another"), algorithm)), "is not genuine")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"exp": None}, "lacks the claim exp"),
        ({"exp": -60}, "has expired"),
        ({"nbf": 60}, "is not valid yet"),
        ({"iat": 60}, "is not valid yet"),
        ({"iss": "https://another.example.com/"}, "is from another issuer"),
        ({"iss": None}, "lacks the claim iss"),
        ({"aud": "another"}, "is for another audience"),
        ({"aud": None}, "lacks the claim aud"),
        ({"sub": None}, "lacks the claim sub"),
        ({"sub": "\ud800"}, "is not genuine"),
        ({"sub": 7}, "is not genuine"),
        ({"tenant": None}, "lacks the claim tenant"),
        ({"tenant": "a:b"}, "has a wrong claim tenant: a tenant's name is 1 to 64 letters"),
        ({"tenant": ["acme"]}, "has a wrong claim tenant"),
        ({"tenant": {"acme": 1}}, "has a wrong claim tenant"),
        ({"limits": {"requests": 0}}, "has a wrong claim 'limits.requests': input should be greater than or equal"),
        ({"limits": {"requests": "5"}}, "has a wrong claim 'limits.requests': input should be a valid integer"),
        ({"limits": {"request": 5}}, "has a wrong claim 'limits.request': extra inputs are not permitted"),
        ({"limits": 5}, "has a wrong claim 'limits'"),
        ({"limits": False}, "has a wrong claim 'limits'"),
        ({"exp": "soon"}, "is not genuine"),
    ],
)
def test_claims_that_are_wrong(client: FlaskClient, changes: dict[str, Any], words: str) -> None:
    now = int(time.time())
    moments = {
        name: now + value
        for name, value in changes.items()
        if name in ("exp", "nbf", "iat") and value and isinstance(value, int)
    }
    refused(shown(client, token(**(changes | moments))), words)
    refused(shown(client, token(**(changes | moments)), prompt="hello"), words)


def test_clocks_may_differ_by_the_leeway_and_no_more(client: FlaskClient) -> None:
    now = int(time.time())
    assert shown(client, token(exp=now - 5)).status_code == 200
    assert shown(client, token(nbf=now + 5)).status_code == 200
    refused(shown(client, token(exp=now - 15)), "has expired")


#: Made when they are shown: they hold the time.
FORGERIES: dict[str, Callable[[], str]] = {
    "no token": lambda: "x",
    "three parts": lambda: "a.b.c",
    "three empty parts": lambda: "..",
    "cut": lambda: token()[:-2],
    "longer": lambda: token() + "x",
    "another secret": lambda: token("another secret of more than thirty-two bytes"),
    "another hash": lambda: token("a secret long enough for it " * 3, "HS512"),
    "another RSA key": lambda: token(rsa_key("another"), "RS256"),
    "an EC key": lambda: token(ec_key(), "ES256"),
    "none": lambda: assembled({"alg": "none", "typ": "JWT"}, claims()),
    "None": lambda: assembled({"alg": "None"}, claims()),
    "a list of algorithms": lambda: assembled({"alg": ["HS256", "RS256"]}, claims()),
    "no algorithm": lambda: assembled({"typ": "JWT"}, claims()),
    "no header": lambda: assembled([], claims()),
    "a deep header": lambda: assembled("[" * 4000, claims()),
    "no claims": lambda: assembled({"alg": "HS256"}, "not an object"),
    "a number as key id": lambda: assembled({"alg": "HS256", "kid": 5}, claims()),
    "a critical extension": lambda: assembled({"alg": "HS256", "crit": ["exp"]}, claims()),
    "a key of its own": lambda: assembled({"alg": "HS256", "jwk": {"kty": "oct", "k": "AAAA"}}, claims()),
    "an address of its own": lambda: assembled({"alg": "RS256", "jku": "https://evil.example.com"}, claims()),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forgeries(client: FlaskClient, rsa_client: FlaskClient, forgery: str) -> None:
    for one in (client, rsa_client):
        refused(shown(one, FORGERIES[forgery]()), "is not genuine")


def test_the_algorithm_is_not_the_token_s_to_choose(client: FlaskClient, rsa_client: FlaskClient) -> None:
    refused(shown(client, token(rsa_key(), "RS256")), "is not genuine")
    refused(shown(rsa_client, token()), "is not genuine")


def test_a_public_key_is_not_a_secret(rsa_client: FlaskClient) -> None:
    """The classic confusion: the issuer's public key, which everybody has, used as the secret of HS256."""
    for secret in (pem(rsa_key()), pem(rsa_key()).strip()):
        unsigned = assembled({"alg": "HS256", "typ": "JWT"}, claims()).rstrip(".")
        signature = hmac.new(secret, unsigned.encode(), hashlib.sha256).digest()
        forged = unsigned + assembled("", "", signature)[assembled("", "").rindex(".") :]
        refused(shown(rsa_client, forged), "is not genuine")
    assert shown(rsa_client, token(rsa_key(), "RS256")).status_code == 200


def test_tokens_only_where_they_are_wanted_and_only_as_bearers(client: FlaskClient, open_with: OpenWith) -> None:
    assert (
        "malformed" in problem(shown(open_with(jwt_issuer="", jwt_audience=""), token()), 401, "unauthorized")["detail"]
    )
    problem(client.get("/v1/jobs", headers={"X-API-Key": token()}), 401, "unauthorized")


def test_keys_go_on_beside_tokens(client: FlaskClient, redis: Redis) -> None:
    presented = KeyRing(redis).create("acme")
    assert client.get("/v1/jobs", headers={"X-API-Key": presented}).status_code == 200
    assert shown(client, presented).status_code == 200
    problem(shown(client, presented + "x"), 401, "unauthorized")


def test_windows_belong_to_the_subject_within_its_tenant(client: FlaskClient, tenants: Tenants, redis: Redis) -> None:
    tenants.set("acme", limits={"requests": 2})
    tenants.set("rival", limits={"requests": 2})
    for prompt in ("a", "b"):
        assert shown(client, token(), prompt=prompt).status_code == 202
    problem(shown(client, token(iat=None), prompt="c"), 429, "quota-exceeded")
    assert shown(client, token(sub="bob"), prompt="d").status_code == 202
    assert shown(client, token(tenant="rival"), prompt="e").status_code == 202
    assert not [name for name in redis.scan_iter("*") if "alice" in name], "who it is stays out of Redis"


@pytest.mark.parametrize(
    ("tenant", "claim", "limit"),
    [
        (None, None, 100),
        (None, 7, 7),
        (None, 5000, 100),
        (50, None, 50),
        (50, 7, 7),
        (50, 5000, 50),
        (5000, None, 5000),
        (5000, 200, 200),
    ],
)
def test_claims_tighten_and_never_widen(
    client: FlaskClient, tenants: Tenants, tenant: int | None, claim: int | None, limit: int
) -> None:
    if tenant:
        tenants.set("acme", limits={"requests": tenant, "jobs": 3})
    answer = shown(client, token(limits={"requests": claim} if claim else None), prompt="hello")
    assert answer.headers["RateLimit-Policy"].split(", ")[0] == f'"requests";q={limit};w=60'
    if tenant:
        assert '"jobs";q=3;' in answer.headers["RateLimit-Policy"]
        answer = shown(client, token(limits={"jobs": 1}), prompt="hello again")
        problem(answer, 429, "quota-exceeded")


def test_no_limit_of_the_service_is_tightened_too(open_with: OpenWith) -> None:
    client = open_with(jwt_algorithm="HS256", jwt_secret=SECRET, token_rate_limit=0)
    assert '"tokens"' not in shown(client, token(), prompt="a").headers["RateLimit-Policy"]
    answer = shown(client, token(limits={"tokens": 1000}), prompt="b")
    assert '"tokens";q=1000;' in answer.headers["RateLimit-Policy"]


def test_priority_is_at_most_the_tenant_s_and_the_token_s(client: FlaskClient, tenants: Tenants) -> None:
    def given(**said: Any) -> str:
        return shown(client, token(**said), prompt="hello", priority="high").json["priority"]

    assert given(limits={"max_priority": "high"}) == "normal"
    tenants.set("acme", max_priority="high")
    assert given() == "high"
    assert given(limits={"max_priority": "low"}) == "low"


def test_a_tenant_nobody_has_made_is_refused_and_none_is_made(client: FlaskClient, redis: Redis) -> None:
    problem(shown(client, token(tenant="ghost"), prompt="hello"), 403, "tenant-unknown")
    problem(shown(client, token(tenant="ghost")), 403, "tenant-unknown")
    assert not [name for name in redis.scan_iter("*") if "ghost" in name]


def test_a_suspended_tenant_is_refused_whatever_it_shows(client: FlaskClient, tenants: Tenants, redis: Redis) -> None:
    presented, job = KeyRing(redis).create("acme"), shown(client, token(), prompt="hello")
    tenants.suspend("acme", suspended=True)
    for one in (token(), presented):
        problem(shown(client, one, prompt="hello"), 403, "tenant-suspended")
        problem(shown(client, one, job.headers["Location"]), 403, "tenant-suspended")
    assert redis.hget(key("job", job.json["id"]), "status") == "queued", "its jobs go on"
    tenants.suspend("acme", suspended=False)
    for one in (token(), presented):
        assert shown(client, one, job.headers["Location"]).status_code == 200


def test_a_suspended_tenant_follows_no_longer(client: FlaskClient, tenants: Tenants, redis: Redis) -> None:
    caller = Subject(tenant="acme", window="sub.1", limits=KeyLimits())
    job = shown(client, token(), prompt="hello").json["id"]
    store = JobStore(Scripts(redis), ServiceLimits(requests=5, polls=5))
    assert store.follow(caller, job, Place(), first=False).outcome == "job"
    tenants.suspend("acme", suspended=True)
    for first in (True, False):
        assert store.follow(caller, job, Place(), first=first).rest == ("tenant_suspended",)


def test_a_stream_ends_with_its_token_and_goes_on_with_another(client: FlaskClient) -> None:
    events = {"Accept": "text/event-stream"}

    def tell(presented: str) -> list[str]:
        bearer = {"Authorization": f"Bearer {presented}", "Idempotency-Key": "once"}
        answer = client.post("/v1/jobs", json={"prompt": "hello"}, headers=events | bearer)
        assert answer.status_code == 200, answer.text
        told = parse(answer.response)
        heard = [next(told).name, next(told).name]
        if presented != good:
            heard += [one.name for one in told]
        answer.close()
        return heard

    good = token()
    ending = token(exp=int(time.time()) - 8)  # two seconds of the leeway are left
    assert tell(ending) == ["job", "status"], "no last event: it may come back"
    assert tell(good) == ["job", "status"]


def test_another_claim_may_name_the_tenant(open_with: OpenWith, redis: Redis) -> None:
    name = "https://example.com/org"
    client = open_with(jwt_algorithm="HS256", jwt_secret=SECRET, jwt_tenant_claim=name, jwt_limits_claim="quota")
    answer = shown(client, token(tenant="ghost", **{name: "acme", "quota": {"requests": 3}}), prompt="hello")
    assert answer.headers["RateLimit-Policy"].startswith('"requests";q=3;')
    refused(shown(client, token()), f"lacks the claim {name}")


def test_what_is_wrong_with_a_body_is_told_to_those_only_who_may_ask(client: FlaskClient) -> None:
    refused(shown(client, token()[:-2], prompt=5), "is not genuine")
    problem(shown(client, token(tenant="ghost"), prompt=5), 403, "tenant-unknown")
    problem(shown(client, token(), prompt=5), 422, "invalid-request")


FILES: dict[str, Callable[[], bytes]] = {
    "text": lambda: b"hello",
    "private": lambda: private_pem(rsa_key()),
    "rsa": lambda: pem(rsa_key()),
    "short": lambda: pem(rsa_key("short", 1024)),
    "ec": lambda: pem(ec_key()),
}


@pytest.mark.parametrize(
    ("algorithm", "content", "words"),
    [
        ("RS256", "nothing", "cannot be read: No such file or directory"),
        ("RS256", "text", "must be the issuer's public key, an RSA key of 2048 bits or more, in PEM"),
        ("RS256", "private", "must be the issuer's public key"),
        ("RS256", "ec", "must be an RSA key of 2048 bits or more for JWT_ALGORITHM=RS256"),
        ("RS256", "short", "must be an RSA key of 2048 bits or more"),
        ("ES256", "rsa", "must be a P-256 key for JWT_ALGORITHM=ES256"),
    ],
)
def test_a_key_file_that_cannot_be_used(tmp_path: Path, algorithm: str, content: str, words: str) -> None:
    file = tmp_path / "key.pem"
    if content in FILES:
        file.write_bytes(FILES[content]())
    settings = make_settings("redis://unused", jwt_algorithm=algorithm, jwt_key_file=str(file), **TRUSTED)
    with pytest.raises(ConfigurationError, match=f"^wrong setting: JWT_KEY_FILE: {words}"):
        TokenVerifier.of(settings)


def test_the_api_does_not_start_with_such_a_file(redis_server: RedisServer) -> None:
    settings = make_settings(redis_server.url, jwt_algorithm="RS256", jwt_key_file="/nowhere", **TRUSTED)
    command = [sys.executable, "-m", "gunicorn", "-c", "api/gunicorn_conf.py", "api.wsgi:app"]
    done = subprocess.run(command, cwd=ROOT, env=environment_for(settings), capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "inferq api: wrong setting: JWT_KEY_FILE: cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_limits_of_keys_stay_as_they_were(client: FlaskClient, redis: Redis, tenants: Tenants) -> None:
    """A key's own limit may be above the service's: who makes keys is the operator."""
    presented = KeyRing(redis).create("acme", limits=KeyLimits(requests=5000))
    answer = shown(client, presented, prompt="hello")
    assert answer.headers["RateLimit-Policy"].startswith('"requests";q=5000;')
