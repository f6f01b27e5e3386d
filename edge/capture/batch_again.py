"""Reading a batch again that could not be sealed: captures that were damaged or removed meanwhile become FAILURE."""

import logging

from edge.capture.batch import OpenBatch
from edge.capture.bounds import Buffer
from edge.capture.recovery import reload_batch
from edge.capture.spool import Spool
from edge.text import counted

log = logging.getLogger(__name__)


def reload(batch: OpenBatch, spool: Spool, buffer: Buffer) -> None:
    """Reduce the batch to what is still whole on the disk, and release the room of the rest.

    Raises:
        OSError: the batch is as it was.
    """
    batch.close()
    if not batch.path.exists():
        if (spool.root / batch.key).exists():
            return  # it is in place, but its folder is not synced
        if batch.placed and spool.uploads:
            return  # it was, and the uploader has settled it or dropped it
    batch.placed = False
    had, size, entries = batch.ids, batch.total_bytes, batch.entry_count
    rest = reload_batch(batch, spool.root)
    batch.ids, batch.size, batch.large, batch.broken = rest.ids, rest.size, rest.large, False
    batch.packed = rest.packed
    lost = [capture_id for capture_id in had if capture_id not in rest.ids]
    if lost:
        log.error("%s: damaged or removed before it was durable; %s failed", batch.key, counted(len(lost), "capture"))
        spool.fail(batch.key, lost)
    spool.release_room(size - batch.total_bytes, entries - batch.entry_count)
    buffer.release(len(lost), size - batch.total_bytes)
