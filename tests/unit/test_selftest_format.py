"""`selftest.json`: what is read back is what was written, and what is hostile is refused (S-10)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.errors import MemoryLimitError, PackageError
from edge.package.manifest import Manifest, format_manifest
from edge.package.selftest import (
    MAX_CASES,
    MAX_SELFTEST_BYTES,
    MAX_SELFTEST_DATA_BYTES,
    SELFTEST_DATA,
    SELFTEST_FILE,
    Case,
    GoldenTensor,
    SelfTest,
    format_selftest,
    parse_selftest,
)
from edge.tensors import DType
from tests.fakes import packages

X = GoldenTensor("x", DType.FLOAT32, (1, 4))
Y = GoldenTensor("y", DType.FLOAT32, (1, 4), absolute=0.1, relative=1e-3)
ONE = SelfTest((Case("one", (X,), (Y,)), Case("two", (X,), (GoldenTensor("flag", DType.BOOL, ()),))))
SIZE = 16 * 3 + 1


def test_it_is_read_back() -> None:  # [S-10]
    assert ONE.byte_count == SIZE
    assert parse_selftest(format_selftest(ONE), SIZE) == ONE
    assert [tensor.name for tensor in ONE.tensors()] == ["x", "y", "x", "flag"]


def entry(value: Any, *path: Any) -> Any:
    for step in path:
        value = value[step]
    return value


def changed(path: tuple[Any, ...], to: Any) -> Callable[[Any], None]:
    def change(value: Any) -> None:
        entry(value, *path[:-1])[path[-1]] = to

    return change


FIRST_OUT = ("cases", 0, "outputs", 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed(("format_version",), 2), "format_version '2'; this agent reads 1"),
        (changed(("extra",), 1), "unknown key 'extra'"),
        (changed(("cases",), []), "has no case"),
        (changed(("cases",), {}), "cases must be a list"),
        (changed(("cases", 1, "name"), "one"), "cases has 'one' twice"),
        (changed(("cases", 0, "name"), ""), "1 to 128 characters, got 0"),
        (changed(("cases", 0, "outputs"), []), r"cases\[0\] has no outputs to compare"),
        (changed(("cases", 0, "inputs", 0, "absolute"), 1), "unknown key 'cases.*absolute'"),
        (changed((*FIRST_OUT, "dtype"), "FLOAT8"), "dtype 'FLOAT8' is not known; expected UINT8"),
        (changed((*FIRST_OUT, "dtype"), ["FLOAT32"]), "dtype must be text, not a list"),
        (changed((*FIRST_OUT, "shape"), [-1, 4]), "whole numbers from 0"),
        (changed((*FIRST_OUT, "shape"), [1] * 33), "33 items; at most 32"),
        (changed((*FIRST_OUT, "shape"), [1, 5]), "has tensors of 53 bytes; selftest.bin has 49"),
        (changed((*FIRST_OUT, "shape"), [2**31 - 1] * 32), "has tensors of .*bytes; selftest.bin has 49"),
        (changed((*FIRST_OUT, "absolute"), -1), "absolute must be 0 to 1e[+]30, got '-1'"),
        (changed((*FIRST_OUT, "relative"), 1e400), "has Infinity|relative must be 0 to"),
        (changed((*FIRST_OUT, "relative"), True), "relative must be a number, not true or false"),
        (changed((*FIRST_OUT, "relative"), 10**400), "relative must be 0 to|too long"),
        (changed(("cases", 1, "outputs", 0, "absolute"), 1), "is BOOL, which has no tolerance"),
        (changed(("cases", 0, "outputs"), [{"name": "y", "dtype": "INT8", "shape": [1]}] * 2), "has 'y' twice"),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(change: Callable[[Any], None], words: str) -> None:  # [S-10]
    value = json.loads(format_selftest(ONE))
    change(value)
    with pytest.raises(PackageError, match=words):
        parse_selftest(json.dumps(value).encode(), SIZE)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b'{"format_version": 1, "format_version": 1}', b"\xff", b"[" * 100_000, b"{" * 1000]
)
def test_what_is_no_such_file_is_refused(text: bytes) -> None:  # [S-8] [S-10]
    with pytest.raises(PackageError, match=SELFTEST_FILE):
        parse_selftest(text, SIZE)


def test_no_more_cases_than_are_allowed() -> None:  # [S-10]
    case = Case("", (), (GoldenTensor("y", DType.INT8, (0,)),))
    many = SelfTest(tuple(Case(str(n), case.inputs, case.outputs) for n in range(MAX_CASES)))
    assert parse_selftest(format_selftest(many), 0) == many
    with pytest.raises(PackageError, match=f"at most {MAX_CASES}"):
        format_selftest(SelfTest((*many.cases, Case("one more", case.inputs, case.outputs))))


# --- in a package ----------------------------------------------------------------


def package(folder: Path, files: dict[str, bytes], **manifest: Any) -> Path:
    content = {"digits.tflite": b"model", **files}
    said = format_manifest(Manifest("digits", "1.0", **{"model": "digits.tflite", **manifest}))
    return packages.write_folder(folder / "p", packages.files_of(content, manifest=said))


GOOD = {SELFTEST_FILE: format_selftest(ONE), SELFTEST_DATA: bytes(SIZE)}


def test_a_package_has_it_behind_a_descriptor(tmp_path: Path) -> None:  # [S-5] [S-10]
    before = packages.open_files()
    with packages.load(package(tmp_path, GOOD), packages.trust(tmp_path)) as opened:
        assert opened.selftest == ONE and opened.selftest_fd is not None
        assert packages.open_files() == before + 2
    assert packages.open_files() == before


@pytest.mark.parametrize(
    ("files", "manifest", "words"),
    [
        ({SELFTEST_FILE: GOOD[SELFTEST_FILE]}, {}, "has selftest.json, and no selftest.bin"),
        ({**GOOD, SELFTEST_DATA: bytes(SIZE - 1)}, {}, "has tensors of 49 bytes; selftest.bin has 48"),
        ({**GOOD, SELFTEST_FILE: b"{}"}, {}, "selftest.json lacks format_version"),
        ({**GOOD, SELFTEST_FILE: b" " * (MAX_SELFTEST_BYTES + 1)}, {}, f"selftest.json is larger than {MAX_SELFTEST_BYTES}"),
        (GOOD, {"model": SELFTEST_DATA}, "takes selftest.bin, a file of the self-test, for the model's file"),
        (GOOD, {"sample": SELFTEST_FILE}, "takes selftest.json, a file of the self-test, for the sample"),
    ],
)  # fmt: skip
def test_a_package_with_a_bad_one_is_refused(
    tmp_path: Path, files: dict[str, bytes], manifest: dict[str, Any], words: str
) -> None:  # [L-4] [L-9] [S-10]
    before = packages.open_files()
    with pytest.raises(PackageError, match=words):
        packages.load(package(tmp_path, files, **manifest), packages.trust(tmp_path))
    assert packages.open_files() == before


def test_one_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:  # [S-10]
    path = package(tmp_path, GOOD)
    with (path / SELFTEST_DATA).open("r+b") as file:
        file.truncate(MAX_SELFTEST_DATA_BYTES + 1)
    limits = packages.PackageLimits()
    with pytest.raises(PackageError, match=f"selftest.bin is larger than {MAX_SELFTEST_DATA_BYTES} bytes"):
        packages.load(path, packages.trust(tmp_path), limits=limits)


def test_its_memory_is_asked_for_first(tmp_path: Path) -> None:  # [L-6]
    with pytest.raises(MemoryLimitError, match="the self-test needs"):
        packages.load(package(tmp_path, GOOD), packages.trust(tmp_path), available=10)


def test_data_without_a_description_is_a_file_like_any_other(tmp_path: Path) -> None:
    with packages.load(package(tmp_path, {SELFTEST_DATA: b"mine"}), packages.trust(tmp_path)) as opened:
        assert opened.selftest is None and opened.selftest_fd is None
