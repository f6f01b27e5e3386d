"""How a command ends: exit codes that scripts can use, and the errors that lead to them."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes, the same for every command."""

    OK = 0
    REFUSED = 1  # the agent, or a check, said no
    USAGE = 2  # wrong usage, or a file of yours that cannot be used
    UNREACHABLE = 3  # no agent answers on the socket


class CommandError(Exception):
    """Ends a command with a sentence on stderr; never raised itself."""

    exit_code = Exit.REFUSED

    @property
    def details(self) -> dict[str, str]:
        """What `--json` says beside the sentence."""
        return {}


class RefusedError(CommandError):
    """The agent said no; `code` is the gRPC status name."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code

    @property
    def details(self) -> dict[str, str]:
        return {"code": self.code}


class InputError(CommandError):
    """A file or value given to the command cannot be used."""

    exit_code = Exit.USAGE


class UnreachableError(CommandError):
    """No agent answers on the socket."""

    exit_code = Exit.UNREACHABLE
