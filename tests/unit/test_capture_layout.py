"""Names of captured files (R-1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.capture import layout
from edge.capture.layout import Names

AT = 1_750_000_000.123
NAMES = Names("", "fleet", "dev-1", "0badcafe")
STEM = "20250615T150640123Z-dev-1-0badcafe-000007"


@pytest.mark.parametrize(("prefix", "start"), [("", ""), ("a", "a/"), ("a/b", "a/b/"), ("a/b/", "a/b/")])
def test_folder(prefix: str, start: str) -> None:
    assert Names(prefix, "fleet", "d", "0badcafe").folder("digits", AT) == f"{start}fleet/digits/2025/06/15/15"


def test_stem() -> None:
    assert NAMES.stem(AT, 7) == STEM
    assert layout.is_record_name(STEM + ".jsonl") and layout.accepted_at(STEM + ".jsonl") == pytest.approx(AT, abs=1e-3)


@given(st.floats(0, 4e9), st.floats(0, 4e9), st.integers(0, 10**7))
def test_names_sort_by_time(one: float, other: float, number: int) -> None:
    early, late = sorted((one, other))
    first, second = NAMES.stem(early, number), NAMES.stem(late, number)
    assert first <= second
    assert abs(layout.accepted_at(first + ".jsonl") - early) < 0.002


@pytest.mark.parametrize("device", ["a", "a-b", "a_b-0badcafe-000001", "A" * 63])
def test_the_device_is_in_the_name(device: str) -> None:
    name = Names("", "f", device, "0badcafe").stem(AT, 1) + ".jsonl"
    assert layout.is_record_name(name, device) and not layout.is_record_name(name, "other")
    assert len(layout.open_raw_name(layout.raw_key("", "k", name, 99), 10**12, 1).rpartition("/")[2]) < 255


@pytest.mark.parametrize(
    "name", ["", "x.jsonl", STEM, STEM + ".jsonl.open", STEM + ".jsonl.done", "../" + STEM + ".jsonl"]
)
def test_other_names_are_none(name: str) -> None:
    assert not layout.is_record_name(name) and (layout.accepted_at(name) == 0 or name.startswith(STEM + ".jsonl"))


def test_a_name_with_no_time() -> None:
    assert layout.accepted_at("20259915T150640123Z-dev-1-0badcafe-000007.jsonl") == 0


def test_open_names_say_what_a_file_is() -> None:
    key = layout.raw_key("f/m/2025/06/15/15", layout.INPUT_TENSORS, STEM, 3)
    name = layout.open_raw_name(key, 5000, 0xCAFE).rpartition("/")[2]
    assert layout.parse_open_raw_name(name) == layout.OpenRaw(f"{STEM}-03.bin", 5000, 0xCAFE)
    assert layout.parse_open_raw_name(STEM + ".jsonl.open") is None and layout.is_raw_name(f"{STEM}-03.bin", "dev-1")


@pytest.mark.parametrize(
    ("path", "is_hour"),
    [
        ("a/b/2025/06/15/15", True),
        ("2025/06/15/15", True),
        ("a/2025/06/15", False),
        ("a/2025/06/15/15/raw-data", False),
    ],
)
def test_hour_folders(path: str, is_hour: bool) -> None:
    assert layout.is_hour_folder(path) is is_hour


@given(st.text())
def test_any_reference_stays_in_the_folder(reference: str) -> None:
    key = layout.raw_key_of(reference, f"f/m/2025/06/15/15/{STEM}.jsonl")
    assert key is None or key.startswith("f/m/2025/06/15/15/raw-data/")


@pytest.mark.parametrize("uri", ["s3://bucket/{}", "file:///disk/{}", "s3://another/{}"])
def test_references_of_any_bucket_are_understood(uri: str) -> None:
    record = f"p/f/m/2025/06/15/15/{STEM}.jsonl"
    key = layout.raw_key("p/f/m/2025/06/15/15", layout.OUTPUT_AUXILIARY, STEM, 0)
    assert layout.raw_key_of(uri.format(key), record) == key


def test_a_model_name_makes_no_folder() -> None:
    assert NAMES.folder("../../etc", AT).startswith("fleet/..%2F..%2Fetc/")


def test_file_uri() -> None:
    assert layout.file_uri("/disk/a b/ü") == "file:///disk/a%20b/%C3%BC"
