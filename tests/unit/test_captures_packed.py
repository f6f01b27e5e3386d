"""Compressed record files read again, whole, torn and hostile (V-1, V-2, V-9)."""

import gzip
import json
import random
import shutil
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from edge.client import captures
from edge.client.captures import reading
from edge.client.captures.summaries import summaries_of
from tests.fakes.captures import Runs, disk_settings, large, small
from tests.fakes.clock import FakeClock
from tests.fakes.written import HOUR, record, summary

LINES = b"".join(json.dumps(record(f"c{number:03}")).encode() + b"\n" for number in range(200))
IDS = [f"c{number:03}" for number in range(200)]


def put(root: Path, data: bytes, name: str = "a.jsonl.gz") -> Path:
    path = root / HOUR / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def read(root: Path) -> tuple[list[str], list[str]]:
    """Ids, and what was refused."""
    refused: list[str] = []
    ids = [capture.capture_id for capture in captures.read(root, lambda refusal: refused.append(str(refusal)))]
    return ids, refused


def test_what_an_agent_wrote(tmp_path: Path) -> None:  # [V-1]
    with Runs(FakeClock()) as runs:
        running = runs(disk_settings(tmp_path, compress=True))
        for capture in (small("a"), large("b")):
            running.submit(capture)
        spool = tmp_path / "disk" / ".spool"
        assert sorted(read(spool / "open")[0]) == ["a", "b"]  # plain as yet, under the name that it will have
        running.turn(stopping=True)
    found = {capture.capture_id: capture for capture in captures.read(tmp_path / "disk")}
    assert found["a"].inputs[0].array().tobytes().startswith(b"a...")
    assert found["b"].inputs[0].array().tobytes().startswith(b"b-xxx")
    assert found["a"].origin.endswith(".jsonl.gz")


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.gz.open", "a.jsonl.gz.failed"])
@pytest.mark.parametrize(
    "data",
    [gzip.compress(LINES), gzip.compress(LINES[:5000]) + gzip.compress(LINES[5000:]), gzip.compress(LINES) + bytes(9)],
    ids=["one member", "several members", "zeros behind it"],
)
def test_whole_files(tmp_path: Path, name: str, data: bytes) -> None:  # [V-1]
    put(tmp_path, data, name)
    assert read(tmp_path) == (IDS, [])


def test_a_compressed_summary(tmp_path: Path) -> None:  # [V-1]
    put(tmp_path, gzip.compress(json.dumps(summary()).encode() + b"\n"), "summary-a.jsonl.gz")
    assert read(tmp_path) == ([], [])
    assert [one.model_name for one in summaries_of(captures.source(str(tmp_path)), print)] == ["digits"]


def test_what_unpacks_a_bucket_on_the_way_leaves_plain_lines(tmp_path: Path) -> None:  # [V-1]
    put(tmp_path, LINES)
    assert read(tmp_path) == (IDS, [])


@pytest.mark.parametrize("kept", [0.5, -1, -8])
def test_a_torn_end(tmp_path: Path, kept: float) -> None:  # [V-9]
    data = gzip.compress(LINES)
    put(tmp_path, data[: int(len(data) * kept) if kept > 0 else int(kept)])
    put(tmp_path, gzip.compress(json.dumps(record("other")).encode()), "b.jsonl.gz")
    ids, refused = read(tmp_path)
    assert ids[-1] == "other" and ids[:-1] == IDS[: len(ids) - 1] and len(ids) > 20
    assert len(refused) == 1 and "a.jsonl.gz" in refused[0]
    assert "cannot be read to its end: Compressed file ended before" in refused[0]


@pytest.mark.parametrize("data", [b"\x1f\x8b", b"\x1f\x8b\x08" + bytes(40), gzip.compress(LINES)[:-6] + b"\xff" * 6])
def test_what_is_no_gzip(tmp_path: Path, data: bytes) -> None:  # [V-9]
    put(tmp_path, data)
    _, refused = read(tmp_path)
    assert len(refused) == 1 and "cannot be read to its end: " in refused[0]


@pytest.mark.parametrize(
    "line", [b"\0" * 1000, (b" " * 99 + b"\n") * 10, b"[" * 1000], ids=["no line end", "empty lines", "lists"]
)
def test_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:  # [V-9] [V-2]
    """A small file that holds a thousand times its size: bounded in memory and in what is read of it."""
    monkeypatch.setattr(reading, "MAX_UNPACKED_BYTES", 24 << 20)
    good = json.dumps(record("good")).encode() + b"\n"
    put(tmp_path, gzip.compress(good + line * 30_000))
    put(tmp_path, gzip.compress(good), "b.jsonl.gz")
    tracemalloc.start()
    try:
        ids, refused = read(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ids == ["good", "good"]
    assert "it holds more than 24 MiB; the rest is not read" in refused[-1]
    assert peak < 56 << 20  # a line of 16 MiB some times over


@pytest.mark.skipif(shutil.which("zcat") is None, reason="needs zcat")
def test_tools_that_know_gzip_read_it(tmp_path: Path) -> None:
    with Runs(FakeClock()) as runs:
        running = runs(disk_settings(tmp_path, compress=True))
        running.submit(small("a"))
        running.turn(stopping=True)
    [path] = (tmp_path / "disk").rglob("*.jsonl.gz")
    told = subprocess.run(["zcat", str(path)], capture_output=True, check=True).stdout
    assert json.loads(told)["eventMetadata"]["eventId"] == "a"


def test_whatever_is_damaged_is_refused_in_words(tmp_path: Path) -> None:  # [V-9]
    whole = gzip.compress(LINES[:4000]) + gzip.compress(LINES[4000:9000])
    chance, ends = random.Random(7), 0
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 5)):
            data[chance.randrange(2, len(data))] = chance.randrange(256)
        put(tmp_path, bytes(data[: chance.choice((None, chance.randrange(2, len(data))))]))
        ids, refused = read(tmp_path)
        ends += bool(refused) and "cannot be read to its end: " in refused[-1]
        assert set(ids) <= set(IDS) or refused
    assert ends > 150
