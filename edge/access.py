"""Who may use a file: its mode and, where it has one, its access control list (acl(5)); and systemd's credentials.

Where a file has a list, the group bits of its mode are the list's mask: the most that named users and groups get, and
no word of who they are. `LoadCredential=` gives the service's user such a list on a file of root's.
"""

import os
import stat
import struct
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

CREDENTIALS = "CREDENTIALS_DIRECTORY"  # in the environment of a service with LoadCredential= (systemd.exec(5))
_ACL = "system.posix_acl_access"
_VERSION, _ENTRY = struct.Struct("<I"), struct.Struct("<HHI")  # linux/posix_acl_xattr.h: version; tag, rights, id
_OWNER, _USER, _OWN_GROUP, _GROUP, _MASK, _EVERYBODY = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_ACL_VERSION = 2
_ALL, _ENTER = 0o7, 0o1


def credential_path(setting: str) -> str:
    """The path that a setting names; `$CREDENTIALS_DIRECTORY/NAME` is a credential of the service."""
    folder = os.environ.get(CREDENTIALS)
    return setting.replace(f"${CREDENTIALS}", folder, 1) if folder and is_credential(setting) else setting


def is_credential(setting: str) -> bool:
    """Whether a setting names a credential of the service."""
    return setting.startswith(f"${CREDENTIALS}/")


def others(path: str, uid: int) -> list[str]:
    """Who may read, write or execute a file, in words: everyone but its owner, root and the user `uid`.

    Raises:
        OSError: it cannot be looked at.
    """
    state = Path(path).stat()
    entries = _entries(path)
    if entries is None:
        entries = [(_OWN_GROUP, state.st_mode >> 3 & _ALL, 0), (_EVERYBODY, state.st_mode & _ALL, 0)]
    mask = next((rights for tag, rights, _ in entries if tag == _MASK), _ALL)
    found = []
    for tag, rights, number in entries:
        if tag == _USER and rights & mask and number not in (0, uid, state.st_uid):
            found.append(f"user {number}")
        elif tag == _GROUP and rights & mask:
            found.append(f"group {number}")
        elif tag == _OWN_GROUP and rights & mask:
            found.append(f"group {state.st_gid}")
        elif tag == _EVERYBODY and rights:
            found.append("everybody")
    return found


def why_unusable(folder: str | Path) -> str:
    """Why this user could not keep files in a folder, which need not be there yet; empty where nothing speaks against it."""
    path = Path(folder)
    there = next((str(at) for at in (path, *path.parents) if os.path.exists(at)), "/")  # noqa: PTH110 (it raises nothing)
    if not os.path.isdir(there):  # noqa: PTH112 (it raises nothing)
        return f"{there} is not a folder"
    return "" if os.access(there, os.W_OK | os.X_OK) else f"this user may not write to {there}"


def has_list(path: str | int) -> bool:
    """Whether a file or folder, or that of a descriptor, has an access control list beyond its mode."""
    return _entries(path) is not None


def admit(folder: str, users: Collection[int], groups: Collection[int]) -> None:
    """Let these users and groups, beside root and the owner, reach what is in a folder, and nobody else.

    Raises:
        OSError: it cannot be done.
    """
    with suppress(OSError):  # there is none
        os.removexattr(folder, _ACL)
    Path(folder).chmod(0o700)
    if len(groups) == 1 and not users:
        with suppress(OSError):  # a group of which this user is no member
            os.chown(folder, -1, *groups)
            Path(folder).chmod(0o710)  # the group may pass
            return
    nobody = 0xFFFFFFFF  # ACL_UNDEFINED_ID, of entries that name nobody
    entries = [
        (_OWNER, _ALL, nobody),
        *((_USER, _ENTER, uid) for uid in sorted(users)),
        (_OWN_GROUP, 0, nobody),
        *((_GROUP, _ENTER, gid) for gid in sorted(groups)),
        (_MASK, _ENTER, nobody),
        (_EVERYBODY, 0, nobody),
    ]
    os.setxattr(folder, _ACL, _VERSION.pack(_ACL_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries))


def how_to_fix(path: str, uid: int) -> str:
    """The command that leaves a file to the user `uid` alone."""
    commands = [f"setfacl -b {path}"] if _entries(path) else []
    if Path(path).stat().st_uid != uid:
        commands.append(f"chown {uid} {path}")
    return "; ".join([*commands, f"chmod 0400 {path}"])


def _entries(path: str | int) -> list[tuple[int, int, int]] | None:
    """The access control list as (tag, rights, id); None: there is none, or the file system knows of none."""
    try:
        data = os.getxattr(path, _ACL)
    except OSError:
        return None
    return list(_ENTRY.iter_unpack(data[_VERSION.size :]))


def mode_text(path: str) -> str:
    """The mode as chmod takes it."""
    return f"{stat.S_IMODE(Path(path).stat().st_mode):04o}"
