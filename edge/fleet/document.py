"""The signed document of a fleet: which package serves under each alias, on which devices. Pure.

```json
{"format": 1, "deployment": "2026-11-28-2", "on_failure": "rollback",
 "models": {"digits": [{"package": "packages/digits/1.1.tar.gz", "where": {"percent": 10, "seed": "d11"}},
                       {"package": "packages/digits/1.0.tar.gz"}]}}
```
The first rule of an alias that fits a device is the one for it; where none fits, the alias is not of this fleet's there.
"""

import fnmatch
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge import strict_json
from edge.strict_json import JsonFault
from edge.text import shown

FORMAT = 1
MAX_DOCUMENT_BYTES = 256 << 10  # of a fleet's document, which is read whole
MAX_ALIASES = 32  # models that a fleet's document names
MAX_RULES = 16  # rules for a model in a fleet's document
MAX_GLOBS = 256  # patterns of device names in a rule
ALL = 10_000  # parts that a percentage is counted in: hundredths of a percent
NAME = r"[a-zA-Z0-9](?:[-_.]?[a-zA-Z0-9])*"
FLEET = re.compile(r"[a-zA-Z0-9](-*_*[a-zA-Z0-9])*")  # as sagemaker_edge_core_device_fleet_name
DEPLOYMENT = re.compile(rf"(?=.{{1,128}}\Z){NAME}")
ALIAS = re.compile(r"(?=.{1,240}\Z)[a-zA-Z0-9](-*[a-zA-Z0-9])*")  # a name that a model can have (L-1)
PACKAGE = re.compile(rf"packages/(?=.{{1,100}}/){NAME}/(?=.{{1,100}}\Z){NAME}\.tar\.gz")
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}")
_WHERE = ("percent", "seed", "devices", "arch", "min_agent")


class DocumentFault(Exception):
    """What is wrong with a document, in words that follow its name."""


@dataclass(frozen=True)
class Where:
    """On which devices a rule holds; what is left out holds on all. `percent` of all devices, by `seed`."""

    percent: float = 100.0
    seed: str = ""
    devices: tuple[str, ...] = ()
    arch: tuple[str, ...] = ()
    min_agent: str = ""


@dataclass(frozen=True)
class Rule:
    """A package, and where it is to serve."""

    package: str
    where: Where = field(default_factory=Where)


@dataclass(frozen=True)
class Document:
    """What a fleet is to run; `rollback` says whether one alias that fails takes the others of the deployment back with it."""

    deployment: str
    models: Mapping[str, tuple[Rule, ...]]
    rollback: bool = True


@dataclass(frozen=True)
class Device:
    """What rules ask of a device; `agent` is its version, as numbers."""

    name: str
    arch: str
    agent: tuple[int, ...]


def bucket(seed: str, device: str) -> int:
    """Where a device stands among ALL parts: the same for ever, so that a percentage that grows takes none out."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{device}".encode()).digest()[:8], "big") % ALL


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: `1.20261128.abc` is (1, 20261128)."""
    found: list[int] = []
    for part in version.split("."):
        if not part.isascii() or not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)


def fits(where: Where, device: Device) -> bool:
    """Whether a rule holds on a device."""
    if where.percent < 100 and bucket(where.seed, device.name) >= round(where.percent * ALL / 100):
        return False
    if where.devices and not any(fnmatch.fnmatchcase(device.name, glob) for glob in where.devices):
        return False
    if where.arch and device.arch not in where.arch:
        return False
    return not where.min_agent or device.agent >= numbers(where.min_agent)


def chosen(document: Document, device: Device) -> dict[str, str]:
    """The package of each alias on a device."""
    found: dict[str, str] = {}
    for alias, rules in document.models.items():
        package = next((rule.package for rule in rules if fits(rule.where, device)), None)
        if package is not None:
            found[alias] = package
    return found


def parse(data: bytes) -> Document:
    """The document that a file's bytes are.

    Raises:
        DocumentFault: it is none.
    """
    try:
        value = strict_json.parse_object(data, max_bytes=MAX_DOCUMENT_BYTES, max_marks=50_000)
        strict_json.check_keys(value, "", required=("format", "deployment", "models"), optional=("on_failure",))
        if value["format"] != FORMAT or type(value["format"]) is not int:
            raise DocumentFault(f"has format {shown(str(value['format']))}; this agent knows {FORMAT}")
        deployment = _matched(value["deployment"], "deployment", DEPLOYMENT, "letters, digits and single - _ . between")
        on_failure = value.get("on_failure", "rollback")
        if on_failure not in ("rollback", "keep"):
            raise DocumentFault(f'has on_failure {shown(str(on_failure))}; expected "rollback" or "keep"')
        models = strict_json.table(value["models"], "models")
        if len(models) > MAX_ALIASES:
            raise DocumentFault(f"names {len(models)} aliases; at most {MAX_ALIASES} are allowed")
        return Document(
            deployment,
            {
                _matched(alias, "an alias", ALIAS, "letters, digits and '-' within"): _rules(rules, f"models.{alias}")
                for alias, rules in models.items()
            },
            on_failure == "rollback",
        )
    except JsonFault as fault:
        raise DocumentFault(str(fault)) from None


def _rules(value: object, where: str) -> tuple[Rule, ...]:
    given = strict_json.array(value, where, most=MAX_RULES)
    if not given:
        raise DocumentFault(f"has no rule in {where}")
    rules = []
    for one in given:
        rule = strict_json.table(one, where)
        strict_json.check_keys(rule, where, required=("package",), optional=("where",))
        package = _matched(rule["package"], f"{where}.package", PACKAGE, "packages/NAME/VERSION.tar.gz")
        rules.append(
            Rule(package, _where(strict_json.table(rule.get("where", {}), f"{where}.where"), f"{where}.where"))
        )
    return tuple(rules)


def _where(given: dict[str, Any], where: str) -> Where:
    strict_json.check_keys(given, where, required=(), optional=_WHERE)
    percent = given.get("percent", 100)
    if type(percent) not in (int, float) or not 0 <= percent <= 100:
        raise DocumentFault(f"has {where}.percent {shown(str(percent))}; expected a number from 0 to 100")
    min_agent = given.get("min_agent", "")
    if min_agent:
        _matched(min_agent, f"{where}.min_agent", _VERSION, "numbers with dots between")
    devices, arch = (
        tuple(
            strict_json.text(one, f"{where}.{key}")
            for one in strict_json.array(given.get(key, []), f"{where}.{key}", most=MAX_GLOBS)
        )
        for key in ("devices", "arch")
    )
    return Where(float(percent), strict_json.text(given.get("seed", ""), f"{where}.seed"), devices, arch, min_agent)


def _matched(value: object, where: str, pattern: re.Pattern[str], expected: str) -> str:
    text = strict_json.text(value, where)
    if not pattern.fullmatch(text):
        raise DocumentFault(f"has {where} {shown(text)}; expected {expected}")
    return text


def to_bytes(document: Document) -> bytes:
    """The file of a document."""
    models = {alias: [_as_json(rule) for rule in rules] for alias, rules in document.models.items()}
    value = {
        "format": FORMAT,
        "deployment": document.deployment,
        "on_failure": "rollback" if document.rollback else "keep",
        "models": models,
    }
    return json.dumps(value, indent=1).encode() + b"\n"


def _as_json(rule: Rule) -> dict[str, Any]:
    where = rule.where
    given: dict[str, Any] = {}
    if where.percent < 100:
        given["percent"] = where.percent
    if where.seed:
        given["seed"] = where.seed
    if where.devices:
        given["devices"] = list(where.devices)
    if where.arch:
        given["arch"] = list(where.arch)
    if where.min_agent:
        given["min_agent"] = where.min_agent
    return {"package": rule.package, "where": given} if given else {"package": rule.package}
