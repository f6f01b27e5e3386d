"""Files that commands make: whole or not at all, and never in place of another unless asked for."""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edge import durable
from edge.client.outcome import InputError


@contextlib.contextmanager
def new_file(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """A file that appears under its name once the block has ended well.

    Raises:
        InputError: it is there already, and may not be replaced (`force`); or it cannot be written.
    """
    if not force and os.path.lexists(path):
        raise exists(path)
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}{durable.TEMPORARY}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if force:
            temporary.replace(path)
        else:
            _name(temporary, path)
        durable.fsync_folder(path.parent)
    except FileExistsError:
        raise exists(path) from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {durable.why(error)}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _name(temporary: Path, path: Path) -> None:
    """Give a file its name where nothing has it, also not since it was looked for."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        if os.path.lexists(path):  # FAT has no links
            raise exists(path) from None
        temporary.replace(path)


def exists(path: Path) -> InputError:
    """What to say of a file that is in the way."""
    return InputError(f"{path} exists; name another, or give --force to replace it")
