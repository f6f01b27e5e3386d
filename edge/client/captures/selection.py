"""Which captures a command is about: filters, and what became of the records that cannot be used."""

import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from edge.client.captures.predictions import Prediction, prediction
from edge.client.captures.reading import Refusal, captures_of
from edge.client.captures.records import Capture, RecordError
from edge.client.captures.sources import Source
from edge.client.outcome import Exit, InputError
from edge.text import counted

MAX_REFUSALS_SHOWN = 20
MAX_LABELS_BYTES = 16 << 20
_HOUR = re.compile(r"(?:^|/)([0-9]{4})/([0-9]{2})/([0-9]{2})/([0-9]{2})/[^/]*$")
_SLACK = timedelta(hours=1, minutes=1)  # the hour of a folder, and what a client's clock may be ahead (C-4)


@dataclass
class Refusals:
    """Records that could not be used: told of on stderr at once, the first few of them."""

    quiet: bool = False
    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, refusal: Refusal) -> None:
        """Tell of one."""
        self.count += 1
        if self.count <= MAX_REFUSALS_SHOWN:
            self.first.append(str(refusal))
            if not self.quiet:
                print(refusal, file=sys.stderr)

    def end(self) -> Exit:
        """How the command ends, and how many were not shown."""
        if self.count > MAX_REFUSALS_SHOWN and not self.quiet:
            print(f"and {self.count - MAX_REFUSALS_SHOWN} more records cannot be used", file=sys.stderr)
        return Exit.REFUSED if self.count else Exit.OK

    @property
    def fault(self) -> str:
        """For --json: what is wrong, in a sentence."""
        return f"{counted(self.count, 'record')} cannot be used" if self.count else ""

    def as_json(self) -> dict[str, Any]:
        """For --json: how many, and the first of them."""
        return {"refused": self.count, "refusals": self.first} if self.count else {}


@dataclass(frozen=True)
class Chosen:
    """A capture that passed the filters, and what its model said; `label` is the class by name."""

    capture: Capture
    prediction: Prediction | None
    label: str


@dataclass(frozen=True)
class Selection:
    """Filters; an empty one takes everything."""

    models: Sequence[str] = ()
    versions: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None
    classes: Sequence[str] = ()
    reasons: Sequence[str] = ()
    labels: Sequence[str] = ()

    def of(self, source: Source, refusals: Refusals) -> Iterator[Chosen]:
        """The captures that pass.

        Raises:
            InputError: the source cannot be looked at.
        """
        for capture in captures_of(source, refusals.add, self._may_hold):
            if not self._takes(capture):
                continue
            try:
                said = prediction(capture)
            except RecordError as error:
                refusals.add(Refusal(capture.origin, 0, f"capture {capture.capture_id}: {error}"))
                continue
            label = self.label(said)
            if not self.classes or (said is not None and {label, str(said.index)} & set(self.classes)):
                yield Chosen(capture, said, label)

    def label(self, said: Prediction | None) -> str:
        """The name of a class, or its number; empty for none."""
        if said is None:
            return ""
        return self.labels[said.index] if said.index < len(self.labels) else str(said.index)

    def _takes(self, capture: Capture) -> bool:
        return (
            (not self.models or capture.model_name in self.models)
            and (not self.versions or capture.model_version in self.versions)
            and (self.since is None or capture.time >= self.since)
            and (self.until is None or capture.time < self.until)
            and (not self.reasons or any(reason in self.reasons for reason in capture.reasons))
        )

    def _may_hold(self, key: str) -> bool:
        """Whether a record file may hold captures since then: its folder has the hour in which they were accepted."""
        match = _HOUR.search(key)
        if self.since is None or match is None:
            return True
        try:
            hour = datetime(*map(int, match.groups()), tzinfo=UTC)  # type: ignore[arg-type, misc]
        except ValueError:
            return True
        return hour >= self.since - _SLACK if self.since > datetime.min.replace(tzinfo=UTC) + _SLACK else True


def selection_of(options: Namespace) -> Selection:
    """The filters that a command was given.

    Raises:
        InputError: the file of labels cannot be read.
    """
    return Selection(
        models=options.model or (),
        versions=options.version or (),
        since=options.since,
        until=options.until,
        classes=options.classes or (),
        reasons=options.reason or (),
        labels=_labels(options.labels) if options.labels else (),
    )


def _labels(file: str) -> list[str]:
    try:
        with Path(file).open("rb") as opened:
            return opened.read(MAX_LABELS_BYTES).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: {error}") from None
