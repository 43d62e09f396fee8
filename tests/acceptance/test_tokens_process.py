"""Tokens as they are taken in production: gunicorn's green threads, and keys published over TLS."""

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import trustme

from deploy.local.stack import free_port
from inferq.scripts import Scripts
from inferq.tenants import Tenants
from tests.conftest import make_settings
from tests.processes import ROOT, Process, until
from tests.receiver import Received, receiving
from tests.redis_server import RedisServer
from tests.tokens import AUDIENCE, ISSUER, jwk, rsa_key, token


def test_keys_are_fetched_over_tls(redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with redis_server.client() as redis:
        Tenants(redis, Scripts(redis)).set("acme", weight=1)
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    def publish(_: Received, handler: BaseHTTPRequestHandler) -> None:
        body = json.dumps({"keys": [jwk(rsa_key(), "first")]}).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with receiving(publish, tls=context) as issuer:
        settings = make_settings(
            redis_server.url, api_port=free_port(), jwt_algorithm="RS256", jwt_issuer=ISSUER, jwt_audience=AUDIENCE,
            jwt_jwks_url=f"https://localhost:{issuer.port}/jwks",
        )  # fmt: skip
        command = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "api" / "gunicorn_conf.py"), "api.wsgi:app"]
        api = Process("api", command, settings, tmp_path / "api.log")
        try:
            until(lambda: "Booting worker" in api.output() or not api.alive(), 30, "gunicorn is up")
            url, presented = f"http://127.0.0.1:{settings.api_port}/v1/jobs", token(rsa_key(), "RS256", "first")
            asked = Request(url, headers={"Authorization": f"Bearer {presented}"})
            for _ in range(3):
                with urlopen(asked, timeout=30) as answer:
                    assert answer.status == 200
            assert len(issuer.got) == 1
        finally:
            api.close()
