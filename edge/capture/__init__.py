"""Captures on the device: from the call to the disk, and handed to the uploader.

The way of a CaptureData, step by step; a capture by policy (edge.capture.keeper) joins it at `submit_promised`:

    Servicer.capture_data          rpc.servicer         the request is parsed, and its model found
    CaptureReader                  rpc.capture_request  tensors are checked, and copied out of shared memory
    CaptureService.submit          service              its id is reserved; time and content are checked
        Naming.record              naming               the JSON line of its record, and the names of its large entries
        Buffer.reserve             bounds               room among what is not durable yet
        Spool.reserve_room         spool                room on the disk; the oldest captures make some if that is the policy
        OpenFolder.write_large     batch                large entries, each a file of its own
        Intake.append              intake               the line, at the end of the open record file of its model and hour
    the call is answered: the capture is in the page cache, and survives a kill
    Worker, CaptureService.turn    worker               on a thread of its own: which batches are due
        Spool.seal, batch.seal     spool, batch         fsync and rename: durable. With destination Disk this is SUCCESS
    Uploader, Delivery             cloud                where captures are uploaded: large entries first, then the record
        Spool.done                 spool                SUCCESS; the files are removed

A restart goes on where the last run stopped: `recovery` finishes open batches, `statuses` remembers each capture's state.
"""
