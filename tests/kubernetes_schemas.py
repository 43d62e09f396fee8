"""Schemas of the Kubernetes API, and of the custom resources that deploy/kubernetes uses.

Those of the API are in the package kubernetes-validate. Those of KEDA and the Prometheus operator are in
kubernetes_crds.json, which names its sources.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

#: The oldest and the newest API that the manifests are checked against.
VERSIONS = ("1.30", "1.37")
CUSTOM = Path(__file__).with_name("kubernetes_crds.json")


def complaints(document: dict[str, Any]) -> Iterator[str]:
    """What the API would not take, as sentences."""
    for version in VERSIONS:
        for error in _validator(version, document["apiVersion"], document["kind"]).iter_errors(document):
            where = ".".join(map(str, error.absolute_path))
            yield f"{version} {document['kind']} {document['metadata']['name']}: {where}: {error.message}"


@cache
def _validator(version: str, api: str, kind: str) -> Draft202012Validator:
    definitions = _read(version, "_definitions")
    registry: Registry[Any] = Registry().with_resource(definitions["$id"], Resource.from_contents(definitions))
    group = api.partition("/")[0]
    if "." in group and not group.endswith(".k8s.io"):
        schema = _custom(api, kind, definitions["$id"])
    else:
        named = re.sub(r"(\..*)?/", "-", api)  # networking.k8s.io/v1 is called networking-v1 there
        schema = _read(version, f"{kind.lower()}-{named}")
    return Draft202012Validator(schema, registry=registry)


@cache
def _read(version: str, name: str) -> dict[str, Any]:
    place = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict" / f"{name}.json"
    found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    return found


def _custom(api: str, kind: str, definitions: str) -> dict[str, Any]:
    spec = dict(json.loads(CUSTOM.read_text(encoding="utf-8"))["specs"][f"{api} {kind}"])
    inner = spec.pop("$defs")
    metadata = {"$ref": f"{definitions}#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
    return {
        "type": "object",
        "properties": {"apiVersion": {"const": api}, "kind": {"const": kind}, "metadata": metadata, "spec": spec},
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
        "$defs": inner,
    }
