"""The folder of trusted roots at a glance (S-3): what is wrong with it, without reading a certificate.

Apart from `edge.models.trust`, because what reads certificates is loaded with the first model only.
"""

import os
import stat
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def trouble(folder: Path) -> str:
    """Why no model can be loaded, or who could have their own accepted, in a sentence; empty where all is well."""
    try:
        mode = folder.stat().st_mode
        names = os.listdir(folder)  # noqa: PTH208 (names are enough)
    except OSError as error:
        return f"the folder of trusted roots {folder} cannot be read: {error.strerror}; no model can be loaded"
    if not any(name.endswith(".pem") for name in names):
        return (
            f"the folder of trusted roots {folder} holds no .pem file; no model can be loaded before the signers' roots "
            "are there, mode 0444"
        )
    if mode & _OTHERS_WRITE:
        return (
            f"the folder of trusted roots {folder} has mode {stat.S_IMODE(mode):04o}: others may add roots, and have the "
            f"models that they sign accepted; run: chmod go-w {folder}"
        )
    return ""
