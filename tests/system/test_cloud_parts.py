"""Large objects go in parts: over a link that breaks, through faults of the store, and nothing is left there for nothing."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.capture.statuses import CaptureState
from edge.clock import SystemClock
from edge.cloud.retry import Outcome
from edge.cloud.store import Bandwidth, Body, StoreError, Throttle
from tests.fakes import captures, s3_stub
from tests.fakes.cloud import Pipeline, assert_all_stored, pipeline, s3_store
from tests.fakes.link import Link
from tests.fakes.s3_stub import S3Stub, answering, refusing

PART = 100_000
SIZE = 2 * PART + 1
PARTS = 3
FOR_EVER = 1_000_000
BEGIN, FIRST, LAST, COMPLETE = "?uploads=", "?partNumber=1&", "?partNumber=3&", "?uploadId="


@pytest.fixture
def stub() -> Iterator[S3Stub]:
    made = S3Stub()
    made.uploads.least_part_bytes = PART
    made.start()
    yield made
    made.close()


def notes(made: Pipeline) -> list[Path]:
    return list((made.settings.spool_path / "uploads").glob("*"))


def one_arrives(stub: S3Stub, folder: Path, store: Any, size: int = SIZE) -> None:
    """Capture one large tensor, and wait until it is stored, and neither here nor there anything is left of it."""
    with pipeline(folder, store) as made:
        made.service.submit(captures.large("big", size=size))
        made.wait_states(["big"])
        made.wait(lambda: not made.waiting_files(), "the spool is empty")
        made.wait(lambda: not notes(made), "the note is gone")
    assert_all_stored(stub, ["big"])
    assert not stub.uploads.under_way


def puts(stub: S3Stub, what: str) -> int:
    return sum(count for key, count in stub.puts.items() if what in key)


def test_parts(stub: S3Stub, tmp_path: Path) -> None:
    """[R-17] [R-5] Of 8 MiB unless a test says otherwise, each once, and the record after the completion."""
    one_arrives(stub, tmp_path, s3_store(stub.url), (16 << 20) + 1)
    assert [puts(stub, what) for what in (BEGIN, FIRST, LAST, COMPLETE)] == [1, 1, 1, 1]
    assert (stub.uploads.begun, stub.uploads.completed, stub.uploads.aborted) == (1, 1, 0)
    assert [stored.content_type for stored in stub.objects.values()] == [
        "application/octet-stream",
        "application/jsonlines",
    ]


def test_parts_are_asked_for(stub: S3Stub, tmp_path: Path) -> None:
    """[R-17] [R-7] edge_upload_verify asks for the object as a whole."""
    one_arrives(stub, tmp_path, s3_store(stub.url, verify=True, part_bytes=PART))
    assert len(stub.heads) == 2


@pytest.mark.parametrize("step", [BEGIN, FIRST, LAST, COMPLETE], ids=["begin", "first part", "last part", "complete"])
@pytest.mark.parametrize(
    "fault",
    [
        refusing(503, "SlowDown", headers={"Retry-After": "7"}),
        s3_stub.portal,
        s3_stub.error_with_200,
        s3_stub.truncated_body,
        answering(200, headers={"x-amz-request-id": "1"}),
        answering(204, headers={"ETag": '"1"'}),
        refusing(403, "AccessDenied"),
        refusing(403, "ExpiredToken"),
    ],
    ids=["503", "portal", "200 with an error", "truncated", "empty 200", "204", "denied", "old keys"],
)
def test_fault_at_a_step(stub: S3Stub, tmp_path: Path, fault: Callable[..., bool], step: str) -> None:
    """[R-17] [R-7] Nothing but the store's own words counts; what is stored of it is not sent again."""
    stub.inject(fault, 2, match=step)
    one_arrives(stub, tmp_path, s3_store(stub.url, part_bytes=PART))
    assert puts(stub, step) == 3
    assert sum(stub.puts.values()) == PARTS + 3 + 2
    assert stub.uploads.begun == 1


@pytest.mark.parametrize("may_read", [True, False])
def test_the_answer_to_a_completion_is_lost(stub: S3Stub, tmp_path: Path, may_read: bool) -> None:
    """[R-17] The object is looked for; who may not look sends it again, rather than believe."""
    stub.may_read = may_read
    stub.inject(s3_stub.reset, 1, match=COMPLETE)
    one_arrives(stub, tmp_path, s3_store(stub.url, part_bytes=PART))
    assert puts(stub, FIRST) == (1 if may_read else 2)
    assert stub.uploads.begun == (1 if may_read else 2)


def test_the_store_forgets_an_upload(stub: S3Stub, tmp_path: Path) -> None:
    """[R-17] As its own rules for old ones make it: it begins anew."""
    stub.inject(forgetting, 1, match=LAST)
    one_arrives(stub, tmp_path, s3_store(stub.url, part_bytes=PART))
    assert (puts(stub, FIRST), stub.uploads.begun) == (2, 2)


def forgetting(handler: s3_stub.StubHandler, body: bytes) -> bool:
    handler.server.owner.uploads.under_way.clear()  # type: ignore[attr-defined]
    handler.refuse(404, "NoSuchUpload")
    return True


def losing(code: str) -> Callable[..., bool]:
    """A store that has lost the first part of every upload, and says so when they are to be put together."""

    def fault(handler: s3_stub.StubHandler, body: bytes) -> bool:
        if handler.command != "POST":
            return False
        for upload in handler.server.owner.uploads.under_way.values():  # type: ignore[attr-defined]
            upload.parts.pop(1, None)
        handler.refuse(400, code)
        return True

    return fault


LOST = ("InvalidPart", "InvalidPartOrder", "EntityTooSmall")


@pytest.mark.parametrize("code", LOST)
def test_the_store_loses_a_part(stub: S3Stub, tmp_path: Path, code: str) -> None:
    """[R-17] The upload is aborted and begun anew: it costs a resend, not the capture."""
    stub.inject(losing(code), 1, match=COMPLETE)
    one_arrives(stub, tmp_path, s3_store(stub.url, part_bytes=PART))
    assert (puts(stub, FIRST), stub.uploads.begun, stub.uploads.aborted) == (2, 2, 1)


def put_after_start(stub: S3Stub, folder: Path) -> StoreError | None:
    """An agent that starts goes on with an object; how that failed."""
    file = folder / "object"
    if not file.exists():
        file.write_bytes(bytes(SIZE))
    store = s3_store(stub.url, part_bytes=PART)
    store.keep_notes_in(folder)
    pace = Throttle(Bandwidth(0, SystemClock()), threading.Event())
    try:
        store.put("key", Body(file, SIZE), "application/octet-stream", pace)
    except StoreError as error:
        return error
    finally:
        store.close()
    return None


@pytest.mark.parametrize("code", LOST)
def test_the_store_loses_parts_for_ever(stub: S3Stub, tmp_path: Path, code: str) -> None:
    """[R-17] It is begun anew once, be there restarts between; then it is the object that is refused."""
    stub.inject(losing(code), FOR_EVER, match=COMPLETE)
    errors = [put_after_start(stub, tmp_path) for _ in range(4)]
    verdicts = [error.verdict for error in errors if error is not None]
    assert [one.outcome for one in verdicts] == [Outcome.RETRY_SOON, *[Outcome.REFUSED] * 3]
    assert all(one.counts for one in verdicts)
    assert (puts(stub, FIRST), stub.uploads.begun, stub.uploads.aborted) == (2, 2, 1)


def test_the_store_forgets_uploads_again_and_again(stub: S3Stub, tmp_path: Path) -> None:
    """[R-17] Others go first from the second time on, and it is never given up for that."""
    stub.inject(forgetting, 3, match=LAST)
    errors = [put_after_start(stub, tmp_path) for _ in range(4)]
    verdicts = [(error.verdict.outcome, error.verdict.counts) for error in errors if error is not None]
    assert verdicts == [(Outcome.RETRY_SOON, True), (Outcome.REFUSED, False), (Outcome.REFUSED, False)]
    assert stub.uploads.begun == 4 and not stub.uploads.under_way
    assert len(stub.objects["key"].body) == SIZE


@pytest.mark.parametrize("deny", [False, True])
def test_what_is_given_up_is_aborted(stub: S3Stub, tmp_path: Path, deny: bool) -> None:
    """[R-17] [G-4] Also later, where the store does not do it at once."""
    stub.max_bytes = 2 * PART
    stub.uploads.deny_abort = deny
    with pipeline(tmp_path, s3_store(stub.url, part_bytes=PART)) as made:
        made.service.submit(captures.large("big", size=SIZE))
        made.wait_states(["big"], CaptureState.FAILURE)
        if deny:
            assert stub.uploads.under_way
            stub.uploads.deny_abort = False
            made.service.submit(captures.small("next"))
        made.wait(lambda: not stub.uploads.under_way and not notes(made), "the upload is aborted")
    assert stub.uploads.aborted == 1


def test_a_disk_that_takes_no_note(stub: S3Stub, tmp_path: Path) -> None:
    """[R-17] Then the object goes whole: no part is sent whose upload could be forgotten."""
    with pipeline(tmp_path, s3_store(stub.url, part_bytes=PART)) as made:
        (made.settings.spool_path / "uploads").write_text("no folder")
        made.service.submit(captures.large("big", size=SIZE))
        made.wait_states(["big"])
    assert_all_stored(stub, ["big"])
    assert (stub.uploads.begun, stub.uploads.aborted, puts(stub, FIRST)) == (1, 1, 0)


@pytest.mark.parametrize("answer", [refusing(501, "NotImplemented"), answering(405, b"no")], ids=["501", "405"])
def test_a_store_without_parts(stub: S3Stub, tmp_path: Path, answer: Callable[..., bool]) -> None:
    """[R-17] Gets the object whole."""
    stub.inject(answer, FOR_EVER, match=BEGIN)
    one_arrives(stub, tmp_path, s3_store(stub.url, part_bytes=PART))
    assert (puts(stub, BEGIN), len(stub.puts)) == (1, 3)


@pytest.mark.parametrize("name", ["", "{", "[]", '{"key": 3}', "\xff" * 100])
def test_a_note_that_is_damaged(stub: S3Stub, tmp_path: Path, name: str) -> None:
    with pipeline(tmp_path, s3_store(stub.url, part_bytes=PART)) as made:
        folder = made.settings.spool_path / "uploads"
        folder.mkdir()
        (folder / "0123.json").write_text(name)
        made.service.submit(captures.small("a"))
        made.wait_states(["a"])
    assert_all_stored(stub, ["a"])


def test_a_link_that_breaks(stub: S3Stub, tmp_path: Path) -> None:
    """[R-17] 200 MB over a link that breaks every 20 MB arrive, and are not sent twice."""
    size, every = 200_000_000, 20_000_000
    file = tmp_path / "object"
    with file.open("wb") as out:
        out.truncate(size)
    link = Link(stub.port, breaks_after=every)
    store = s3_store(link.url)
    store.keep_notes_in(tmp_path)
    pace = Throttle(Bandwidth(0, SystemClock()), threading.Event())
    try:
        for _ in range(30):
            with contextlib.suppress(StoreError):
                store.put("key", Body(file, size), "application/octet-stream", pace)
                break
    finally:
        store.close()
        link.close()
    assert len(stub.objects["key"].body) == size
    assert link.broken >= size // every
    assert link.sent <= size + link.broken * ((8 << 20) + 65536) + 1_000_000 < 2 * size
    assert stub.uploads.begun == 1 and not stub.uploads.under_way
