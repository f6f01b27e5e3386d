"""Who may load, unload and replace models (edge_admins, X-15).

gRPC does not tell whose connection a call came by, and nothing can tell afterwards. So administrators have a socket of their own, in
a folder that lets only them pass: the kernel decides who connects. docs/adr/0040-administrators.md weighs it.
"""

import grp
import os
import pwd
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge import access, address
from edge.durable import why
from edge.errors import ConfigError, DeniedError, SocketInUseError
from edge.serving.caller import Caller
from edge.text import shown

ADMIN_CALLS = frozenset(
    (
        "LoadModel",
        "UnLoadModel",
        "ApplyModels",
        "RollbackModel",
        "CheckFleet",
        "RepositoryModelLoad",
        "RepositoryModelUnload",
    )
)


@dataclass(frozen=True)
class Admins:
    """Users and groups by number, as `words` name them, and the socket that they use."""

    socket: str
    words: tuple[str, ...]
    users: frozenset[int]
    groups: frozenset[int]

    def make_folder(self) -> None:
        """Make the socket's folder, which lets them pass and nobody else.

        Raises:
            SocketInUseError: it cannot be made, or is not this user's own.
        """
        folder = Path(self.socket).parent
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            there = folder.lstat()
            if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.geteuid():
                raise SocketInUseError(f"{folder}, the folder for edge_admins, is another's; remove it")
            access.admit(str(folder), self.users, self.groups)
        except OSError as error:
            raise SocketInUseError(
                f"{folder}, the folder for edge_admins, cannot be made or opened to {', '.join(self.words)}: {why(error)} (a service "
                "needs PrivateUsers=no for users and groups that are not its own)"
            ) from None

    def remove_folder(self) -> None:
        """Remove it where nothing is in it."""
        with suppress(OSError):
            Path(self.socket).parent.rmdir()

    def denial(self, name: str) -> Callable[[bytes, Caller], bytes]:
        """The handler of an administrator's call by its name, for everybody else."""
        text = (
            f"{name} is for administrators (edge_admins: {', '.join(self.words)}); make the call on unix:{self.socket}, where only "
            "they, root and the agent's user can connect"
        )

        def deny(raw: bytes, caller: Caller) -> bytes:
            raise DeniedError(text)

        return deny


def admins(words: Sequence[str], socket: str) -> Admins | None:
    """Whom `edge_admins` names, for the agent's socket as edge.address has it; None where it is not set.

    Raises:
        ConfigError: this machine does not know one of them, or the socket has no folder.
    """
    if not words:
        return None
    if address.is_abstract(socket):
        raise ConfigError("edge_admins needs a socket that is a file: an abstract one has no folder to keep others out")
    users, groups, unknown = set[int](), set[int](), []
    for word in words:
        kind, _, name = word.partition(":")
        try:
            if kind == "user":
                users.add(int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid)
            else:
                groups.add(int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid)
        except (KeyError, ValueError):
            unknown.append(f"edge_admins: this machine knows no {kind} {shown(name)}")
    if unknown:
        raise ConfigError("\n".join(unknown))
    return Admins(address.for_admins(socket), tuple(words), frozenset(users), frozenset(groups))
