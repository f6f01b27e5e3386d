"""Tensors as pictures: which are one, and how they are drawn in a terminal or become a PNG file."""

import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.client import bmp
from edge.client.captures.records import Capture, Entry

Picture = npt.NDArray[np.uint8]  # [height, width, 3], red green blue

LEAST_SIDE = 4  # pixels; what is smaller is a table of numbers
_CHANNELS = (1, 3, 4)
_FINER = 4  # times the size asked for, to which a picture is thinned before it is resized


def layout_of(shape: tuple[int, ...]) -> str | None:
    """How a tensor of this shape is a picture, its first where it is several: "hwc", "chw", "hw", or None."""
    if len(shape) == 4 and shape[0] >= 1:
        shape = shape[1:]
    if len(shape) == 3 and shape[0] == 1 and min(shape[1:]) >= LEAST_SIDE and shape[2] not in _CHANNELS:
        return "chw"
    if len(shape) == 3 and shape[2] in _CHANNELS and _is_side(shape[0], shape[1]):
        return "hwc"
    if len(shape) == 3 and shape[0] in _CHANNELS and _is_side(shape[1], shape[2]):
        return "chw"
    return "hw" if len(shape) == 2 and _is_side(*shape) else None


def _is_side(high: int, wide: int) -> bool:
    return LEAST_SIDE <= high <= bmp.MAX_SIDE and LEAST_SIDE <= wide <= bmp.MAX_SIDE


def picture_entry(capture: Capture) -> Entry | None:
    """The first input that is a picture; None where none is."""
    return next((entry for entry in capture.inputs if entry.dtype is not None and layout_of(entry.shape)), None)


def picture_of(array: npt.NDArray[Any], most_side: int | None = None) -> Picture:
    """The picture of a tensor that `layout_of` takes for one, its longer side at most `most_side` pixels.

    Bytes are taken as they are, int8 from -128, floats as 0..1 or -1..1; other values from the smallest to the largest.
    """
    pixels = array[0] if array.ndim == 4 else array
    kind = layout_of(array.shape)
    if kind == "chw":
        pixels = pixels.transpose(1, 2, 0)
    elif kind == "hw":
        pixels = pixels[:, :, None]
    high, wide = pixels.shape[:2]
    if most_side is not None and (step := max(high, wide) // (most_side * _FINER)) > 1:
        pixels = pixels[::step, ::step]
    grey = _bytes(pixels)
    picture: Picture = np.ascontiguousarray(np.repeat(grey, 3, axis=2) if grey.shape[2] == 1 else grey[:, :, :3])
    if most_side is not None and max(high, wide) > most_side:
        scale = most_side / max(high, wide)
        picture = bmp.resize(picture, max(1, round(wide * scale)), max(1, round(high * scale)))
    return picture


def _bytes(pixels: npt.NDArray[Any]) -> Picture:
    """Values as 0..255."""
    if pixels.dtype == np.uint8:
        return np.asarray(pixels)
    if pixels.dtype == np.int8:
        return (pixels.astype(np.int16) + 128).astype(np.uint8)
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    with np.errstate(all="ignore"):  # a NaN that signals
        values = np.nan_to_num(pixels.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if pixels.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif pixels.dtype.kind == "f" and low >= -1 and high <= 1:
        low, high = -1.0, 1.0
    elif low >= 0 and 1 < high <= 255:
        low, high = 0.0, 255.0
    with np.errstate(all="ignore"):
        scaled = (values - low) / ((high - low) or 1.0) * 255
    made: Picture = np.rint(np.clip(np.nan_to_num(scaled), 0, 255)).astype(np.uint8)
    return made


def png(picture: Picture) -> bytes:
    """A PNG file: 8 bits a channel, grey where red, green and blue are the same.

    https://www.w3.org/TR/png-3/: signature, IHDR, one IDAT of rows with filter 0, IEND.
    """
    is_grey = bool((picture == picture[:, :, :1]).all())
    rows = picture[:, :, :1] if is_grey else picture
    high, wide, channels = rows.shape
    lines = np.zeros((high, 1 + wide * channels), np.uint8)
    lines[:, 1:] = rows.reshape(high, -1)
    header = struct.pack(">IIBBBBB", wide, high, 8, 0 if is_grey else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def drawing(picture: Picture, columns: int) -> str:
    """The picture in colours of a terminal, two rows of pixels a line: the upper is a half block's ink, the lower its ground.

    Small pictures are drawn larger, a pixel of theirs as a square of whole characters.
    """
    high, wide = picture.shape[:2]
    if wide > columns:
        picture = bmp.resize(picture, columns, max(1, round(high * columns / wide)))
    elif (times := min(columns // wide, 32 // max(high, wide))) > 1:
        picture = picture.repeat(times, axis=0).repeat(times, axis=1)
    if picture.shape[0] % 2:
        picture = np.concatenate([picture, picture[-1:]])
    lines = []
    for upper, lower in zip(picture[::2].tolist(), picture[1::2].tolist(), strict=True):
        cells = (f"\033[38;2;{a};{b};{c};48;2;{d};{e};{f}m▀" for (a, b, c), (d, e, f) in zip(upper, lower, strict=True))
        lines.append("".join(cells) + "\033[0m")
    return "\n".join(lines)
