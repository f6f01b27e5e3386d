"""Stands in for a module that the agent does not use: it imports, and says so when it is called."""

from typing import NoReturn


def __getattr__(name: str) -> NoReturn:
    if name.startswith("__") or name == "test":
        raise AttributeError(name)
    raise NotImplementedError(f"{__name__}.{name} is not part of this program")
