"""Captures as files that other programs take."""

import csv
import json
import os
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge.client import main
from tests.fakes.written import record, write

EVIL = "../../=cmd|'x'!A1\x00\n/"


def export(folder: Path, target: Path, *words: str) -> int:
    return main.main(["captures", "export", str(folder), str(target), *words])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three captures of pictures that differ."""
    made = tmp_path / "captures"
    pictures = [np.full((1, 8, 8, 1), n / 2, np.float32) for n in range(3)]
    write(made, *[record(f"c{n}", n, picture=pictures[n], captureReason=["x", "y"]) for n in range(3)])
    return made


def test_npz(folder: Path, tmp_path: Path) -> None:  # [V-8]
    write(folder, record("vector", picture=np.zeros((4, 2), np.int64), modelName="other"), name="b.jsonl")
    assert export(folder, tmp_path / "x.npz", "--model", "digits") == 0
    arrays = np.load(tmp_path / "x.npz")
    assert sorted(arrays) == ["class", "confidence", "id", "input.image", "output.probabilities", "time"]
    assert arrays["input.image"].shape == (3, 8, 8, 1) and arrays["input.image"].dtype == np.float32
    assert arrays["input.image"][:, 0, 0, 0].tolist() == [0, 0.5, 1]
    assert arrays["output.probabilities"].shape == (3, 10)
    assert arrays["class"].tolist() == [0, 1, 2]
    assert arrays["id"].tolist() == ["c0", "c1", "c2"]
    assert str(arrays["time"][0]) == "2026-01-31T12:00:00.000"
    np.testing.assert_allclose(arrays["confidence"], 0.9, atol=1e-6)
    assert export(folder, tmp_path / "y.npz", "--model", "other") == 0
    assert np.load(tmp_path / "y.npz")["input.image"].shape == (1, 4, 2)


def test_csv(folder: Path, tmp_path: Path) -> None:  # [V-8]
    write(folder, record("big", picture=np.zeros((1, 9, 9, 1), np.uint8)), name="b.jsonl")
    without = record("without", 5) | {"deviceFleetInputs": []}
    write(folder, without, name="c.jsonl")
    assert export(folder, tmp_path / "x.csv") == 1  # the picture of 9 x 9 does not go with the others
    rows = list(csv.DictReader((tmp_path / "x.csv").open(newline="", encoding="utf-8")))
    assert [one["id"] for one in rows] == ["c0", "c1", "c2", "without"]
    assert (rows[1]["input.image[63]"], rows[3]["input.image[63]"]) == ("0.5", "")
    assert rows[2]["reasons"] == "x y" and rows[2]["time"] == "2026-01-31T12:00:00Z"
    assert float(rows[2]["output.probabilities[2]"]) == pytest.approx(0.9)
    assert len(rows[0]) == 12 + 64 + 10


def test_pictures(folder: Path, tmp_path: Path) -> None:  # [V-8]
    (tmp_path / "labels").write_text("zero\none\n../two\n")
    write(folder, record("c0"), record("none", picture=np.zeros((1, 4))), name="b.jsonl")
    assert export(folder, tmp_path / "out", "--labels", str(tmp_path / "labels")) == 1
    files = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    time = "20260131T120000Z"
    assert files == [
        f"7/{time}-c0.png",
        f"___two/{time}-c2.png",
        "index.csv",
        f"one/{time}-c1.png",
        f"zero/{time}-c0.png",
    ]
    assert np.asarray(Image.open(tmp_path / "out" / f"one/{time}-c1.png")).tolist() == [[128] * 8] * 8
    rows = list(csv.DictReader((tmp_path / "out" / "index.csv").open(newline="", encoding="utf-8")))
    assert [one["file"] for one in rows] == [
        f"zero/{time}-c0.png",
        f"one/{time}-c1.png",
        f"___two/{time}-c2.png",
        f"7/{time}-c0.png",
    ]
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


def test_nothing_is_replaced_and_nothing_half_is_left(  # [V-8]
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tmp_path / "x.npz"
    before.write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "empty").mkdir()
    write(folder, record("o", modelName="other"), name="z.jsonl")
    for words, said in [
        ([before], "exists; name another, or give --force"),
        ([tmp_path / "full", "--force"], "exists and is no empty folder"),
        ([before, "--format", "images"], "exists and is no empty folder"),
        ([tmp_path / "new.txt"], "expected a name that ends in .npz, .csv or .parquet"),
        ([tmp_path / "new.csv"], "captures of several models, 'digits' and 'other'; choose one by --model"),
        ([before, "--force"], "captures of several models"),
        ([tmp_path / "new.npz", "--class", "9"], "no capture passes the filters; nothing is written"),
        ([tmp_path / "new", "--class", "9"], "nothing is written"),
        ([tmp_path / "no" / "folder.csv"], "No such file or directory"),
        ([tmp_path / "no" / "folder"], "No such file or directory"),
    ]:
        assert export(folder, *map(str, words)) == 2  # type: ignore[arg-type]
        assert said in capsys.readouterr().err
    assert before.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captures", "empty", "full", "x.npz"]
    assert export(folder, before, "--force", "--model", "digits", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "file": str(before), "format": "npz", "captures": 3}
    assert export(folder, tmp_path / "empty", "--model", "digits") == 0


def test_hostile_names_stay_harmless(tmp_path: Path) -> None:  # [V-8] [V-2]
    folder, out = tmp_path / "captures", tmp_path / "out"
    words = dict.fromkeys(("deviceId", "deviceFleetName", "modelName", "modelVersion", "status"), EVIL)
    one = record(EVIL, **words, captureReason=["=1+1"])
    one["deviceFleetInputs"][0]["name"] = EVIL
    one["deviceFleetOutputs"].append(one["deviceFleetOutputs"][0] | {"name": "=probabilities"})
    write(folder, one, record("..", 3, **words) | {"deviceFleetOutputs": []}, record("@x", modelName="\ud800"))
    out.mkdir()
    for name in ("x.csv", "x.npz", "pictures"):
        export(folder, out / name, "--model", EVIL)
    inside = sorted(str(path.relative_to(out)) for path in out.rglob("*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captures", "out"]
    assert all(
        set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./") for name in inside
    )
    for name in ("x.csv", "pictures/index.csv"):
        for row in csv.reader((out / name).open(newline="", encoding="utf-8")):
            assert not [cell for cell in row if cell.startswith(("=", "+", "-", "@"))]
    assert all("/" not in name and not name.startswith(".") for name in np.load(out / "x.npz"))
    assert export(folder, out / "y.csv", "--model", "\ud800") == 0


def test_npz_does_not_grow_in_memory(tmp_path: Path) -> None:  # [V-8]
    picture = np.zeros((1, 128, 128, 3), np.uint8)
    write(tmp_path / "captures", *[record(str(n), picture=picture) for n in range(200)])
    export(tmp_path / "captures", tmp_path / "warm.npz", "--class", "7")
    tracemalloc.start()
    try:
        assert export(tmp_path / "captures", tmp_path / "x.npz") == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.load(tmp_path / "x.npz")["input.image"].shape == (200, 128, 128, 3)
    assert peak < 6 << 20  # the arrays have 9.8 MB


def test_parquet_without_pyarrow(  # [V-8]
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert export(folder, tmp_path / "x.parquet") == 2
    assert "Parquet needs Python's pyarrow, which is not part of this program" in capsys.readouterr().err
    assert not (tmp_path / "x.parquet").exists()


def test_parquet(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # [V-8]
    reader = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed", exc_type=ImportError)
    monkeypatch.setattr("edge.client.captures.parquet.GROUP_ROWS", 2)
    write(folder, record("without") | {"deviceFleetInputs": []}, name="b.jsonl")
    assert export(folder, tmp_path / "x.parquet") == 0
    table: Any = reader.read_table(tmp_path / "x.parquet")
    assert table.column("id").to_pylist() == ["c0", "c1", "c2", "without"]
    assert table.column("class").to_pylist() == [0, 1, 2, 7]
    assert table.column("reasons").to_pylist() == [["x", "y"]] * 3 + [[]]
    image = table.column("input.image").to_pylist()
    assert image[1] == [0.5] * 64 and image[3] is None
    assert json.loads(table.schema.field("input.image").metadata[b"shape"]) == [1, 8, 8, 1]
