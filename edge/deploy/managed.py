"""A declared alias, as those who ask are told of it."""

from dataclasses import dataclass, field

from edge.deploy.declaration import Declaration
from edge.deploy.state import AliasState
from edge.errors import DeadlineError, DeclarationError, LoadQueueFullError, MemoryLimitError, StoppingError, StoreError

# Errors that say nothing about the version that was to serve.
PASSING = (DeadlineError, DeclarationError, LoadQueueFullError, MemoryLimitError, OSError, StoppingError, StoreError)


@dataclass
class Managed:
    """A declared alias, as it stands; `state` is what is kept of it."""

    name: str
    state: AliasState = field(default_factory=AliasState)
    declared: Declaration | None = None
    refused: str = ""  # why what is declared does not serve; empty where it does
    passing: bool = False  # with `refused`: for a reason that says nothing about the version, such as want of memory
    untrusted: bool = False  # with `refused`: its signer is not trusted, as this device's roots and clock stand now
    serves: bool = False
