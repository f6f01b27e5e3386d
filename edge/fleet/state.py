"""What a device remembers of its fleet: one file, replaced as a whole. Pure.

`issued` is the newest moment that a signed timestamp.json has named: time known to have passed (F-6). Wall time is never in it.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from edge import strict_json
from edge.strict_json import JsonFault

FORMAT = 1
MAX_STATE_BYTES = 1 << 20  # of the fleet's state file
MAX_BAD = 64  # packages that are not tried again
MAX_REASON_CHARACTERS = 300  # of why one is not


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

    def refuse(self, sha256: str, reason: str) -> None:
        """Not try a package again (F-10)."""
        self.bad.pop(sha256, None)
        while len(self.bad) >= MAX_BAD:
            del self.bad[next(iter(self.bad))]
        self.bad[sha256] = reason[:MAX_REASON_CHARACTERS]

    def begin(self, deployment: str, models: dict[str, Arrived], *, rollback: bool) -> None:
        """A deployment is to serve, and to prove itself."""
        if self.proved:
            self.deployment_before, self.before = self.deployment, self.models
        self.deployment, self.models, self.rollback, self.proved = deployment, models, rollback, False

    def go_back(self) -> None:
        """What was declared before is declared again."""
        self.deployment, self.models, self.proved = self.deployment_before, self.before, True

    def kept(self) -> set[str]:
        """The archives that something declared needs."""
        return {one.sha256 for one in (*self.models.values(), *self.before.values())}


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
        strict_json.check_keys(value, "", required=("format", *(one.name for one in fields(FleetState))))
        if value.pop("format") != FORMAT:
            raise StateFault(f"has another format; this agent knows {FORMAT}")
        for key, kind in (("issued", int), ("rollback", bool), ("proved", bool)):
            if type(value[key]) is not kind:
                raise JsonFault(f"{key} must be {'a number' if kind is int else 'true or false'}")
        for key in ("deployment", "deployment_before", "reported"):
            strict_json.text(value[key], key)
        for key in ("models", "before"):
            value[key] = {alias: _arrived(one, key) for alias, one in strict_json.table(value[key], key).items()}
        value["bad"] = {
            sha: strict_json.text(why, "bad") for sha, why in strict_json.table(value["bad"], "bad").items()
        }
        return FleetState(**value)
    except JsonFault as fault:
        raise StateFault(str(fault)) from None


def _arrived(value: object, where: str) -> Arrived:
    given: dict[str, Any] = strict_json.table(value, where)
    strict_json.check_keys(given, where, required=("package", "sha256"))
    sha256 = strict_json.text(given["sha256"], where)
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise JsonFault(f"{where}.sha256 must be a SHA-256 in hex")
    return Arrived(strict_json.text(given["package"], where), sha256)
