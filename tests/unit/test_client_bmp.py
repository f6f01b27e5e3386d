"""BMP pictures: every kind that is read, and hostile ones refused."""

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.client import bmp
from edge.client.outcome import InputError

PICTURES = Path(__file__).parents[2] / "demo" / "data" / "pictures"


def picture(high: int, wide: int) -> np.ndarray:
    return np.random.default_rng(high * 100 + wide).integers(0, 256, (high, wide, 3), dtype=np.uint8)


def file_of(
    wide: int,
    high: int,
    bits: int,
    rows: bytes,
    *,
    compression: int = 0,
    extra: bytes = b"",
    colours: int = 0,
    header: int = 40,
) -> bytes:
    start = 14 + 40 + len(extra)
    info = struct.pack("<IiiHHIIiiII", header, wide, high, 1, bits, compression, len(rows), 0, 0, colours, 0)
    return struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start) + info + extra + rows


@pytest.mark.parametrize("wide", [1, 2, 3, 4, 5, 33])
def test_encode_then_decode_keeps_pixels(wide: int) -> None:
    assert np.array_equal(bmp.decode(bmp.encode(picture(3, wide))), picture(3, wide))


def test_rows_run_downwards_when_the_height_is_negative() -> None:
    rows = bytes([1, 2, 3, 0, 4, 5, 6, 0])
    assert bmp.decode(file_of(1, -2, 24, rows)).tolist() == [[[3, 2, 1]], [[6, 5, 4]]]
    assert bmp.decode(file_of(1, 2, 24, rows)).tolist() == [[[6, 5, 4]], [[3, 2, 1]]]


def test_32_bits_drop_alpha() -> None:
    assert bmp.decode(file_of(1, 1, 32, bytes([1, 2, 3, 99]))).tolist() == [[[3, 2, 1]]]


def test_32_bits_with_the_usual_masks() -> None:
    masks = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
    assert bmp.decode(file_of(1, 1, 32, bytes([1, 2, 3, 0]), compression=3, extra=masks)).tolist() == [[[3, 2, 1]]]
    odd = struct.pack("<III", 0xFF, 0xFF00, 0xFF0000)
    with pytest.raises(InputError, match="masks"):
        bmp.decode(file_of(1, 1, 32, bytes(4), compression=3, extra=odd))


def test_8_bits_use_the_palette() -> None:
    palette = bytes([10, 20, 30, 0, 40, 50, 60, 0])
    decoded = bmp.decode(file_of(3, 1, 8, bytes([1, 0, 7, 0]), extra=palette, colours=2))
    assert decoded.tolist() == [[[60, 50, 40], [30, 20, 10], [0, 0, 0]]]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a BMP"),
        (b"BM" + bytes(52), "OS/2"),
        (b"PNG" + bytes(100), "not a BMP"),
        (file_of(0, 1, 24, bytes(4)), "0 x 1"),
        (file_of(-1, 1, 24, bytes(4)), "-1 x 1"),
        (file_of(1, -(2**31), 24, bytes(4)), "a side"),
        (file_of(60000, 60000, 24, bytes(4)), "a side"),
        (file_of(16000, 16000, 24, bytes(4)), "cut short"),
        (file_of(1, 1, 4, bytes(4)), "4 bits"),
        (file_of(1, 1, 24, bytes(4), compression=1), "compression 1"),
        (file_of(1, 1, 8, bytes(4), colours=9), "palette"),
        (file_of(1, 1, 8, bytes(4), colours=2**31), "palette"),
        (file_of(1, 1, 8, bytes(4), extra=bytes(1024), header=2**31), "palette"),
    ],
)
def test_refused_in_words(data: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        bmp.decode(data)


@given(st.binary(max_size=200), st.integers(0, 53))
def test_any_bytes_give_a_picture_or_an_input_error(noise: bytes, place: int) -> None:
    data = bytearray(bmp.encode(picture(2, 3)))
    data[place : place + len(noise)] = noise
    for candidate in (bytes(data), noise, b"BM" + noise):
        with contextlib.suppress(InputError):
            assert bmp.decode(candidate).ndim == 3


def test_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        bmp.read(tmp_path / "none.bmp")


def test_shrinking_is_the_mean_of_what_is_covered() -> None:
    small = picture(8, 8)
    big = small.repeat(4, 0).repeat(4, 1)
    assert np.array_equal(bmp.resize(big, 8, 8), small)
    assert bmp.resize(np.asarray([[[0] * 3, [100] * 3, [200] * 3]], np.uint8), 1, 1).tolist() == [[[100] * 3]]


def test_growing_is_bilinear_and_keeps_flat_colour() -> None:
    flat = np.full((3, 5, 3), 77, np.uint8)
    assert np.array_equal(bmp.resize(flat, 17, 11), np.full((11, 17, 3), 77, np.uint8))
    line = bmp.resize(np.asarray([[[0] * 3, [100] * 3]], np.uint8), 4, 1)
    assert line[0, :, 0].tolist() == [0, 25, 75, 100]


def test_channels() -> None:
    grey = bmp.channels(np.full((1, 1, 3), 50, np.uint8), 1)
    assert grey.tolist() == [[[50]]]
    assert bmp.channels(picture(1, 1), 4)[0, 0, 3] == 255
    with pytest.raises(InputError, match="2 channels"):
        bmp.channels(picture(1, 1), 2)


@pytest.mark.parametrize(("dtype", "values"), [("float32", [0, 1]), ("int8", [-128, 127]), ("uint8", [0, 255])])
def test_pixel_values_suit_the_dtype(dtype: str, values: list[int]) -> None:
    assert bmp.as_tensor(np.asarray([0, 255], np.uint8), np.dtype(dtype)).tolist() == values


def test_demo_pictures_are_the_held_out_digits() -> None:
    held_out = np.load(PICTURES.parent / "held_out.npz")
    files = sorted(PICTURES.glob("*.bmp"))
    assert len(files) == 20
    for file in files:
        small = bmp.channels(bmp.resize(bmp.read(file), 8, 8), 1)[:, :, 0]
        matches = (held_out["grey"] == small).all(axis=(1, 2))
        assert matches.any()
        assert held_out["digit"][matches][0] == int(file.name[0])
