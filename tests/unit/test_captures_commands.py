"""`captures ls`, `show` and `stats`, as a person or a script calls them."""

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.client import main
from edge.client.captures import pictures
from tests.fakes.written import record, summary, write

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two models, two hours, one record that is none."""
    write(tmp_path, record("a", 3), record("b", 7, confidence=0.4, captureReason=["margin_below"]), name="a.jsonl")
    late = {"inferenceTime": "2026-01-31T15:30:00", "modelVersion": "2.0", "inferenceMilliseconds": 0.5}
    write(tmp_path, record("c", 7, **late), hour="fleet-1/digits/2026/01/31/15")
    write(tmp_path, record("d", 1, modelName="other"), b"{}", hour="fleet-1/other/2026/01/31/12")
    write(tmp_path, summary(), name="summary-a.jsonl")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main.main(["captures", *words])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ("", "abcd"),
        ("--model digits", "abc"),
        ("--model digits --model other --version 1.0", "abd"),
        ("--class 7", "bc"),
        ("--class three --labels LABELS", "a"),
        ("--reason margin_below", "b"),
        ("--since 2026-01-31T15:00:00", "c"),
        ("--since 2026-01-31T16:00:00+01:00", "c"),
        ("--until 2026-01-31T15:00:00Z", "abd"),
        ("--since 2026-02-01", ""),
        ("--since 1min", ""),
        ("--limit 2", "ab"),
    ],
)
def test_filters(capsys: pytest.CaptureFixture[str], folder: Path, filters: str, ids: str) -> None:  # [V-4]
    (folder / "labels").write_text("zero\none\ntwo\nthree\n")
    words = filters.replace("LABELS", str(folder / "labels")).split()
    _, out, _ = run(capsys, "ls", str(folder), *words)
    lines = out.splitlines()
    assert "".join(line.split()[-1] for line in lines[1:] if ids) == ids
    assert lines[0].split()[0] == ("TIME" if ids else "no")
    _, out, _ = run(capsys, "ls", "--json", str(folder), *words)
    assert [one["id"] for one in json.loads(out)["captures"]] == list(ids)


def test_a_line_says_what_there_is(capsys: pytest.CaptureFixture[str], folder: Path) -> None:  # [V-5] [V-2]
    code, out, err = run(capsys, "ls", str(folder))
    assert "2026-01-31T12:00:00Z  digits      1.0      7      40.00%  margin_below  b\n" in out
    assert code == 1
    assert err == "fleet-1/other/2026/01/31/12/a.jsonl:2: eventMetadata: got nothing, expected an object\n"
    code, out, err = run(capsys, "ls", str(folder), "--json")
    told = json.loads(out)
    assert (code, err, told["ok"], told["error"]) == (1, "", False, "1 record cannot be used")
    assert told["refusals"] == ["fleet-1/other/2026/01/31/12/a.jsonl:2: eventMetadata: got nothing, expected an object"]
    assert told["captures"][1]["reasons"] == ["margin_below"]
    assert run(capsys, "ls", str(folder), "--model", "digits")[0] == 1
    assert run(capsys, "ls", str(folder / "fleet-1" / "digits"))[0] == 0


def test_many_refusals_are_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:  # [V-2]
    write(tmp_path, *[b"\x1b[31mx"] * 100)
    code, _, err = run(capsys, "ls", str(tmp_path))
    assert (code, len(err.splitlines())) == (1, 21)
    assert err.endswith("and 80 more records cannot be used\n")
    assert "\x1b" not in err


def test_hostile_words_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:  # [V-2]
    words = {"modelName": "\x1b[2J", "modelVersion": "\ud800", "deviceId": "a\nb", "captureReason": ["\x1b]0;x\x07"]}
    write(tmp_path, record("\x1b[31mid", **words))
    write(tmp_path, record("i" * 900, modelName="m" * 900, captureReason=["r" * 900]), name="long.jsonl")
    assert max(map(len, run(capsys, "ls", str(tmp_path))[1].splitlines())) < 340
    for word in ("ls", "show", "stats"):
        code, out, _ = run(capsys, word, str(tmp_path))
        assert code == 0 and "\x1b" not in out and "\x07" not in out
        json.loads(run(capsys, word, str(tmp_path), "--json")[1])


def test_show(capsys: pytest.CaptureFixture[str], folder: Path) -> None:  # [V-5]
    code, out, _ = run(capsys, "show", str(folder), "b")
    assert code == 0
    assert "b  2026-01-31T12:00:00Z  digits 1.0" in out
    assert "kept for margin_below" in out
    assert "a picture, values from 0 to 1" in out
    assert "7   40.00%" in out
    _, out, _ = run(capsys, "show", str(folder))
    assert out.startswith("c  2026-01-31T15:30:00Z") and "took 0.5 ms" in out
    _, out, _ = run(capsys, "show", str(folder), "a", "--json")
    assert json.loads(out)["tensors"][0]["shape"] == [1, 8, 8, 1]
    assert main.main(["captures", "show", str(folder), "nowhere"]) == 1
    assert "NOT_FOUND: no capture nowhere" in capsys.readouterr().err
    assert main.main(["captures", "show", str(folder / "none")]) == 2
    assert "expected a folder of captures" in capsys.readouterr().err


def test_a_terminal_gets_a_picture(folder: Path) -> None:  # [V-5]
    def shown(**environment: str) -> bytes:
        words = [sys.executable, str(ROOT / "agent.py"), "captures", "show", str(folder), "a"]
        here, there = pty.openpty()
        with subprocess.Popen(words, stdout=there, stdin=there, env=os.environ | {"TERM": "xterm"} | environment):
            os.close(there)
            data = b""
            try:
                while chunk := os.read(here, 65536):
                    data += chunk
            except OSError:  # the other end is closed
                pass
            os.close(here)
        return data

    assert b"\033[38;2;0;0;0;48;2;" in shown()
    assert b"\033" not in shown(NO_COLOR="1")


def test_stats(capsys: pytest.CaptureFixture[str], folder: Path) -> None:  # [V-5]
    _, out, _ = run(capsys, "stats", str(folder), "--model", "digits")
    assert out.splitlines()[:2] == ["digits 1.0", "  2 captures, 2026-01-31T12:00:00Z to 2026-01-31T12:00:00Z"]
    assert "  classes: 3 1, 7 1\n  confidence: mean 65.00%, below 50 %: 1\n  kept for: margin_below 1\n" in out
    assert "  1 summary, 2026-01-31T12:00:00Z to 2026-01-31T13:00:00Z\n    calls: OK 1234, INVALID_ARGUMENT 2\n" in out
    assert "latency in the slowest of them: p50 0.4 ms, p90 0.6 ms, p99 1.9 ms, max 12 ms" in out
    assert "  latency: p50 0.5 ms" in out
    _, out, _ = run(capsys, "stats", str(folder), "--json")
    first, *_ = json.loads(out)["models"]
    assert first["captures"]["classes"] == {"3": 1, "7": 1}
    assert first["summaries"]["classes"] == {"3": 61, "7": 12}


def test_summaries_that_are_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:  # [V-2]
    odd = [summary(summaryVersion=2), summary(**{"from": 1}), summary() | {"summary": []}, b"x"]
    write(tmp_path, *odd, summary(calls=[], outputs={}, latencyMilliseconds=7), name="summary-x.jsonl")
    code, out, err = run(capsys, "stats", str(tmp_path))
    assert (code, len(err.splitlines())) == (1, 4)
    assert "1 summary" in out


@pytest.mark.parametrize("text", ["soon", "2026-13-01", "99999999999d", "5y", ""])
def test_times_that_are_none(capsys: pytest.CaptureFixture[str], text: str) -> None:  # [V-4]
    with pytest.raises(SystemExit) as ended:
        main.main(["captures", "ls", "x", "--since", text])
    assert ended.value.code == 2
    assert "expected a time such as" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 8, 8, 1), "hwc"),
        ((4, 32, 64, 3), "hwc"),
        ((1, 3, 32, 64), "chw"),
        ((1, 1, 28, 28), "chw"),
        ((28, 28), "hw"),
        ((1, 10), None),
        ((1, 2, 2, 3), None),
        ((1, 5, 8, 8), None),
        ((0, 8, 8, 3), None),
        ((), None),
    ],
)
def test_which_tensors_are_pictures(shape: tuple[int, ...], layout: str | None) -> None:
    assert pictures.layout_of(shape) == layout
    if layout:
        high_wide = shape[1:3] if layout == "hwc" else shape[-2:]
        assert pictures.picture_of(np.zeros(shape, np.float32)).shape == (*high_wide, 3)


def test_values_become_bytes() -> None:
    def grey(values: list[float], dtype: type) -> list[int]:
        array = np.resize(np.asarray(values), (4, 4)).astype(dtype)
        return pictures.picture_of(array)[0, : len(values), 0].tolist()

    assert grey([0, 1, 0.5], np.float32) == [0, 255, 128]
    assert grey([-1, 1, 0], np.float32) == [0, 255, 128]
    assert grey([0, 255, 17], np.float32) == [0, 255, 17]
    assert grey([-500, 500], np.float64) == [0, 255]
    assert grey([-128, 127], np.int8) == [0, 255]
    assert grey([7, 9], np.uint8) == [7, 9]
    assert grey([0, 1], np.bool_) == [0, 255]
    assert grey([np.nan, np.inf, 1], np.float32) == [0, 0, 255]
    assert grey([-1e308, 1e308], np.float64)[0] == 0
    big = pictures.picture_of(np.zeros((1, 3000, 1000, 3), np.uint8), 96)
    assert big.shape == (96, 32, 3)


def test_png_is_read_by_pillow() -> None:
    colour = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
    grey = np.repeat(colour[:, :, :1], 3, axis=2)
    for picture, mode in ((colour, "RGB"), (grey, "L")):
        opened = Image.open(io.BytesIO(pictures.png(picture)))
        assert opened.mode == mode
        assert np.array_equal(np.asarray(opened.convert("RGB")), picture)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("s3:///x", "names no bucket; expected s3://BUCKET/PREFIX"),
        ("s3://b/../x/", "names no bucket"),
        ("s3://bucket/ --region eu.west", "region 'eu.west'; expected"),
        ("s3://bucket/ --endpoint ftp://x", "endpoint 'ftp://x'; expected"),
        ("s3://bucket/ -c /none.json", "/none.json: "),
    ],
)
def test_a_bucket_that_cannot_be(capsys: pytest.CaptureFixture[str], words: str, said: str) -> None:  # [V-7]
    assert main.main(["captures", "ls", *words.split()]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("word", ["ls", "show", "stats", "export", "report"])
def test_every_word_has_help(capsys: pytest.CaptureFixture[str], word: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["captures", word, "--help"])
    assert ended.value.code == 0
    assert "--since TIME" in capsys.readouterr().out
