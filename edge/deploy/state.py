"""What is known of each declared alias, and outlives the agent: one file, replaced as a whole. Pure.

An alias has `current`, the version that proved itself, `previous`, the one before it, and `trying`, a newer one that serves
and has yet to prove itself (W-6). `tries` counts the runs of the agent that it was tried in and that did not end cleanly (W-7).
Versions on trial that are of one `deployment` prove themselves, or go back, together (W-9).
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from edge import strict_json
from edge.strict_json import JsonFault

FORMAT = 1
MAX_STATE_BYTES = 128 << 20  # of the package store's state file, which has room for all that can be declared
MAX_BAD = 8  # versions of a model that are remembered as bad and not tried again
MAX_ENDED = 16  # deployments whose outcome is remembered
_SELDOM = ("deployment", "waiting", "elsewhere")  # members of an alias that are left out where they say nothing
MAX_TRIES = 2  # runs of the agent that a version on trial may end before it is taken back (W-7)


class StateFault(Exception):
    """What is wrong with the file, in words that follow its name."""


@dataclass(frozen=True)
class Version:
    """An accepted package.

    `id` is the SHA-256 of its signature file, which has that of every other file; `accepted` when its certificate was judged,
    `since` when it first served, both in seconds since the epoch.
    """

    id: str
    package: str
    name: str
    version: str
    accepted: float
    since: float = 0.0

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Bad:
    """A version that is not tried again, and why."""

    id: str
    package: str
    version: str
    reason: str


@dataclass(frozen=True)
class Standing:
    """How a deployment stands (W-9): trying, committed, taken-back, refused, replaced or unknown; and why."""

    name: str
    state: str
    reason: str = ""


@dataclass
class AliasState:
    """An alias.

    `deployment` is that of `trying`. With `waiting`, what is being tried was not opened in this run, for want of memory or
    time, so that the run says nothing about it. `elsewhere`: it is not models.d that declares it.
    """

    current: Version | None = None
    previous: Version | None = None
    trying: Version | None = None
    tries: int = 0
    bad: list[Bad] = field(default_factory=list)
    deployment: str = ""
    waiting: bool = False
    elsewhere: bool = False

    @property
    def serving(self) -> Version | None:
        """The one that is to serve."""
        return self.trying or self.current

    @property
    def before(self) -> Version | None:
        """The one to go back to."""
        return self.current if self.trying else self.previous

    def versions(self) -> Iterator[Version]:
        """All that the store has to keep, the one that is to serve first."""
        yield from (one for one in (self.trying, self.current, self.previous) if one is not None)

    def find(self, id: str) -> Version | None:
        """The kept version of that id."""
        return next((one for one in self.versions() if one.id == id), None)

    def try_out(self, version: Version, deployment: str = "") -> None:
        """A version is to serve from now on, if it can."""
        same = self.trying is not None and self.trying.id == version.id
        if not same and self.current is not None and self.current.id == version.id:
            self.give_up()
            self.current = version
            return
        if not same and self.current is None:
            self.commit()  # it serves, and is all there is to go back to
        self.trying, self.tries = version, self.tries if same else 1
        self.deployment, self.waiting = deployment, False

    def commit(self) -> None:
        """What is being tried has proved itself."""
        if self.trying is not None:
            self.previous, self.current = self.current, self.trying
            self.give_up()

    def give_up(self) -> None:
        """Nothing is being tried any more."""
        self.trying, self.tries, self.deployment, self.waiting = None, 0, "", False

    def begin_run(self) -> bool:
        """The run before did not end cleanly: what is being tried is tried once more, or is to be taken back, if it can be (W-7)."""
        if self.waiting:
            return False
        over = self.tries >= MAX_TRIES
        self.tries = min(self.tries + 1, MAX_TRIES)
        return over

    def go_back(self, reason: str, *, blame: bool = True) -> None:
        """What was there before serves again; with `blame`, what serves now is not tried again."""
        bad = self.serving
        if bad is not None and blame:
            self.bad = [one for one in self.bad if one.id != bad.id][1 - MAX_BAD :]
            self.bad.append(Bad(bad.id, bad.package, str(bad), reason))
        if self.trying is not None:
            self.give_up()
        else:
            self.current, self.previous = self.previous, None

    def lift(self, id: str) -> None:
        """Let a version be tried again."""
        self.bad = [one for one in self.bad if one.id != id]


_BAD = [one.name for one in fields(Bad)]
_STANDING = [one.name for one in fields(Standing)]


@dataclass
class State:
    """What a state file has: the aliases, and the last deployments that have ended, the oldest first."""

    models: dict[str, AliasState] = field(default_factory=dict)
    ended: list[Standing] = field(default_factory=list)


def parse(data: bytes) -> State:
    """What is in a state file.

    Raises:
        StateFault: it is none.
    """
    try:
        value = strict_json.parse_object(data, max_bytes=MAX_STATE_BYTES)
        strict_json.check_keys(value, "", required=("format", "models"), optional=("ended",))
        if value["format"] != FORMAT:
            raise StateFault(f"has format {value['format']!r}; this agent knows {FORMAT}")
        models = strict_json.table(value["models"], "models")
        ended = strict_json.array(value.get("ended", []), "ended", most=MAX_ENDED)
        return State(
            {name: _alias(strict_json.table(one, name), name) for name, one in models.items()},
            [Standing(*_strings(one, _STANDING, "ended")) for one in ended],
        )
    except JsonFault as fault:
        raise StateFault(str(fault)) from None


def _alias(value: dict[str, Any], where: str) -> AliasState:
    required = [one.name for one in fields(AliasState) if one.name not in _SELDOM]
    strict_json.check_keys(value, where, required=required, optional=_SELDOM)
    current, previous, trying = (
        None if value[key] is None else _version(value[key], f"{where}.{key}")
        for key in ("current", "previous", "trying")
    )
    if type(value["tries"]) is not int:
        raise JsonFault(f"{where}.tries must be a number")
    for key in ("waiting", "elsewhere"):
        if type(value.get(key, False)) is not bool:
            raise JsonFault(f"{where}.{key} must be true or false")
    bad = [
        Bad(*_strings(one, _BAD, f"{where}.bad"))
        for one in strict_json.array(value["bad"], f"{where}.bad", most=MAX_BAD)
    ]
    deployment = strict_json.text(value.get("deployment", ""), f"{where}.deployment")
    waiting, elsewhere = value.get("waiting", False), value.get("elsewhere", False)
    return AliasState(current, previous, trying, value["tries"], bad, deployment, waiting, elsewhere)


def _version(value: object, where: str) -> Version:
    given = strict_json.table(value, where)
    strict_json.check_keys(given, where, required=[one.name for one in fields(Version)])
    for key in ("accepted", "since"):
        if type(given[key]) not in (int, float):
            raise JsonFault(f"{where}.{key} must be a number")
    id, package, name, version = (
        strict_json.text(given[key], f"{where}.{key}") for key in ("id", "package", "name", "version")
    )
    return Version(_id(id, where), package, name, version, float(given["accepted"]), float(given["since"]))


def _strings(value: object, names: list[str], where: str) -> list[str]:
    """The members of an object that has strings alone."""
    given = strict_json.table(value, where)
    strict_json.check_keys(given, where, required=names)
    return [strict_json.text(given[name], f"{where}.{name}") for name in names]


def _id(text: str, where: str) -> str:
    if not is_id(text):
        raise JsonFault(f"{where}.id must be a SHA-256 in hex")
    return text


def is_id(text: str) -> bool:
    """Whether it is a SHA-256 in hex."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def to_bytes(state: State) -> bytes:
    """The state file."""
    models = {name: _plain(one) for name, one in state.models.items()}
    value = {"format": FORMAT, "models": models}
    if state.ended:
        value["ended"] = list(map(asdict, state.ended[-MAX_ENDED:]))
    return json.dumps(value, indent=1).encode()


def _plain(one: AliasState) -> dict[str, Any]:
    return {key: value for key, value in asdict(one).items() if value or key not in _SELDOM}
