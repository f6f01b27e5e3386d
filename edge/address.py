"""What the word that names a socket means, in the agent, its watchdog and its client (X-10).

A word is a path as it stands, whatever is in it, unless it begins as gRPC's names of Unix sockets do: `unix:PATH`,
`unix:///PATH`, `unix-abstract:NAME`. Inside the program a socket is named as the kernel does: by its absolute path, or by its
abstract name behind a NUL.
"""

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from edge.errors import SocketAddressError
from edge.text import printable, shown

_ABSTRACT = "\0"


def read(word: str) -> str:
    """The socket that a person's word names.

    Raises:
        SocketAddressError: it has the form of gRPC's names and is none.
    """
    if word.startswith("unix-abstract:"):
        return _ABSTRACT + _decoded(word, word.removeprefix("unix-abstract:"))
    if not word.startswith("unix:"):
        return str(Path(word).absolute())
    path = word.removeprefix("unix:")
    if path.startswith("//"):
        path = path[2:]
        if not path.startswith("/"):
            raise SocketAddressError(f"socket {shown(word)}: expected unix:///PATH, with an absolute path")
    return str(Path(_decoded(word, path)).absolute())


def _decoded(word: str, text: str) -> str:
    if not text or re.search(r"[?#]|%(?![0-9A-Fa-f]{2})", text):
        raise SocketAddressError(
            f"socket {shown(word)}: expected a name in which ?, # and % are written %3F, %23 and %25"
        )
    return os.fsdecode(unquote_to_bytes(os.fsencode(text)))


def is_abstract(socket: str) -> bool:
    """Whether it has a name of its own and no file."""
    return socket.startswith(_ABSTRACT)


def target(socket: str) -> str:
    """What gRPC calls it: a URI."""
    scheme, name = ("unix-abstract:", socket[1:]) if is_abstract(socket) else ("unix:", socket)
    return scheme + quote(os.fsencode(name))


def for_admins(socket: str) -> str:
    """The socket that edge_admins may use, beside one that has a file (X-15)."""
    return f"{socket}.admin/agent.sock"


def display(socket: str) -> str:
    """What people call it, printable."""
    return printable(f"unix-abstract:{socket[1:]}" if is_abstract(socket) else socket)
