"""Relative paths, which the original agent took from its working folder; so do configuration files and LoadModel here."""

import os
from pathlib import Path, PurePath

from edge.errors import PackageNotFoundError
from edge.text import is_unicode, shown


def absolute(path: str) -> str:
    """A path from the working folder on, without leading `.` and `..`: the working folder's own path has no links.

    Raises:
        OSError: the working folder is gone.
    """
    if path.startswith("/"):
        return path
    base, parts = Path.cwd(), list(PurePath(path).parts)
    while parts and parts[0] == "..":
        base = base.parent
        del parts[0]
    return str(base.joinpath(*parts))


def is_url(text: str) -> bool:
    """Whether a model's place is given as a url rather than as a path."""
    scheme, colon, rest = text.partition(":")
    return bool(colon) and "/" not in scheme and (scheme.lower() == "file" or rest.startswith("//"))


def model_url(url: str) -> str:
    """A model's url or path as LoadModel got it; a relative path is made absolute.

    Raises:
        PackageNotFoundError: it is relative to a folder that is gone, or is no text that an answer can carry.
    """
    if not url or is_url(url):
        return _text(url)
    try:
        return _text(absolute(url))
    except OSError as error:
        raise PackageNotFoundError(
            f"a relative path, and the agent's working folder is gone: {error.strerror}"
        ) from error


def _text(url: str) -> str:
    if not is_unicode(url):
        raise PackageNotFoundError(f"the path {shown(url)} is not UTF-8, which ListModels could not name")
    return url


def runtime_folder() -> Path | None:
    """The service's folder below /run, which outlives a crash and no reboot (systemd.exec(5)); None without one."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(given) if given.startswith("/") else None
