"""Pictures from files: BMP by the client's own reader, PNG, JPEG and others where Pillow is installed."""

import importlib
from typing import Any

import numpy as np

from edge.client import bmp
from edge.client.outcome import InputError

SUFFIXES = (".bmp", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".tif", ".tiff")


def read(path: str) -> bmp.Picture:
    """The picture in a file.

    Raises:
        InputError: the file cannot be read, or is not a picture that is understood.
    """
    library = None if path.lower().endswith(".bmp") else _pillow()
    if library is None:
        if path.lower().endswith(SUFFIXES[1:]):
            raise InputError(
                f"{path}: only BMP pictures are read where Python's Pillow is not installed; "
                "save it as a .bmp, or its values as a .npy or .json"
            )
        return bmp.read(path)
    try:
        with library.open(path) as picture:
            if max(picture.size) > bmp.MAX_SIDE:
                raise InputError(
                    f"{path}: {picture.size[0]} x {picture.size[1]} pixels; a side must have 1 to {bmp.MAX_SIDE}"
                )
            return np.asarray(picture.convert("RGB"))
    except (ValueError, OSError, library.DecompressionBombError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or 'not a picture that Pillow reads'}") from None


def _pillow() -> Any:
    """Pillow's Image module, or None; the binaries are without it."""
    try:
        return importlib.import_module("PIL.Image")
    except ImportError:
        return None
