"""Summaries: what the agent counted of all calls in an hour, without the data of any (docs/spec/capture.md)."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edge.client.captures.reading import Refused, lines_of
from edge.client.captures.records import RecordError, finite, moment, number, parse_object, word
from edge.client.captures.sources import Source, is_summary_name

log = logging.getLogger(__name__)

MAX_CLASSES = 10_000
MAX_TENSORS = 64


@dataclass(frozen=True)
class Values:
    """The elements of an input or output; None where nothing is known."""

    name: str
    mean: float | None
    deviation: float | None  # standard
    not_finite: int


@dataclass(frozen=True)
class Summary:
    """Calls to one model from a time to another. `calls` by gRPC status, `classes` by number, of the first output that has
    any; `latency` has mean, p50, p90 and p99 in milliseconds. `facts` is the whole of it.
    """

    model_name: str
    model_version: str
    device: str
    begins: datetime
    ends: datetime
    calls: dict[str, int]
    latency: dict[str, float]
    classes: dict[int, int]
    inputs: tuple[Values, ...]
    outputs: tuple[Values, ...]
    facts: dict[str, Any]


def summaries_of(source: Source, refused: Refused) -> Iterator[Summary]:
    """Every summary of a source.

    Raises:
        InputError: the source cannot be looked at.
    """
    for key in source.files():
        if is_summary_name(key.rpartition("/")[2]):
            yield from lines_of(source, key, refused, _parse)


def _parse(line: bytes) -> Summary:
    event = parse_object(line)
    metadata, facts = event.get("eventMetadata"), event.get("summary")
    if not isinstance(metadata, dict) or not isinstance(facts, dict):
        raise RecordError("expected an object with eventMetadata and summary")
    if facts.get("summaryVersion") != 1:
        raise RecordError("summaryVersion: expected 1; a later agent wrote it")
    return Summary(
        model_name=word(metadata, "modelName"),
        model_version=word(metadata, "modelVersion"),
        device=word(metadata, "deviceId"),
        begins=moment(facts, "from"),
        ends=moment(facts, "to"),
        calls={name: int(count) for name, count in _numbers(facts.get("calls")).items()},
        latency=_numbers(facts.get("latencyMilliseconds")),
        classes=_classes(facts.get("outputs")),
        inputs=_values(facts.get("inputs")),
        outputs=_values(facts.get("outputs")),
        facts=facts,
    )


def _values(some: Any) -> tuple[Values, ...]:
    found = [one for one in some[:MAX_TENSORS] if isinstance(one, dict)] if isinstance(some, list) else []
    return tuple(
        Values(
            word(one, "name"),
            finite(one.get("mean")),
            number(one.get("standardDeviation")),
            int(number(one.get("nonFinite")) or 0),
        )
        for one in found
    )


def _numbers(value: Any) -> dict[str, float]:
    fields = value.items() if isinstance(value, dict) else ()
    found = ((name[:64], number(one)) for name, one in list(fields)[:MAX_CLASSES])
    return {name: one for name, one in found if one is not None}


def _classes(outputs: Any) -> dict[int, int]:
    for one in outputs if isinstance(outputs, list) else ():
        if isinstance(one, dict) and (classes := _numbers(one.get("classes"))):
            return {int(name): int(count) for name, count in classes.items() if name.isascii() and name.isdigit()}
    return {}
