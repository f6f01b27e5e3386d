"""BMP pictures: read, resize and write, for the example commands and the demo.

The format: Microsoft's "Bitmap Storage", BITMAPINFOHEADER and its V4 and V5 successors. Uncompressed pictures of 8 bits
(palette), 24 and 32 bits, bottom-up and top-down.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.client.outcome import InputError

Picture = npt.NDArray[np.uint8]  # [height, width, 3], red green blue

MAX_FILE_BYTES = 256 << 20
MAX_SIDE = 16384  # pixels
_FILE_HEADER = struct.Struct("<2sIHHI")
_INFO_HEADER = struct.Struct("<IiiHHIIiiII")
_UNCOMPRESSED, _BITFIELDS = 0, 3
_USUAL_MASKS = (0x00FF0000, 0x0000FF00, 0x000000FF)


def read(path: str | Path) -> Picture:
    """The picture in a file.

    Raises:
        InputError: the file cannot be read, or is not a BMP that is understood.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    try:
        return decode(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def decode(data: bytes) -> Picture:
    """The picture in the bytes of a BMP file; see `read`."""
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"larger than {MAX_FILE_BYTES >> 20} MiB")
    if len(data) < _FILE_HEADER.size + _INFO_HEADER.size or data[:2] != b"BM":
        raise InputError("not a BMP picture")
    start = _FILE_HEADER.unpack_from(data)[4]
    header, wide, signed_high, _, bits, compression, _, _, _, colours, _ = _INFO_HEADER.unpack_from(
        data, _FILE_HEADER.size
    )
    if header < _INFO_HEADER.size:
        raise InputError("a BMP of the OS/2 kind, which is not supported")
    high = abs(signed_high)
    if not (0 < wide <= MAX_SIDE and 0 < high <= MAX_SIDE):
        raise InputError(f"{wide} x {high} pixels; a side must have 1 to {MAX_SIDE}")
    if bits not in (8, 24, 32) or not (compression == _UNCOMPRESSED or (compression == _BITFIELDS and bits == 32)):
        raise InputError(
            f"a BMP of {bits} bits, compression {compression}; supported are 8, 24 and 32 bits, uncompressed"
        )
    if compression == _BITFIELDS:
        _check_masks(data)
    row = -(-wide * bits // 32) * 4  # rows are padded to 4 bytes
    if start + row * high > len(data):
        raise InputError(f"cut short: {wide} x {high} pixels need {start + row * high} bytes, there are {len(data)}")
    rows = np.frombuffer(data, np.uint8, row * high, start).reshape(high, row)
    if bits == 8:
        picture = _palette(data, _FILE_HEADER.size + header, colours or 256, start)[rows[:, :wide]]
    else:
        picture = rows[:, : wide * bits // 8].reshape(high, wide, bits // 8)[:, :, 2::-1]
    return np.ascontiguousarray(picture if signed_high < 0 else picture[::-1])


def _check_masks(data: bytes) -> None:
    """The masks follow the 40 bytes that all headers share, whether inside a longer header or after it."""
    place = _FILE_HEADER.size + _INFO_HEADER.size
    if len(data) < place + 12 or struct.unpack_from("<III", data, place) != _USUAL_MASKS:
        raise InputError("a BMP with unusual colour masks, which is not supported")


def _palette(data: bytes, place: int, colours: int, end: int) -> Picture:
    """Colours [256, 3]; indices beyond the palette are black."""
    if not 0 < colours <= 256 or place + 4 * colours > min(end, len(data)):
        raise InputError(f"a BMP whose palette of {colours} colours does not fit the file")
    table: Picture = np.zeros((256, 3), np.uint8)
    table[:colours] = np.frombuffer(data, np.uint8, 4 * colours, place).reshape(colours, 4)[:, 2::-1]
    return table


def encode(picture: Picture) -> bytes:
    """A 24-bit BMP file of a picture [h, w, 3], or a grey one [h, w]."""
    colour = picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)
    high, wide = colour.shape[:2]
    rows = np.zeros((high, -(-wide * 3 // 4) * 4), np.uint8)
    rows[:, : wide * 3] = colour[::-1, :, ::-1].reshape(high, wide * 3)
    start = _FILE_HEADER.size + _INFO_HEADER.size
    info = _INFO_HEADER.pack(_INFO_HEADER.size, wide, high, 1, 24, _UNCOMPRESSED, rows.nbytes, 2835, 2835, 0, 0)
    return _FILE_HEADER.pack(b"BM", start + rows.nbytes, 0, 0, start) + info + rows.tobytes()


def resize(picture: Picture, wide: int, high: int) -> Picture:
    """The picture with `wide` x `high` pixels: the mean of what a pixel covers when shrinking, bilinear when growing."""
    if picture.shape[:2] == (high, wide):
        return picture
    rows = _weights(picture.shape[0], high) @ picture.reshape(picture.shape[0], -1).astype(np.float32)
    across = rows.reshape(high, picture.shape[1], 3).transpose(1, 0, 2).reshape(picture.shape[1], -1)
    done = (_weights(picture.shape[1], wide) @ across).reshape(wide, high, 3).transpose(1, 0, 2)
    resized: Picture = np.clip(np.rint(done), 0, 255).astype(np.uint8)
    return resized


def _weights(old: int, new: int) -> npt.NDArray[np.float32]:
    """How much each of `old` pixels in a line counts for each of `new`, float32 [new, old]; rows sum to 1."""
    if new < old:
        edges = np.arange(new + 1) * (old / new)
        pixels = np.arange(old)
        shares = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        shares = np.clip(shares, 0, None)
    else:
        centres = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
        shares = np.clip(1 - np.abs(centres[:, None] - np.arange(old)), 0, None)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)


def channels(picture: Picture, count: int) -> Picture:
    """The picture with 1 (grey), 3 (red, green, blue) or 4 (and opaque alpha) channels, [h, w, count].

    Raises:
        InputError: another count.
    """
    if count == 1:
        grey = picture.astype(np.float32) @ np.asarray([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
        single: Picture = np.rint(grey).astype(np.uint8)[:, :, None]
        return single
    if count == 3:
        return picture
    if count == 4:
        return np.concatenate([picture, np.full((*picture.shape[:2], 1), 255, np.uint8)], axis=2)
    raise InputError(f"{count} channels; a picture can be given as 1, 3 or 4")


def as_tensor(picture: Picture, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Pixel values as a model of this dtype takes them: 0..1 for floats, -128..127 for int8, 0..255 for the rest."""
    if dtype.kind == "f":
        return (picture.astype(np.float32) / 255).astype(dtype)
    if dtype == np.int8:
        return (picture.astype(np.int16) - 128).astype(np.int8)
    return picture.astype(dtype)
