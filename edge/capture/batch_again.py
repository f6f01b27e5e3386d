"""A batch that could not be sealed, read again: what the disk damaged or somebody removed is FAILURE, the rest stays."""

import logging

from edge.capture.batch import OpenBatch
from edge.capture.bounds import Buffer
from edge.capture.recovery import reload_batch
from edge.capture.spool import Spool
from edge.text import counted

log = logging.getLogger(__name__)


def reload(batch: OpenBatch, spool: Spool, buffer: Buffer) -> None:
    """Have the batch be what is left of it, and give back what is not.

    Raises:
        OSError: the batch is as it was.
    """
    batch.close()
    if not batch.path.exists() and (spool.root / batch.key).exists():
        return  # it is in place, but its folder is not synced
    had, size, entries = batch.ids, batch.total_bytes, batch.entry_count
    rest = reload_batch(batch, spool.root)
    batch.ids, batch.size, batch.large, batch.broken = rest.ids, rest.size, rest.large, False
    batch.packed = rest.packed
    lost = [capture_id for capture_id in had if capture_id not in rest.ids]
    if lost:
        log.error("%s: damaged or removed before it was durable; %s failed", batch.key, counted(len(lost), "capture"))
        spool.fail(batch.key, lost)
    spool.give(size - batch.total_bytes, entries - batch.entry_count)
    buffer.give(len(lost), size - batch.total_bytes)
