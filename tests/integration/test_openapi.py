"""The OpenAPI document: its routes are those that exist, its examples work, its page needs nothing from elsewhere."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import TypeAdapter

from api.answers import JobBody
from api.app import create_app
from api.examples import JOB, QUEUED
from api.openapi import document
from api.operations import OPERATIONS, UNLISTED
from inferq.settings import Settings
from tests.conftest import make_settings
from tests.processes import ROOT

API = ROOT / "api"
KINDS = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def test_the_document_names_the_routes_that_exist() -> None:
    rules = create_app(make_settings("redis://unused")).url_map.iter_rules()
    exist = {
        f"{method} " + re.sub(r"<(?:[a-z]+:)?([a-z_]+)>", r"{\1}", rule.rule)
        for rule in rules
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert exist == OPERATIONS.keys() | UNLISTED


def test_names_of_operations_are_unique_and_links_lead_somewhere() -> None:
    names = [operation.name for operation in OPERATIONS.values()]
    assert len(set(names)) == len(names)
    assert {name for operation in OPERATIONS.values() for name in operation.leads_to} <= set(names)


def test_every_code_of_a_problem_is_documented() -> None:
    source = "\n".join(
        file.read_text() for file in API.glob("*.py") if file.name not in ("operations.py", "openapi.py")
    )
    raised = set(re.findall(r'Problem\(\s*\d{3},\s*"([a-z-]+)"', source))
    raised |= set(re.findall(r'"tenant_\w+": \("([a-z-]+)"', source)) | {"no-webhook-secret", "webhook-disabled"}
    assert len(raised) > 15
    documented: set[str] = set()
    for path in document()["paths"].values():
        for operation in path.values():
            for answer in operation["responses"].values():
                for part in (
                    answer.get("content", {}).get("application/problem+json", {}).get("schema", {}).get("allOf", [])
                ):
                    documented |= set(part.get("properties", {}).get("code", {}).get("enum", []))
    assert raised <= documented


def test_refusals_say_when_to_ask_again() -> None:
    for path in document()["paths"].values():
        for operation in path.values():
            for status in {"429", "503"} & operation["responses"].keys():
                answer = operation["responses"][status]
                if "application/problem+json" in answer["content"]:
                    assert answer["headers"]["Retry-After"] == {"$ref": "#/components/headers/Retry-After"}


@pytest.mark.parametrize("example", [JOB, QUEUED], ids=["JOB", "QUEUED"])
def test_jobs_that_are_shown_could_be(example: dict[str, Any]) -> None:
    TypeAdapter(JobBody).validate_json(json.dumps(example), strict=True)
    assert example.keys() == JobBody.__annotations__.keys()


def test_the_document_is_served_to_everybody_and_may_be_kept(settings: Settings, client: FlaskClient) -> None:
    client.environ_base.pop("HTTP_X_API_KEY")
    answer = client.get("/openapi.json")
    assert (answer.status_code, answer.mimetype, answer.json["openapi"]) == (200, "application/json", "3.1.0")
    again = client.get("/openapi.json", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize(("path", "files"), [("/docs", "docs/"), ("/", "console/")])
def test_pages_need_nothing_from_elsewhere(client: FlaskClient, path: str, files: str) -> None:
    client.environ_base.pop("HTTP_X_API_KEY")
    page = client.get(path)
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert {"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= set(policy.split("; "))
    assert "unsafe" not in policy
    assert "http" not in policy
    assert (page.headers["X-Content-Type-Options"], page.headers["Referrer-Policy"]) == ("nosniff", "no-referrer")
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=", page.text)
    named = set(re.findall(r'(?:src|href)="([^"]+)"', page.text))
    assert not [name for name in named if ":" in name and name != "data:,"]
    parts = {name.removeprefix(files) for name in named if name.startswith(files)}
    assert len(parts) == 3
    left = list(parts)
    while left:  # scripts name others
        answer = client.get(f"/{files}{(name := left.pop())}")
        assert (answer.status_code, answer.mimetype) == (200, KINDS[name.rsplit(".", 1)[1]])
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        new = set(re.findall(r'^import .* from "\./([^"]+)";$', answer.text, re.MULTILINE)) - parts
        parts |= new
        left += new
    shipped = {file.name for file in (API / "pages" / files).iterdir() if file.suffix in (".css", ".js", ".svg")}
    assert parts == shipped
    assert client.get(f"/{files}index.html").status_code == 404
    assert client.get(f"/{files}README.md").status_code == 404


def test_licences_are_shipped() -> None:
    shipped = {file.name for file in Path(API / "pages" / "docs").iterdir()}
    assert {"swagger-ui.LICENSE", "swagger-ui.NOTICE", "swagger-ui-bundle.js.LICENSE.txt", "README.md"} <= shipped
