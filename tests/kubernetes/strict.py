"""Strict schemas of what Kubernetes and KubeRay take, from their own sources: a manifest is checked without a cluster.

Strict: a field that no schema names is an error, as it is for `kubectl apply --validate=strict`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

Schema = dict[str, Any]
_API = "urn:kubernetes"


def complaints(manifest: dict[str, Any], folder: Path) -> list[str]:
    """What is wrong with one object, by its place in it. folder: `infra.kubernetes.tools.programs.module_dir()`.

    Raises:
        KeyError: no schema is known of its kind.
    """
    schemas, registry = _known(folder)
    validator = Draft202012Validator(schemas[(manifest["apiVersion"], manifest["kind"])], registry=registry)
    found = validator.iter_errors(manifest)
    return sorted(f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in found)


@functools.cache
def _known(folder: Path) -> tuple[dict[tuple[str, str], Schema], Any]:
    definitions = json.loads((folder / "swagger.json").read_text(encoding="utf-8"))["definitions"]
    api = {"definitions": {name: _strict(one) for name, one in definitions.items()}}
    schemas = {**dict(_of_kubernetes(definitions)), **dict(_of_definitions(folder / "crd" / "bases"))}
    return schemas, Registry().with_resource(_API, DRAFT202012.create_resource(api))


def _of_kubernetes(definitions: dict[str, Schema]) -> Iterator[tuple[tuple[str, str], Schema]]:
    for name, one in definitions.items():
        for kind in one.get("x-kubernetes-group-version-kind", ()):
            version = "/".join(filter(None, (kind["group"], kind["version"])))
            yield (version, kind["kind"]), {"$ref": f"{_API}#/definitions/{name}"}


def _of_definitions(folder: Path) -> Iterator[tuple[tuple[str, str], Schema]]:
    """Of each version of each CustomResourceDefinition."""
    for file in sorted(folder.glob("*.yaml")):
        spec = yaml.load(file.read_text(encoding="utf-8"), yaml.CSafeLoader)["spec"]
        for version in spec["versions"]:
            schema = _strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            yield (f"{spec['group']}/{version['name']}", spec["names"]["kind"]), schema


def _strict(node: Any) -> Any:
    """A copy in JSON Schema's words, in which an object has no other fields than those that are named."""
    if isinstance(node, list):
        return [_strict(each) for each in node]
    if not isinstance(node, dict):
        return node
    found = {name: _strict(value) for name, value in node.items()}
    if str(node.get("$ref")).startswith("#/"):
        return {"$ref": f"{_API}{node['$ref']}"}
    if node.get("x-kubernetes-int-or-string") or node.get("format") == "int-or-string":
        return {"type": ["integer", "string"]}
    if str(node.get("description")).startswith("Quantity is a fixed-point representation"):
        return {"type": ["integer", "number", "string"]}
    named = isinstance(node.get("properties"), dict)
    if named and "additionalProperties" not in node and not node.get("x-kubernetes-preserve-unknown-fields"):
        found["additionalProperties"] = False
    return found
