"""Who can change the folder of trusted roots (S-3, S-4); no certificate is read.

Apart from `edge.package.trust`, because what reads certificates is loaded with the first model only.
"""

import grp
import hashlib
import os
import pwd
import stat
from pathlib import Path

from edge.access import has_list

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def trouble(folder: Path) -> str:
    """Why no model can be loaded with a folder of trusted roots, in a sentence; empty where all is well."""
    try:
        real = Path(os.path.realpath(folder, strict=True))
        names = os.listdir(real)  # noqa: PTH208 (names are enough)
        found = weakness(real, os.geteuid())
    except OSError as error:
        return f"the folder of trusted roots {folder} cannot be read: {error.strerror}; no model can be loaded"
    if found:
        return f"{found}; until then no model can be loaded"
    if not any(name.endswith(".pem") for name in names):
        return (
            f"the folder of trusted roots {folder} holds no .pem file; no model can be loaded before the signers' roots "
            "are there, mode 0444"
        )
    return ""


def mark(folder: Path) -> str:
    """A value that changes whenever the folder of trusted roots does, also if it cannot be read."""
    try:
        real = Path(os.path.realpath(folder, strict=True))
        states = {str(path): path.stat() for path in (real, *real.iterdir())}
    except OSError as error:
        return f"unreadable: {error.strerror}"
    text = repr(sorted((n, s.st_ino, s.st_mtime_ns, s.st_size, s.st_mode, s.st_uid) for n, s in states.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def weakness(real: Path, user: int) -> str:
    """Who besides root and `user` could change a folder, or put another in its place, and what to run against it.

    Judged as sshd's StrictModes judges: the folder and each one above it belongs to root or `user`, and nobody else may
    write to it. Empty where nobody could. `real` is absolute and has no links.

    Raises:
        OSError: one cannot be looked at.
    """
    for place in (real, *real.parents):
        state = place.stat()
        if state.st_uid not in (0, user):
            return f"{place} belongs to user {state.st_uid}, who could change which roots are trusted; run: chown {user} {place}"
        # Above, a sticky bit keeps what is there in its owner's hands, and a group of the owner alone is nobody else.
        writable = state.st_mode & _OTHERS_WRITE
        if place != real and (
            state.st_mode & stat.S_ISVTX or (writable == stat.S_IWGRP and _owner_is_alone(place, state))
        ):
            continue
        if writable:
            mode = f"{stat.S_IMODE(state.st_mode):04o}"
            return f"{place} has mode {mode}: others could change which roots are trusted; run: chmod go-w {place}"
    return ""


def _owner_is_alone(place: Path, state: os.stat_result) -> bool:
    """Whether the folder's group is its owner's own, as Debian makes one for each user."""
    if has_list(str(place)):
        return False
    try:
        members = {pwd.getpwnam(name).pw_uid for name in grp.getgrgid(state.st_gid).gr_mem}
    except KeyError:
        return False
    members.update(user.pw_uid for user in pwd.getpwall() if user.pw_gid == state.st_gid)
    return members <= {state.st_uid}
