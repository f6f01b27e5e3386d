"""Predict with tensors in System V shared memory: which segments are taken, and that they are let go (P-3, P-11)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.system.harness import Client, array_of, eventually
from tests.system.segments import Segment, by_segment, segments_there

PackageOf = Callable[[str], Path]
Refused = Callable[..., Any]


def test_two_tensors_in_one_segment(client: Client, package_of: PackageOf) -> None:  # [P-11]
    client.load(package_of("two_by_two"), "two")
    data = np.arange(12, dtype=np.float32)
    with Segment(4096) as segment:
        segment.write(data.tobytes()).set_mode(0o400)
        answer = client.predict("two", [by_segment(segment), by_segment(segment, offset=24)])
        assert np.array_equal(array_of(answer[0]).ravel(), data[:6] + data[6:])


def test_a_refused_call_keeps_no_segment(client: Client, package_of: PackageOf, refused: Refused) -> None:  # [P-11]
    """Of a model that is known to be quick as well, and where one of two segments was attached already."""
    client.load(package_of("two_by_two"), "two")
    values = np.arange(6, dtype=np.float32).tobytes()
    with Segment(64) as first, Segment(64) as second:
        first.write(values).set_mode(0o400)
        second.write(values)
        with refused("INVALID_ARGUMENT", f"{second.id}", "mode is 0600"):
            client.predict("two", [by_segment(first), by_segment(second)])
        second.set_mode(0o400)
        client.predict("two", [by_segment(first), by_segment(second)])
        second.set_mode(0o600)
        with refused("INVALID_ARGUMENT", f"{second.id}", "mode is 0600"):
            client.predict("two", [by_segment(first), by_segment(second)])
    eventually(lambda: not {first.id, second.id} & segments_there(), what="nobody has them attached any more")


def test_segments_come_and_go(client: Client, package_of: PackageOf) -> None:  # [P-11]
    client.load(package_of("add_one"), "add")
    for number in range(20):
        with Segment(64) as segment:
            segment.write(np.full(4, number, np.float32).tobytes()).set_mode(0o400)
            (y,) = client.predict("add", [by_segment(segment)])
            assert array_of(y).tolist() == [[number + 1] * 4]


@pytest.mark.parametrize("mode", [0o600, 0o420, 0o500, 0o777])
def test_a_segment_that_can_be_changed(
    client: Client, package_of: PackageOf, refused: Refused, mode: int
) -> None:  # [P-3]
    client.load(package_of("add_one"), "add")
    with Segment(64) as segment:
        segment.set_mode(mode)
        with refused("INVALID_ARGUMENT", f"{segment.id}", f"mode is {mode:04o}", "0400"):
            client.predict("add", [by_segment(segment)])


def test_segments_that_cannot_be_used(client: Client, package_of: PackageOf, refused: Refused) -> None:  # [P-3]
    client.load(package_of("add_one"), "add")
    with Segment(64) as segment:
        segment.set_mode(0o400)
        with refused("INVALID_ARGUMENT", "64 bytes"):
            client.predict("add", [by_segment(segment, offset=49)])
        with refused("INVALID_ARGUMENT", "64 bytes"):
            client.predict("add", [by_segment(segment, offset=2**64 - 8)])
        with refused("INVALID_ARGUMENT", "got 8 bytes, expected 16"):
            client.predict("add", [by_segment(segment, size=8)])
        with refused("INVALID_ARGUMENT", "got 18446744073709551615 bytes, expected 16"):
            client.predict("add", [by_segment(segment, size=2**64 - 1)])
    with refused("INVALID_ARGUMENT", "no such segment"):
        client.predict("add", [by_segment(segment)])
