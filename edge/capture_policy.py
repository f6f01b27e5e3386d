"""Which calls of a model are captured without being asked for: the policy as a configuration or a declaration has it (K). Pure.

A policy is a JSON object. Its reasons are asked of every call, and one of them is enough; its budgets bound what all of
them keep in a day (UTC).
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge.text import cut, shown

EVERY_OTHER = "*"  # in place of an alias: all that are not named
MAX_POLICIES = 256  # capture policies in a configuration
MAX_CLASSES = 1000  # classes that a capture policy names
MAX_OUTPUT_CHARACTERS = 1024  # of an output's name in a capture policy
MAX_SEED = 2**63 - 1  # of the sampling of a capture policy
MAX_SHOWN_CHARACTERS = 40  # of a number that an error message repeats
_ALIAS = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
_METADATA_KEY = re.compile(r"(?!grpc-)[a-z0-9_.-]{1,64}(?<!-bin)")

REASONS = (
    "sample_percent",
    "every_nth",
    "rate_per_minute",
    "on_request",
    "max_probability_below",
    "max_probability_above",
    "margin_below",
    "class_seen",
    "nan_or_inf",
    "unlike_mean_sigmas",
    "errors",
)


class PolicyFault(Exception):
    """What is wrong with a policy, in words that follow the name of what holds it."""


@dataclass(frozen=True)
class Policy:
    """One model's policy; a reason that is 0, None, empty or false is none.

    `output` is the name of the output that the reasons on values look at; empty: the model's first. `seed`: None for a
    choice that nobody can foresee.
    """

    sample_percent: float = 0.0
    every_nth: int = 0
    rate_per_minute: float = 0.0
    on_request: str = ""
    output: str = ""
    max_probability_below: float | None = None
    max_probability_above: float | None = None
    margin_below: float | None = None
    class_seen: tuple[int, ...] = ()
    nan_or_inf: bool = False
    unlike_mean_sigmas: float = 0.0
    errors: bool = False
    records_per_day: int = 10_000
    mib_per_day: int = 256
    seed: int | None = None

    def given(self) -> dict[str, Any]:
        """As JSON has it, without what is left to its default."""
        fields = {one.name: (getattr(self, one.name), one.default) for one in dataclasses.fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, (value, default) in fields.items()
            if value != default
        }

    @property
    def looks_at_outputs(self) -> bool:
        """Whether a reason needs the values of the outputs."""
        return bool(
            self.class_seen
            or self.nan_or_inf
            or self.unlike_mean_sigmas
            or (self.max_probability_below, self.max_probability_above, self.margin_below) != (None, None, None)
        )

    @property
    def keeps(self) -> bool:
        """Whether it has a reason at all."""
        return self.looks_at_outputs or bool(
            self.sample_percent or self.every_nth or self.rate_per_minute or self.on_request or self.errors
        )


@dataclass(frozen=True)
class _Number:
    """A number from `low` to `high`; `low` itself only where it is `closed`."""

    low: float
    high: float
    whole: bool = False
    closed: bool = True

    def read(self, value: Any) -> Any:
        """Raises ValueError with what is expected."""
        fits = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        if not fits or not self.low <= value <= self.high or (value == self.low and not self.closed):
            kind = "a whole number" if self.whole else "a number"
            raise ValueError(
                f"{kind} from {self.low:g} to {self.high:g}"
                if self.closed
                else f"{kind} above {self.low:g}, at most {self.high:g}"
            )
        return value if self.whole else float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _key(value: Any) -> str:
    if not isinstance(value, str) or not _METADATA_KEY.fullmatch(value):
        raise ValueError(
            "the key of a call's metadata: 1 to 64 of a-z, 0-9, '_', '.' and '-', not beginning with grpc- or ending in -bin"
        )
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_OUTPUT_CHARACTERS:
        raise ValueError(f"the name of an output, 1 to {MAX_OUTPUT_CHARACTERS} characters")
    return value


_CLASS = _Number(0, 2**31 - 1, whole=True)


def _classes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_CLASSES:
        raise ValueError(f"a list of 1 to {MAX_CLASSES} numbers of classes")
    try:
        return tuple(_CLASS.read(one) for one in value)
    except ValueError as fault:
        raise ValueError(f"numbers of classes, each {fault}") from None


_FIELDS: Mapping[str, Any] = {
    "sample_percent": _Number(0, 100, closed=False).read,
    "every_nth": _Number(1, 10**9, whole=True).read,
    "rate_per_minute": _Number(0, 60_000, closed=False).read,
    "on_request": _key,
    "output": _name,
    "max_probability_below": _Number(0, 1).read,
    "max_probability_above": _Number(0, 1).read,
    "margin_below": _Number(0, 1).read,
    "class_seen": _classes,
    "nan_or_inf": _flag,
    "unlike_mean_sigmas": _Number(0, 1000, closed=False).read,
    "errors": _flag,
    "records_per_day": _Number(1, 10**7, whole=True).read,
    "mib_per_day": _Number(1, 1 << 24, whole=True).read,
    "seed": _Number(0, MAX_SEED, whole=True).read,
}


def parse_policy(value: Any) -> Policy:
    """A policy out of JSON; the empty object keeps nothing.

    Raises:
        PolicyFault: with every fault, joined by "; ".
    """
    if not isinstance(value, dict):
        raise PolicyFault(f"is {_shown(value)}; expected an object")
    faults, fields = [], {}
    for key, given in value.items():
        read = _FIELDS.get(key)
        if read is None:
            faults.append(f"has the unknown key {shown(str(key))}; known: {', '.join(_FIELDS)}")
            continue
        try:
            fields[key] = read(given)
        except ValueError as fault:
            faults.append(f"{key} is {_shown(given)}; expected {fault}")
    if not faults and fields and not Policy(**fields).keeps:
        faults.append(f"keeps nothing; expected one of {', '.join(REASONS)}, or an empty object")
    if faults:
        raise PolicyFault("; ".join(faults))
    return Policy(**fields)


def parse_policies(value: Any) -> dict[str, Policy]:
    """Policies by alias, "*" for every other.

    Raises:
        PolicyFault: with every fault, joined by "; ".
    """
    if not isinstance(value, dict):
        raise PolicyFault(f"is {_shown(value)}; expected an object: a policy for each alias, or for '*'")
    if len(value) > MAX_POLICIES:
        raise PolicyFault(f"has {len(value)} policies; at most {MAX_POLICIES} are allowed")
    faults, policies = [], {}
    for alias, given in value.items():
        if alias != EVERY_OTHER and not _ALIAS.fullmatch(alias):
            faults.append(f"has a policy for {shown(alias)}; expected the name that a model serves under, or '*'")
            continue
        try:
            policies[alias] = parse_policy(given)
        except PolicyFault as fault:
            faults.append(f"{shown(alias)}: {fault}")
    if faults:
        raise PolicyFault("; ".join(faults))
    return policies


def _shown(value: Any) -> str:
    """A value in the words of JSON, cut to a readable length."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    return shown(value) if isinstance(value, str) else cut(json.dumps(value), MAX_SHOWN_CHARACTERS)
