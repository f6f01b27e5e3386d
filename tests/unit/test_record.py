"""The record of a capture: checks and JSON (C-1, C-4, C-5, R-2, R-3, R-4)."""

import base64
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.capture import record as record_module
from edge.capture.record import (
    MAX_ENTRIES,
    AuxiliaryEntry,
    CapturedTensor,
    CaptureRequest,
    Encoding,
    Record,
    build_record,
    check_content,
    check_id,
    check_time,
    content_type,
    iso_seconds,
    read_line,
)
from edge.errors import CaptureContentError, CaptureIdError, CaptureTimeError
from edge.tensors import DType
from tests.fakes.captures import parse_content_type, request

NOW = 1_750_000_000.5
FOLDER = "fleet/digits/2025/06/15/15"
STEM = "20250615T150640500Z-dev-0badcafe-000001"


def built(made: CaptureRequest, embed_limit: int = 3072) -> tuple[dict[str, Any], Record]:
    record = build_record(
        made,
        device="dev",
        fleet="fleet",
        accepted=NOW,
        embed_limit=embed_limit,
        key_of=lambda kind, index: f"{FOLDER}/raw-data/{kind}/{STEM}-{index:02d}.bin",
        uri_of=lambda key: f"s3://bucket/{key}",
    )
    assert record.line.endswith(b"\n") and record.line.count(b"\n") == 1
    return json.loads(record.line), record


def tensor(name: str = "input", data: bytes = b"\0\1\2\3", **changes: Any) -> CapturedTensor:
    return CapturedTensor(**{"name": name, "dtype": DType.UINT8, "shape": (1, len(data)), "data": data, **changes})


def test_the_record_is_as_readers_expect_it() -> None:
    event, record = built(
        request(
            "capture-7",
            inference_time=1_749_999_999.9,
            input_tensors=(CapturedTensor("input", DType.FLOAT32, (1, 2), b"\0" * 8),),
            output_tensors=(CapturedTensor("scores", DType.INT8, (3,), b"\1\2\3"),),
            inputs=(AuxiliaryEntry("settings", Encoding.JSON, '{"é": 1}'.encode()),),
            outputs=(AuxiliaryEntry("table", Encoding.CSV, b"a,b\n1,2\n"),),
        )
    )
    assert list(event) == [
        "deviceFleetInputs",
        "deviceFleetOutputs",
        "deviceFleetAuxiliaryInputs",
        "deviceFleetAuxiliaryOutputs",
        "eventMetadata",
        "eventVersion",
    ]
    assert event["deviceFleetInputs"] == [
        {
            "name": "input",
            "mode": "Input",
            "encoding": "BASE64",
            "observedContentType": "Tensor[FLOAT32; 1, 2]",
            "data": base64.b64encode(b"\0" * 8).decode(),
        }
    ]
    assert event["deviceFleetOutputs"][0]["mode"] == "Output"
    assert event["deviceFleetOutputs"][0]["observedContentType"] == "Tensor[INT8; 3]"
    assert event["deviceFleetAuxiliaryInputs"] == [
        {
            "name": "settings",
            "mode": "Input",
            "encoding": "JSON",
            "observedContentType": "application/json",
            "data": '{"é": 1}',
        }
    ]
    assert event["deviceFleetAuxiliaryOutputs"][0]["data"] == "a,b\n1,2\n"
    assert event["eventMetadata"] == {
        "eventId": "capture-7",
        "deviceId": "dev",
        "deviceFleetName": "fleet",
        "modelName": "digits",
        "modelVersion": "1.0",
        "inferenceTime": "2025-06-15T15:06:39",
    }
    assert event["eventVersion"] == "0"
    assert record.large == ()


def test_an_absent_time_is_the_time_of_acceptance() -> None:  # [C-4]
    event, _ = built(request("a"))
    assert event["eventMetadata"]["inferenceTime"] == iso_seconds(NOW) == "2025-06-15T15:06:40"
    assert event["deviceFleetInputs"] == event["deviceFleetAuxiliaryOutputs"] == []


@pytest.mark.parametrize(("size", "embedded"), [(0, True), (20, True), (21, False), (3000, False)])
def test_the_limit_is_in_bytes_of_data(size: int, embedded: bool) -> None:
    data = b"7" * size
    event, record = built(request("a", input_tensors=(tensor(data=data),)), embed_limit=20)
    entry = event["deviceFleetInputs"][0]
    assert entry["encoding"] == "BASE64"
    if embedded:
        assert base64.b64decode(entry["data"]) == data and "data-ref" not in entry and not record.large
    else:
        key = f"{FOLDER}/raw-data/input-tensors/{STEM}-00.bin"
        assert entry["data-ref"] == f"s3://bucket/{key}" and "data" not in entry
        assert [(large.key, bytes(large.data)) for large in record.large] == [(key, data)]


def test_large_entries_of_each_kind_have_their_own_folder() -> None:
    data = b"5" * 5000
    _, record = built(
        request(
            "a",
            input_tensors=(tensor(data=data),),
            output_tensors=(tensor(data=data),),
            inputs=(AuxiliaryEntry("x", Encoding.CSV, data),),
            outputs=(AuxiliaryEntry("y", Encoding.JSON, data),),
        )
    )
    assert [large.key.removeprefix(FOLDER + "/raw-data/") for large in record.large] == [
        f"input-tensors/{STEM}-00.bin",
        f"output-tensors/{STEM}-01.bin",
        f"input-auxiliary/{STEM}-02.bin",
        f"output-auxiliary/{STEM}-03.bin",
    ]


def test_raw_bytes_are_text_where_they_can_be_and_a_file_where_not() -> None:
    event, record = built(
        request(
            "a",
            inputs=(
                AuxiliaryEntry("text", Encoding.NONE, b"plain"),
                AuxiliaryEntry("raw", Encoding.NONE, b"\xff\xd8\xff"),
                AuxiliaryEntry("base64", Encoding.BASE64, b"AAEC"),
            ),
        )
    )
    text, raw, passed_on = event["deviceFleetAuxiliaryInputs"]
    assert (text["encoding"], text["data"]) == ("NONE", "plain")
    assert raw["encoding"] == "NONE" and raw["data-ref"].endswith(record.large[0].key)
    assert record.large[0].data == b"\xff\xd8\xff"
    assert (passed_on["encoding"], passed_on["data"]) == ("BASE64", "AAEC")


def test_lines_stay_lines_for_any_reader() -> None:
    odd = "a\u2028b\u0085c\nd"
    event, record = built(request("a", inputs=(AuxiliaryEntry(odd, Encoding.NONE, odd.encode()),)))
    assert len(record.line.decode().splitlines()) == 1
    assert event["deviceFleetAuxiliaryInputs"][0]["data"] == odd


@pytest.mark.parametrize(
    ("shape", "text"), [((), "1"), ((1,), "1"), ((1, 6, 10, 10), "1, 6, 10, 10"), ((0, 3), "0, 3")]
)
def test_content_type(shape: tuple[int, ...], text: str) -> None:
    assert content_type(DType.FLOAT32, shape) == f"Tensor[FLOAT32; {text}]"


@pytest.mark.parametrize("good", ["a", "0", "capture1605123456", "c0ffee-00.x_y", "a" * 128])
def test_ids_that_are_allowed(good: str) -> None:  # [C-1]
    check_id(good)


@pytest.mark.parametrize("bad", ["", "-a", ".a", "_a", "a b", "a/b", "a\n", "é", "a" * 129, "a\0"])
def test_ids_that_are_not(bad: str) -> None:  # [C-1]
    with pytest.raises(CaptureIdError, match="expected 1 to 128"):
        check_id(bad)


@pytest.mark.parametrize("good", [None, 0.5, NOW, NOW + 5, 1.0])
def test_times_that_are_allowed(good: float | None) -> None:  # [C-4]
    check_time(good, NOW)


@pytest.mark.parametrize("bad", [NOW + 5.1, NOW + 86400, -1.0, math.inf, math.nan, 1e300])
def test_times_that_are_not(bad: float) -> None:  # [C-4]
    with pytest.raises(CaptureTimeError, match=r"ahead|not a time"):
        check_time(bad, NOW)


LISTS = ["input_tensors", "output_tensors", "inputs", "outputs"]


def entries(which: str, *names: str) -> tuple[Any, ...]:
    if which.endswith("tensors"):
        return tuple(tensor(name) for name in names)
    return tuple(AuxiliaryEntry(name, Encoding.CSV, b"1") for name in names)


@pytest.mark.parametrize("which", LISTS)
def test_the_number_of_entries_is_bounded(which: str) -> None:  # [C-5]
    names = [str(number) for number in range(MAX_ENTRIES)]
    check_content(request("a", **{which: entries(which, *names)}))
    with pytest.raises(CaptureContentError, match="has 1025 tensors and auxiliary entries; at most 1024"):
        check_content(request("a", **{which: entries(which, *names, "one more")}))


@pytest.mark.parametrize("which", LISTS)
def test_names_are_there_and_differ_within_a_list(which: str) -> None:  # [C-5]
    with pytest.raises(CaptureContentError, match="1: its name is empty"):
        check_content(request("a", **{which: entries(which, "x", "")}))
    with pytest.raises(CaptureContentError, match="'x': the name is repeated"):
        check_content(request("a", **{which: entries(which, "x", "y", "x")}))


def test_a_name_may_stand_in_each_list() -> None:  # [C-5]
    check_content(request("a", **{which: entries(which, "x", "y") for which in LISTS}))


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [(DType.FLOAT32, (1, 2), 7), (DType.FLOAT32, (1, 2), 9), (DType.INT64, (), 4), (DType.UINT8, (0,), 1)],
)
def test_bytes_are_what_dtype_and_shape_need(dtype: DType, shape: tuple[int, ...], size: int) -> None:  # [C-5]
    with pytest.raises(CaptureContentError, match=rf"'input': got {size} bytes, expected \d+ for {dtype.name}"):
        check_content(request("a", input_tensors=(CapturedTensor("input", dtype, shape, b"0" * size),)))


def test_a_negative_dimension() -> None:  # [C-5]
    with pytest.raises(CaptureContentError, match="negative dimension"):
        check_content(request("a", output_tensors=(CapturedTensor("o", DType.UINT8, (-1, -1), b"0"),)))


@pytest.mark.parametrize(
    ("encoding", "data", "why"),
    [
        (4, b"", "unknown encoding 4"),
        (-1, b"", "unknown encoding -1"),
        (Encoding.CSV, b"\xff", "CSV data is not UTF-8"),
        (Encoding.JSON, b"\xc3", "JSON data is not UTF-8"),
        (Encoding.BASE64, b"A", "not base64"),
        (Encoding.BASE64, b"AAE*", "not base64"),
        (Encoding.BASE64, b"AA==AA==", "not base64"),
        (Encoding.BASE64, b"\xff\xff", "not base64"),
    ],
)
def test_auxiliary_data_that_is_not_what_it_says(encoding: int, data: bytes, why: str) -> None:  # [C-5]
    with pytest.raises(CaptureContentError, match=why):
        check_content(request("a", outputs=(AuxiliaryEntry("x", encoding, data),)))


@pytest.mark.parametrize("data", [b"", b"AAEC", b"AAE=", b"AAEC\r\nAAEC\n"])
def test_base64_that_is(data: bytes) -> None:
    check_content(request("a", inputs=(AuxiliaryEntry("x", Encoding.BASE64, data),)))


@given(data=st.text("AB=\r\n*é", max_size=40).map(str.encode))
def test_large_entries_are_checked_in_parts_as_whole_ones(data: bytes) -> None:  # [C-5]
    def accepts(part_bytes: int, encoding: int) -> bool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(record_module, "_PART_BYTES", part_bytes)
            try:
                check_content(request("a", inputs=(AuxiliaryEntry("x", encoding, data),)))
            except CaptureContentError:
                return False
            return True

    for encoding in (Encoding.BASE64, Encoding.JSON):
        assert accepts(7, encoding) == accepts(1 << 20, encoding)


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
TENSORS = st.builds(
    lambda name, dtype, shape: CapturedTensor(name, dtype, tuple(shape), bytes(dtype.itemsize * math.prod(shape))),
    NAMES,
    st.sampled_from(DType),
    st.lists(st.integers(0, 5), max_size=4),
)
AUXILIARY = st.one_of(
    st.builds(
        lambda n, t, e: AuxiliaryEntry(n, e, t.encode()),
        NAMES,
        st.text(st.characters(codec="utf-8")),
        st.sampled_from([0, 1, 2]),
    ),
    st.builds(lambda n, d: AuxiliaryEntry(n, 2, d), NAMES, st.binary()),
    st.builds(lambda n, d: AuxiliaryEntry(n, 3, base64.b64encode(d)), NAMES, st.binary()),
)


@given(
    tensors=st.lists(TENSORS, max_size=3, unique_by=lambda t: t.name),
    extra=st.lists(AUXILIARY, max_size=3, unique_by=lambda a: a.name),
    limit=st.integers(0, 64),
)
def test_what_goes_in_comes_out(
    tensors: list[CapturedTensor], extra: list[AuxiliaryEntry], limit: int
) -> None:
    made = request("a", input_tensors=tuple(tensors), outputs=tuple(extra))
    check_content(made)
    event, record = built(made, limit)
    files = {f"s3://bucket/{large.key}": bytes(large.data) for large in record.large}
    for sent, entry in zip(tensors, event["deviceFleetInputs"], strict=True):
        assert parse_content_type(entry["observedContentType"]) == (sent.dtype.name, sent.shape or (1,))
        assert entry["name"] == sent.name
        got = base64.b64decode(entry["data"]) if "data" in entry else files.pop(entry["data-ref"])
        assert got == sent.data
    for sent_extra, entry in zip(extra, event["deviceFleetAuxiliaryOutputs"], strict=True):
        got = entry["data"].encode() if "data" in entry else files.pop(entry["data-ref"])
        assert got == sent_extra.data
    assert not files
    summary = read_line(record.line, f"{FOLDER}/{STEM}.jsonl")
    assert summary is not None and summary.capture_id == "a"
    assert summary.large == tuple(large.key for large in record.large)


@given(st.binary(max_size=200))
def test_any_bytes_can_be_read(data: bytes) -> None:
    assert read_line(data, "key") is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_any_json_can_be_read(value: Any) -> None:
    assert read_line(json.dumps(value).encode() + b"\n", "key") is None


def test_a_torn_line_is_none() -> None:
    _, record = built(request("a", input_tensors=(tensor(data=b"1" * 50),)))
    key = f"{FOLDER}/{STEM}.jsonl"
    assert read_line(record.line, key) is not None
    assert not [cut for cut in range(len(record.line)) if read_line(record.line[:cut], key)]


@pytest.mark.parametrize(
    "reference",
    [
        "s3://bucket/other/raw-data/input-tensors/../../../etc/passwd",
        "file:///etc/passwd",
        f"s3://b/{FOLDER}/raw-data/elsewhere/{STEM}-00.bin",
        f"s3://b/{FOLDER}/raw-data/input-tensors/..",
        "",
    ],
)
def test_a_reference_leads_nowhere_else(reference: str) -> None:
    event, _ = built(request("a", input_tensors=(tensor(data=b"1" * 5000),)))
    event["deviceFleetInputs"][0]["data-ref"] = reference
    summary = read_line(json.dumps(event).encode() + b"\n", f"{FOLDER}/{STEM}.jsonl")
    assert summary is not None and summary.large == ()
