"""A device's persistent state as a member of a fleet: one file, replaced as a whole. Pure.

`issued` is the newest moment that a signed timestamp.json has named: time known to have passed (F-6). Wall time is never in it.
`issued_by` has the ids of the keys that timestamp was signed with: where root names too few of them any more, the moment counts no more.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from edge import strict_json
from edge.fleet.membership import Outcome
from edge.strict_json import JsonFault

FORMAT = 1
MAX_STATE_BYTES = 1 << 20  # of the fleet's state file on a device
MAX_BAD = 64  # packages that are remembered as bad and not tried again
MAX_REASON_CHARACTERS = 300  # of the reason that is remembered for a bad package
MAX_UNTOLD = 8  # deployments whose final report could not be written yet; the oldest is dropped first
_LATER = ("issued_by", "untrusted", "untold")  # members that files of earlier releases lack


class StateFault(Exception):
    """What is wrong with the file, in words that follow its name."""


@dataclass(frozen=True)
class Arrived:
    """A package that serves or is to serve: its path in the repository, and the SHA-256 of its archive."""

    package: str
    sha256: str


@dataclass
class FleetState:
    """`models` is what is declared now, by deployment `deployment`; `before`, until that has proved itself, what was declared before it."""

    issued: int = 0
    deployment: str = ""
    models: dict[str, Arrived] = field(default_factory=dict)
    rollback: bool = True
    proved: bool = True
    deployment_before: str = ""
    before: dict[str, Arrived] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)  # by the SHA-256 of the archive
    reported: str = ""  # the deployment whose end was reported last, and how it ended
    issued_by: list[str] = field(default_factory=list)
    untrusted: dict[str, str] = field(
        default_factory=dict
    )  # of `bad`: refused for its signer, by the trust of that time
    untold: list[Outcome] = field(default_factory=list)

    def refuse(self, sha256: str, reason: str, trust: str = "") -> None:
        """Remember not to try a package again (F-10); with `trust`, only while the device's trusted roots are these."""
        self.forgive(sha256)
        while len(self.bad) >= MAX_BAD:
            self.forgive(next(iter(self.bad)))
        self.bad[sha256] = reason[:MAX_REASON_CHARACTERS]
        if trust:
            self.untrusted[sha256] = trust

    def forgive(self, sha256: str) -> None:
        """A package may be tried again."""
        self.bad.pop(sha256, None)
        self.untrusted.pop(sha256, None)

    def begin(self, deployment: str, models: dict[str, Arrived], *, rollback: bool) -> None:
        """A deployment is to serve, and to prove itself."""
        if self.proved:
            self.deployment_before, self.before = self.deployment, self.models
        self.deployment, self.models, self.rollback, self.proved = deployment, models, rollback, False

    def go_back(self) -> None:
        """What was declared before is declared again."""
        self.deployment, self.models, self.proved = self.deployment_before, self.before, True


def to_bytes(state: FleetState) -> bytes:
    """The state file."""
    return json.dumps({"format": FORMAT, **asdict(state)}, indent=1).encode()


def parse(data: bytes) -> FleetState:
    """The state in a file.

    Raises:
        StateFault: it is none.
    """
    try:
        value = strict_json.parse_object(data, max_bytes=MAX_STATE_BYTES)
        names = [one.name for one in fields(FleetState) if one.name not in _LATER]
        strict_json.check_keys(value, "", required=("format", *names), optional=_LATER)
        if value.pop("format") != FORMAT:
            raise StateFault(f"has another format; this agent knows {FORMAT}")
        for key, kind in (("issued", int), ("rollback", bool), ("proved", bool)):
            if type(value[key]) is not kind:
                raise JsonFault(f"{key} must be {'a number' if kind is int else 'true or false'}")
        for key in ("deployment", "deployment_before", "reported"):
            strict_json.text(value[key], key)
        for key in ("models", "before"):
            value[key] = {alias: _arrived(one, key) for alias, one in strict_json.table(value[key], key).items()}
        for key in ("bad", "untrusted"):
            value[key] = _texts(value.get(key, {}), key)
        value["issued_by"] = [strict_json.text(one, "issued_by") for one in _listed(value, "issued_by")]
        value["untold"] = [_outcome(one) for one in _listed(value, "untold")]
        return FleetState(**value)
    except JsonFault as fault:
        raise StateFault(str(fault)) from None


def _texts(value: object, where: str) -> dict[str, str]:
    return {key: strict_json.text(one, where) for key, one in strict_json.table(value, where).items()}


def _listed(value: dict[str, Any], key: str) -> list[Any]:
    found = value.get(key, [])
    if not isinstance(found, list):
        raise JsonFault(f"{key} must be a list")
    return found


def _outcome(value: object) -> Outcome:
    given = strict_json.table(value, "untold")
    strict_json.check_keys(given, "untold", required=("deployment", "models", "reasons"))
    models, reasons = _texts(given["models"], "untold.models"), _texts(given["reasons"], "untold.reasons")
    return Outcome(strict_json.text(given["deployment"], "untold.deployment"), models, reasons)


def _arrived(value: object, where: str) -> Arrived:
    given: dict[str, Any] = strict_json.table(value, where)
    strict_json.check_keys(given, where, required=("package", "sha256"))
    sha256 = strict_json.text(given["sha256"], where)
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise JsonFault(f"{where}.sha256 must be a SHA-256 in hex")
    return Arrived(strict_json.text(given["package"], where), sha256)
