"""Reading clients' System V segments (P-3, P-11)."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.clock import SystemClock
from edge.errors import SharedMemoryError
from edge.shm import sysv
from edge.shm.sysv import MAX_KEPT, SegmentReader
from edge.shm.unwritten import MAX_UNWRITTEN_BYTES
from tests.fakes.shm import SetClock
from tests.system.segments import Segment

MIB = 1 << 20


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def reader(clock: SetClock) -> Iterator[SegmentReader]:
    made = SegmentReader(clock)
    yield made
    made.close()


def attached(segment_id: int) -> int:
    """How many attachments the kernel counts."""
    rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    return next((int(row[6]) for row in rows if int(row[1]) == segment_id), 0)


def read(reader: SegmentReader, segment: Segment, offset: int = 0, size: int = 4) -> bytes:
    with reader.view(segment.id, offset, size) as view:
        return bytes(view)


def test_the_view_cannot_be_written(reader: SegmentReader) -> None:  # [P-11]
    with Segment(4096) as segment:
        segment.set_mode(0o400)
        with reader.view(segment.id, 0, 4) as view:
            assert view.readonly
            with pytest.raises(TypeError):
                view[0] = 1


@pytest.mark.parametrize("mode", [0o600, 0o420, 0o402, 0o500, 0o410, 0o401, 0o777])
def test_a_segment_that_somebody_may_change_is_refused(reader: SegmentReader, mode: int) -> None:  # [P-3]
    with Segment(4096) as segment:
        segment.set_mode(mode)
        with pytest.raises(SharedMemoryError, match=f"mode is {mode:04o}"):
            read(reader, segment)


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o444])
def test_modes_that_are_fine(reader: SegmentReader, mode: int) -> None:  # [P-3]
    with Segment(4096) as segment:
        segment.set_mode(mode)
        read(reader, segment)
        reader.close()


def test_the_mode_is_checked_at_every_use(reader: SegmentReader) -> None:  # [P-3]
    with Segment(4096) as segment:
        segment.set_mode(0o400)
        read(reader, segment)
        segment.set_mode(0o600)
        with pytest.raises(SharedMemoryError, match="0600"):
            read(reader, segment)
        reader.close()


def test_a_mode_that_became_another_good_one(reader: SegmentReader) -> None:  # [P-3]
    with Segment(4096) as segment:
        for mode in (0o400, 0o440, 0o440, 0o400):
            segment.write(mode.to_bytes(4, "little")).set_mode(mode)
            assert read(reader, segment) == mode.to_bytes(4, "little")
        assert reader.kept == 1
        reader.close()


def test_a_range_outside_of_a_kept_segment_is_refused(reader: SegmentReader) -> None:  # [P-3]
    with Segment(4096) as segment:
        segment.set_mode(0o400)
        read(reader, segment, 4092)
        with pytest.raises(SharedMemoryError, match="offset 4093 and size 4 reach past its end"):
            read(reader, segment, 4093)
        assert attached(segment.id) == 2
        reader.close()


def test_a_segment_that_is_there_for_the_agents_sake_alone_is_gone(reader: SegmentReader) -> None:  # [P-11]
    with Segment(4096) as segment:
        segment.write(b"abcd").set_mode(0o400)
        read(reader, segment)
        segment.remove()
        with pytest.raises(SharedMemoryError, match="no such segment"):
            read(reader, segment)
        assert (reader.kept, attached(segment.id)) == (0, 0)


def test_a_segment_that_is_removed_ahead_goes_with_its_client(reader: SegmentReader) -> None:  # [P-11]
    """Clients mark a segment as removed so that it goes when they end, and use it until then."""
    with Segment(4096) as segment:
        segment.write(b"abcd").set_mode(0o400)
        read(reader, segment)
        segment.mark_removed()
        for _ in range(2):
            assert read(reader, segment) == b"abcd"
            assert (reader.kept, attached(segment.id)) == (0, 1)


def test_a_segment_that_changes_during_the_attach_is_let_go(
    reader: SegmentReader, monkeypatch: pytest.MonkeyPatch
) -> None:  # [P-3]
    with Segment(4096) as segment:
        segment.set_mode(0o400)
        real = sysv.segment_status

        def closed_meanwhile(segment_id: int) -> sysv.SegmentStatus:
            monkeypatch.setattr(sysv, "segment_status", lambda segment_id: refuse())
            return real(segment_id)

        def refuse() -> sysv.SegmentStatus:
            raise SharedMemoryError("not readable by the agent")

        monkeypatch.setattr(sysv, "segment_status", closed_meanwhile)
        with pytest.raises(SharedMemoryError, match="not readable"):
            read(reader, segment)
        assert (reader.kept, attached(segment.id)) == (0, 1)


def test_what_was_never_written_is_bounded(reader: SegmentReader) -> None:  # [B-6]
    with Segment(MAX_UNWRITTEN_BYTES + MIB) as large, Segment(MIB) as small:
        for segment in (large, small):
            segment.write(bytes(4096)).set_mode(0o400)
        with pytest.raises(SharedMemoryError, match=r"never written.*write the whole segment"):
            read(reader, large, 0, large.size)
        for start in range(0, MAX_UNWRITTEN_BYTES, MIB):
            read(reader, large, start, MIB)
        with pytest.raises(SharedMemoryError, match="never written"):
            read(reader, small, 0, MIB)
        small.write(b"x" * MIB)
        read(reader, small, 0, MIB)  # it has nothing to make any more
        reader.close()
    with Segment(MIB) as later:
        later.set_mode(0o400)
        read(reader, later, 0, MIB)  # the large one is gone, and what it took
        reader.close()


def test_what_a_client_writes_as_it_goes_is_not_counted(reader: SegmentReader) -> None:  # [B-6]
    with Segment(2 * MAX_UNWRITTEN_BYTES) as ring:
        for start in range(0, ring.size, 8 * MIB):
            ring.set_mode(0o600).write(b"x" * 8 * MIB, start).set_mode(0o400)
            for _ in range(2):
                read(reader, ring, start, 8 * MIB)
        reader.close()


@pytest.mark.parametrize(("offset", "size"), [(0, 4097), (4096, 1), (2**64 - 1, 1), (1, 2**64 - 1), (2**63, 2**63)])
def test_ranges_outside_are_refused(reader: SegmentReader, offset: int, size: int) -> None:  # [P-3]
    with Segment(4096) as segment:
        segment.set_mode(0o400)
        with pytest.raises(SharedMemoryError, match="4096 bytes"):
            read(reader, segment, offset, size)


@pytest.mark.parametrize("segment_id", [2**31 - 1, 2**31, 2**64 - 1])
def test_no_such_segment(reader: SegmentReader, segment_id: int) -> None:  # [P-3]
    with pytest.raises(SharedMemoryError, match="no such segment"), reader.view(segment_id, 0, 1):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to be refused as another user")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # the child only attaches and exits
def test_a_segment_of_another_user_is_refused(reader: SegmentReader) -> None:  # [P-3]
    with Segment(4096) as segment:
        segment.set_mode(0o400)
        child = os.fork()
        if child == 0:
            os.setgid(65534)
            os.setuid(65534)
            try:
                read(SegmentReader(SystemClock()), segment)
            except SharedMemoryError as error:
                os._exit(0 if "not readable by the agent" in str(error) else 1)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0


def test_a_removed_segment_is_let_go_by_the_next_sweep(reader: SegmentReader) -> None:  # [P-11]
    with Segment(4096) as segment:
        segment.set_mode(0o400)
        read(reader, segment)
        segment.remove()
        assert attached(segment.id) == 1
        reader.sweep()
        assert attached(segment.id) == 0


def test_an_id_never_comes_to_mean_another_segment(reader: SegmentReader) -> None:  # [P-11]
    for round_number in range(50):
        with Segment(4096) as segment:
            segment.write(round_number.to_bytes(4, "little")).set_mode(0o400)
            assert read(reader, segment) == round_number.to_bytes(4, "little")
    reader.sweep()
    assert reader.kept == 0


def test_a_segment_that_was_replaced_by_a_smaller_one_is_refused(
    reader: SegmentReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Segment(4096) as segment:
        segment.set_mode(0o400)
        real = sysv.segment_status(segment.id)
        answers = iter([real._replace(size=8192), real])
        monkeypatch.setattr(sysv, "segment_status", lambda segment_id: next(answers))
        with pytest.raises(SharedMemoryError, match="replaced"):
            read(reader, segment, 4096, 4)
        assert attached(segment.id) == 1


def test_the_number_kept_is_bounded(reader: SegmentReader) -> None:
    segments = [Segment(4096) for _ in range(MAX_KEPT + 3)]
    for segment in segments:
        read(reader, segment.set_mode(0o400))
    assert reader.kept == MAX_KEPT
    assert attached(segments[-1].id) == 1
    for segment in segments:
        segment.remove()
    reader.sweep()


def test_where_no_zeros_can_follow_a_segment_is_not_lent(
    reader: SegmentReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysv, "ATTACH_ATTEMPTS", 0)
    with Segment(4096) as segment:
        segment.write(b"abcd").set_mode(0o400)
        attachment = reader.take(segment.id, 0, 4)
        assert attachment.data(0, 4) == b"abcd"
        reader.give_back(attachment)
        assert read(reader, segment) == b"abcd"
        reader.close()
        assert attached(segment.id) == 1


def test_a_segment_that_became_larger_replaces_no_memory(reader: SegmentReader) -> None:
    with Segment(1 << 20) as segment:
        segment.set_mode(0o400)
        before = mappings()
        assert sysv._attach_before_zeros(segment.id, 4096) is None
        assert (mappings(), attached(segment.id)) == (before, 1)


def mappings() -> int:
    """How many mappings this process has."""
    return len(Path("/proc/self/maps").read_text().splitlines())
