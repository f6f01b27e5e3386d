"""What a restart finds in the open folder, and what it makes of it.

After a kill: whole lines, perhaps one torn line at the end that was never acknowledged, and large entries whose line
was never written. After a power cut any of it may be missing or damaged; the crc in a large entry's name and the JSON
of a line tell. What is whole is finished; the rest is removed.
"""

import logging
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge import durable
from edge.capture import layout, packing
from edge.capture.batch import OpenBatch, OpenLarge, prune_empty
from edge.capture.record import RecordSummary, read_line

log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20


@dataclass
class Recovered:
    """Open batches to finish, and the ids whose captures are damaged beyond that."""

    batches: list[OpenBatch] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def recover(open_root: Path, root: Path, *, monotonic: float) -> Recovered:
    """Take stock of the open folder; `root` is where batches are sealed to.

    Raises:
        OSError: the folder cannot be read or repaired; trying again is safe.
    """
    found = Recovered()
    records, large = [], {}
    for path in _files(open_root):
        relative = path.relative_to(open_root).as_posix()
        parsed = layout.parse_open_raw_name(path.name)
        if parsed is not None:
            large[f"{relative.rpartition('/')[0]}/{parsed.name}"] = path
        elif path.name.endswith(layout.OPEN) and layout.is_record_name(path.name.removesuffix(layout.OPEN)):
            records.append((path, relative.removesuffix(layout.OPEN)))
        elif path.name.endswith(durable.TEMPORARY):
            path.unlink(missing_ok=True)
    for path, key in sorted(records, key=lambda item: item[0].name):
        batch = load_batch(path, key, root, large, found.lost, monotonic=monotonic)
        if batch is not None:
            found.batches.append(batch)
    used = {entry.path for batch in found.batches for entry in batch.large}
    orphans = [path for path in large.values() if path not in used]
    for path in orphans:
        path.unlink(missing_ok=True)
    prune_empty(open_root)
    if found.batches:
        count = sum(len(batch.ids) for batch in found.batches)
        log.info("found %d captures that an earlier run accepted and did not finish", count)
    if orphans:
        log.info("removed %d files of captures that were never acknowledged", len(orphans))
    return found


def load_batch(
    path: Path, key: str, root: Path, large: dict[str, Path], lost: list[str], *, monotonic: float
) -> OpenBatch | None:
    """Read an open record file again, cut off or out what is not whole; None if nothing is left.

    `large` finds open large entries by key. Ids of records that lack a large entry are added to `lost`.

    Raises:
        OSError: the file is as it was.
    """
    batch = OpenBatch(key, path, None, layout.accepted_at(path.name.removesuffix(layout.OPEN)), monotonic)
    good: list[tuple[int, int]] = []  # offset and length of whole lines
    end = 0
    damaged: list[bool] = []
    packed = packing.is_packed(path)
    for line in packing.lines(path, lambda: damaged.append(True)):
        start, end = end, end + len(line)
        summary = read_line(line, key)
        if summary is None:
            continue
        entries = _large_entries(summary, root, large)
        if entries is None:
            lost.append(summary.capture_id)
            continue
        good.append((start, len(line)))
        batch.ids.append(summary.capture_id)
        batch.large += entries
    batch.size = sum(length for _, length in good)
    whole = batch.size == end and not damaged
    if batch.size != end:
        log.warning("%s: dropped %d bytes of an incomplete capture", path.name, end - batch.size)
    if not good:
        path.unlink(missing_ok=True)
        return None
    if packed and whole:
        batch.packed, batch.size = True, path.stat().st_size
    elif packed:
        durable.write_file(path, b"".join(_ranges(packing.lines(path), good)))
    elif not whole:
        _keep(path, good, batch.size)
    return batch


def _ranges(lines: Iterator[bytes], good: list[tuple[int, int]]) -> Iterator[bytes]:
    """Those of the lines that begin where `good` says."""
    starts, end = {start for start, _ in good}, 0
    for line in lines:
        if end in starts:
            yield line
        end += len(line)


def reload_batch(batch: OpenBatch, root: Path) -> OpenBatch:
    """What is whole of a closed batch of this process; large entries that are of no use any more are removed.

    Raises:
        OSError: it cannot be read or repaired now.
    """
    large = {e.key: e.path for e in batch.large if e.path != root / e.key and e.path.exists()}
    try:
        rest = load_batch(batch.path, batch.key, root, large, [], monotonic=batch.opened_monotonic)
    except FileNotFoundError:
        rest = None
    rest = rest or OpenBatch(batch.key, batch.path, None, batch.opened, batch.opened_monotonic)
    for key in large.keys() - {entry.key for entry in rest.large}:
        large[key].unlink(missing_ok=True)
    return rest


def _keep(path: Path, good: list[tuple[int, int]], size: int) -> None:
    """Leave only the given ranges of a file; they are in order."""
    if good[-1][0] + good[-1][1] == size:
        os.truncate(path, size)
    else:
        with durable.reader(path) as file:
            data = b"".join(os.pread(file.fileno(), length, offset) for offset, length in good)
        durable.write_file(path, data)


def _large_entries(summary: RecordSummary, root: Path, large: dict[str, Path]) -> list[OpenLarge] | None:
    """The large entries of a record, open or in place already; None if one is missing or damaged."""
    entries = []
    for key in summary.large:
        path = large.get(key, root / key)
        if not durable.is_regular(path) or (key in large and not _whole(path)):
            return None
        entries.append(OpenLarge(path, key, path.stat().st_size))
    return entries


def _whole(path: Path) -> bool:
    """Whether an open large entry is what its name says."""
    parsed = layout.parse_open_raw_name(path.name)
    if parsed is None or path.stat().st_size != parsed.size:
        return False
    crc = 0
    with durable.reader(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return crc == parsed.crc


def _files(folder: Path) -> Iterator[Path]:
    """All regular files below a folder; links are not followed."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(folder / entry.name)
        elif entry.is_file(follow_symlinks=False):
            yield folder / entry.name
