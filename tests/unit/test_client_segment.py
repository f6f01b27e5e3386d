"""The client's segments: 0600 while written, nobody's to write afterwards, gone at the end. [P-3] [P-11]"""

import os
from pathlib import Path

import numpy as np
import pytest

from edge.client.segment import Segment
from edge.clock import SystemClock
from edge.errors import SharedMemoryError
from edge.shm.sysv import SegmentReader


def listed(segment_id: int) -> dict[str, int] | None:
    head, *rows = Path("/proc/sysvipc/shm").read_text().splitlines()
    for row in rows:
        values = dict(zip(head.split(), row.split(), strict=True))
        if int(values["shmid"]) == segment_id:
            return {"mode": int(values["perms"], 8) & 0o777, "gid": int(values["gid"])}
    return None


def test_mode_while_written_and_after() -> None:
    with Segment(16) as segment:
        assert listed(segment.segment_id) == {"mode": 0o600, "gid": os.getegid()}
        segment.write(b"x" * 16)
        segment.make_read_only()
        assert listed(segment.segment_id) == {"mode": 0o400, "gid": os.getegid()}
        number = segment.segment_id
    assert listed(number) is None


def test_another_users_agent_gets_to_read_it_through_its_group() -> None:
    with Segment(1) as segment:
        segment.make_read_only((os.geteuid() + 1, 12345))
        assert listed(segment.segment_id) == {"mode": 0o440, "gid": 12345}


def test_the_agents_reader_takes_it() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    reader = SegmentReader(SystemClock())
    with Segment(array.nbytes) as segment:
        segment.write(array.data)
        with pytest.raises(SharedMemoryError), reader.view(segment.segment_id, 0, array.nbytes):
            pass
        segment.make_read_only((0, 0))
        with reader.view(segment.segment_id, 0, array.nbytes) as view:
            assert bytes(view) == array.tobytes()
    reader.close()


def test_more_data_than_room() -> None:
    with Segment(2) as segment, pytest.raises(ValueError, match="3 bytes"):
        segment.write(b"abc")


def test_write_after_close() -> None:
    segment = Segment(2)
    segment.close()
    segment.close()
    with pytest.raises(ValueError, match="segment of 0"):
        segment.write(b"a")


def test_too_large_names_the_limits() -> None:
    with pytest.raises(OSError, match="shm"):
        Segment(1 << 62)


def test_empty_tensor_has_a_segment_too() -> None:
    with Segment(0) as segment:
        segment.write(b"")
        segment.make_read_only()
        assert listed(segment.segment_id) is not None
