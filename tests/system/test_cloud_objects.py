"""A store that refuses one object for good does not keep the others; a store that refuses everything empties nothing."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.capture import layout
from edge.capture.statuses import CaptureState
from tests.fakes import captures, s3_stub
from tests.fakes.cloud import Pipeline, assert_all_stored, pipeline, s3_store, submit_some
from tests.fakes.s3_stub import S3Stub, refusing

FOR_EVER = 1_000_000
DENIED = refusing(403, "AccessDenied")


@pytest.fixture
def stub() -> Iterator[S3Stub]:
    made = S3Stub()
    made.start()
    yield made
    made.close()


def keep_capturing(made: Pipeline, start: int, until: CaptureState, capture_id: str) -> list[str]:
    """Capture more until a capture has reached a state; returns the ids of the others."""
    others: list[str] = []

    def step() -> bool:
        number = start + len(others)
        others.extend(submit_some(made, 1, start=number))
        made.wait_states(others)
        return made.service.status(capture_id) is until

    made.wait(step, f"{capture_id} is {until.name}")
    return others


def raw_key(made: Pipeline, capture_id: str) -> str:
    """The key of a capture's large tensor, in the spool."""
    path = next(p for p in made.spool.rglob("*.bin") if p.read_bytes().startswith(capture_id.encode() + b"-"))
    return path.relative_to(made.spool).as_posix()


def seal_one_batch(made: Pipeline, stub: S3Stub, ids: list[str]) -> None:
    """Capture large tensors into one batch, with the store held up at its first object."""
    stub.delay.clear()
    for capture_id in ids:
        made.service.submit(captures.large(capture_id))
    made.wait(stub.arrived.is_set, "the first object is on its way")


def test_compressed_records(stub: S3Stub, tmp_path: Path) -> None:
    """[R-18] Objects that are gzip files, by name, type and bytes, and say of no encoding that a client would undo."""
    stub.inject(refusing(503, "SlowDown"), 2)
    with pipeline(tmp_path, s3_store(stub.url), compress=True) as made:
        ids = submit_some(made)
        made.wait_states(ids)
        made.wait(lambda: not made.waiting_files(), "the spool is empty")
        made.wait(lambda: made.service.snapshot().pending == 0, "nothing is pending")
        assert made.service.snapshot().pending_bytes == 0
    assert_all_stored(stub, ids)
    kinds = {key.split(".", 1)[1]: stored.content_type for key, stored in stub.objects.items()}
    assert kinds == {"bin": "application/octet-stream", "jsonl.gz": "application/gzip"}


@pytest.mark.parametrize("compress", [False, True])
def test_one_object_is_denied(stub: S3Stub, tmp_path: Path, compress: bool) -> None:
    """[G-4] [R-18] Its capture fails; the rest of its batch and all others are stored, in records that name no missing object."""
    with pipeline(tmp_path, s3_store(stub.url), push_period=2.0, batch_captures=3, compress=compress) as made:
        seal_one_batch(made, stub, ["a", "b", "c"])
        stub.inject(DENIED, FOR_EVER, match=raw_key(made, "b"))
        stub.delay.set()
        others = keep_capturing(made, 100, CaptureState.FAILURE, "b")
        made.wait_states(["a", "c"])
        snapshot = made.service.snapshot()
        assert "given up" in snapshot.last_error
        assert "AccessDenied" in snapshot.last_error
        assert snapshot.failed == 1
        made.wait(lambda: not made.waiting_files(), "the spool is empty")
        made.wait(lambda: made.service.snapshot().pending == 0, "nothing is pending")
        results = made.uploader.results()
        assert results["given_up"] == 1 and results["refused"] > 0 and results["stored"] == len(stub.objects)
    assert_all_stored(stub, ["a", "c", *others])


def test_one_object_is_too_large(stub: S3Stub, tmp_path: Path) -> None:
    """[G-4] There is nothing to wait for."""
    stub.max_bytes = 100_000
    with pipeline(tmp_path, s3_store(stub.url), push_period=2.0, batch_captures=3) as made:
        made.service.submit(captures.large("a"))
        made.service.submit(captures.large("huge", size=200_000))
        made.service.submit(captures.large("c"))
        made.wait_states(["a", "c"])
        made.wait_states(["huge"], CaptureState.FAILURE)
        assert "EntityTooLarge" in made.error()
    assert_all_stored(stub, ["a", "c"])
    assert stub.refused["EntityTooLarge"] == 1


def test_a_batch_of_one_that_fails_is_kept(stub: S3Stub, tmp_path: Path) -> None:
    """Given up is not deleted: the files stay while there is room."""
    stub.max_bytes = 100_000
    with pipeline(tmp_path, s3_store(stub.url)) as made:
        made.service.submit(captures.large("huge", size=200_000))
        made.wait_states(["huge"], CaptureState.FAILURE)
        made.wait(lambda: any(p.name.endswith(layout.FAILED) for p in made.waiting_files()), "the files are kept")
        made.wait(lambda: made.service.snapshot().pending == 0, "nothing waits")
    assert not stub.objects


def test_a_record_is_denied(stub: S3Stub, tmp_path: Path) -> None:
    """[G-4]"""
    with pipeline(tmp_path, s3_store(stub.url)) as made:
        stub.delay.clear()
        made.service.submit(captures.small("a"))
        made.wait(stub.arrived.is_set, "the record is on its way")
        key = next(made.spool.rglob("*.jsonl")).relative_to(made.spool).as_posix()
        stub.inject(DENIED, FOR_EVER, match=key)
        stub.delay.set()
        made.wait_states(submit_some(made, start=100))
        others = keep_capturing(made, 200, CaptureState.FAILURE, "a")
    assert_all_stored(stub, [*(f"c-{i}" for i in range(100, 107)), *others])


def test_everything_is_denied(stub: S3Stub, tmp_path: Path) -> None:
    """A wrong policy fails no capture, however long it lasts; once it is mended all arrive."""
    stub.inject(DENIED, FOR_EVER)
    with pipeline(tmp_path, s3_store(stub.url)) as made:
        ids = submit_some(made, 40)
        made.wait(lambda: len(made.clock.waits) > 40, "it was tried for long")
        assert "AccessDenied" in made.error()
        assert all(made.service.status(i) is CaptureState.IN_PROGRESS for i in ids)
        stub.heal()
        made.wait_states(ids)
        made.wait(lambda: made.error() == "", "the error is over")
    assert_all_stored(stub, ids)


def test_a_model_is_denied(stub: S3Stub, tmp_path: Path) -> None:
    """Older captures of a model whose folder may not be written do not hold up another model's."""
    stub.inject(DENIED, FOR_EVER, match="/denied/")
    with pipeline(tmp_path, s3_store(stub.url), batch_captures=1) as made:
        bad = [f"bad-{i}" for i in range(12)]
        for capture_id in bad:
            made.service.submit(captures.small(capture_id, model="denied"))
        made.wait(lambda: "AccessDenied" in made.error(), "the error is told")
        good = submit_some(made, 5)
        made.wait_states(good)
        stub.heal()
        made.wait_states([i for i in bad if made.service.status(i) is not CaptureState.FAILURE])
    assert set(good) <= set(stub.records())
    assert stub.complaints == []


def test_a_store_that_fails_on_one_object_alone(stub: S3Stub, tmp_path: Path) -> None:
    """The others go on; the one is tried for ever, for that is no refusal."""
    with pipeline(tmp_path, s3_store(stub.url)) as made:
        stub.delay.clear()
        made.service.submit(captures.small("a"))
        made.wait(stub.arrived.is_set, "the record is on its way")
        key = next(made.spool.rglob("*.jsonl")).relative_to(made.spool).as_posix()
        stub.inject(refusing(500, "InternalError"), FOR_EVER, match=key)
        stub.delay.set()
        others = submit_some(made, 20)
        made.wait_states(others)
        assert made.service.status("a") is CaptureState.IN_PROGRESS
        stub.heal()
        made.wait_states(["a"])
    assert_all_stored(stub, ["a", *others])


def test_files_removed_from_outside(stub: S3Stub, tmp_path: Path) -> None:
    """[G-4] Captures whose tensor is gone fail; the others of the batch are stored."""
    with pipeline(tmp_path, s3_store(stub.url), push_period=2.0, batch_captures=3) as made:
        stub.inject(refusing(503, "SlowDown"), 5)
        seal_one_batch(made, stub, ["a", "b", "c"])
        (made.spool / raw_key(made, "b")).unlink()
        stub.delay.set()
        made.wait_states(["b"], CaptureState.FAILURE)
        made.wait_states(["a", "c"])
    assert_all_stored(stub, ["a", "c"])


@pytest.mark.parametrize("leads_out", [True, False], ids=["link", "pipe"])
def test_what_is_no_file_is_not_followed(stub: S3Stub, tmp_path: Path, leads_out: bool) -> None:
    """[G-4] [R-5] A link would upload another's file, a pipe hold everything up: neither is the capture's any more."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"b-" + b"s" * 4998)
    with pipeline(tmp_path / "a", s3_store(stub.url), push_period=2.0, batch_captures=3) as made:
        stub.inject(refusing(503, "SlowDown"), 5)
        seal_one_batch(made, stub, ["a", "b", "c"])
        large = made.spool / raw_key(made, "b")
        large.unlink()
        if leads_out:
            large.symlink_to(secret)
        else:
            os.mkfifo(large)
        stub.delay.set()
        made.wait_states(["b"], CaptureState.FAILURE)
        made.wait_states(["a", "c"])
    assert_all_stored(stub, ["a", "c"])


@pytest.mark.parametrize("connections", [1, 4])
def test_oldest_first(stub: S3Stub, tmp_path: Path, connections: int) -> None:
    """[G-2] What waited longest goes first, and all of it before anything later where there is one connection."""
    stub.close()
    with pipeline(tmp_path, s3_store(stub.url), batch_captures=1, connections=connections) as made:
        ids = []
        for i in range(12):
            ids += submit_some(made, 1, start=i)
            made.wait(lambda n=i: len(list(made.spool.rglob("*.jsonl"))) == n + 1, "it is sealed")  # type: ignore[misc]
        stub.start()
        made.wait_states(ids)
    names = [key.rpartition("/")[2] for key in stub.order if key.endswith(".jsonl")]
    assert names == sorted(names) if connections == 1 else names[0] in sorted(names)[:4]
    assert len(names) == 12


def test_disk_with_periodic_upload(stub: S3Stub, tmp_path: Path) -> None:
    """[G-3] SUCCESS once on the disk; uploaded afterwards, and gone from the disk once it is."""
    stub.inject(s3_stub.reset, 2)
    store = s3_store(stub.url)
    with pipeline(tmp_path, store, on_disk=True, bucket=s3_stub.BUCKET, period=60.0, folder_prefix="p/q") as made:
        ids = submit_some(made)
        made.wait_states(ids)
        made.wait(lambda: len(stub.records()) == len(ids) and not made.waiting_files(), "all is uploaded")
        assert 60.0 in made.clock.waits
    assert_all_stored(stub, ids)


def test_what_is_stored_of_a_batch_is_not_sent_again(stub: S3Stub, tmp_path: Path) -> None:
    """A network that comes and goes makes progress within a batch."""
    ids = [f"t-{i}" for i in range(8)]
    with pipeline(tmp_path, s3_store(stub.url), push_period=2.0, batch_captures=8) as made:
        seal_one_batch(made, stub, ids)
        for i in (2, 5):
            stub.inject(refusing(503, "SlowDown", headers={"Retry-After": "600"}), 1, match=raw_key(made, ids[i]))
        stub.delay.set()
        made.wait_states(ids)
    assert_all_stored(stub, ids)
    assert sorted(stub.puts.values()) == [1] * 7 + [2, 2]


def test_stop_does_not_wait_for_the_network(stub: S3Stub, tmp_path: Path) -> None:
    """[X-4] What is under way ends at once; the next start sends it."""
    store = s3_store(stub.url)
    with pipeline(tmp_path, store) as made:
        stub.delay.clear()
        ids = submit_some(made)
        made.wait(stub.arrived.is_set, "an object is on its way")
    stub.delay.set()
    with pipeline(tmp_path, s3_store(stub.url)) as again:
        again.wait_states(ids)
    assert_all_stored(stub, ids)
