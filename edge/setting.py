"""What a setting is: a row of the table in `edge.settings`. Pure."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

PREFIX = "sagemaker_edge_"  # of the original agent's keys
OWN_PREFIX = "edge_"  # of the keys that only this agent has


def full_key(name: str) -> str:
    """A setting's key as the file has it."""
    return name if name.startswith(OWN_PREFIX) else PREFIX + name


class Kind(Enum):
    """What a value is."""

    TEXT = "text"
    CHOICE = "one of"
    PATH = "path"
    PATHS = "list of paths"
    PRINCIPALS = "list of user:NAME and group:NAME"
    CREDENTIAL = "path or credential"
    URL = "URL"
    INT = "integer"
    BOOL = "true or false"
    POLICIES = "capture policies"


@dataclass(frozen=True)
class Setting:
    """One key. `low` and `high` bound an integer, and `high` the characters of a text."""

    name: str
    kind: Kind
    help: str
    default: str | int | bool | tuple[str, ...] | dict[str, Any] = ""
    required: bool = False
    low: int = 0
    high: int = 4096
    choices: tuple[str, ...] = ()
    pattern: str | None = None
    pattern_text: str = ""

    @property
    def key(self) -> str:
        """The key as the file has it."""
        return full_key(self.name)

    @property
    def expected(self) -> str:
        """What is allowed, in words."""
        if self.kind is Kind.CHOICE:
            return "one of " + ", ".join(f'"{choice}"' for choice in self.choices)
        if self.kind is Kind.INT:
            return f"an integer from {self.low} to {self.high}"
        if self.kind is Kind.URL:
            return "a URL such as https://host:port"
        words = {
            Kind.PATH: "a path, absolute or relative to the agent's working folder",
            Kind.PATHS: "a list of paths",
            Kind.PRINCIPALS: 'a list of "user:NAME" and "group:NAME"',
            Kind.CREDENTIAL: "a path, or $CREDENTIALS_DIRECTORY/NAME",
            Kind.BOOL: "true or false",
            Kind.POLICIES: "an object: a policy for each alias, or for '*'",
        }
        if self.kind in words:
            return words[self.kind]
        return self.pattern_text or f"text of at most {self.high} characters"
