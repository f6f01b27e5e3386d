"""What the original example client printed, which scripts in the field look for: its words answer with these lines.

Recorded in the README of its releases of 2020 to 2022. More may stand between them, indented, and after them.
"""

from argparse import Action, ArgumentError, ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.client import ORIGINAL, ORIGINAL_PREDICTS
from edge.client.outcome import CommandError, RefusedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORDS = frozenset({*(word for words in ORIGINAL.values() for word in words), *ORIGINAL_PREDICTS})
LAYOUTS = ("NHWC", "NCHW")


def is_original(options: Namespace) -> bool:
    """Whether a command was given in the original client's words, for its answer as text."""
    return options.word in WORDS and not options.json


def _call(word: str) -> str:
    """What it called a command when it told how that ended."""
    return {"UnloadModel": "UnLoadModel"}.get(word, "Predict" if word.startswith("Predict") else word)


def ended(options: Namespace, *lines: str) -> str:
    """Lines, and that the command succeeded."""
    return "\n".join((*lines, f"{_call(options.word)} succeeded"))


def failed(options: Namespace, error: CommandError) -> str:
    """That the command failed, after the reason where it gave one."""
    code, lines = error.code if isinstance(error, RefusedError) else "", []
    if code == "ALREADY_EXISTS":
        lines.append(f"Alias {options.name} has been used")
    elif code == "NOT_FOUND" and _call(options.word) in ("UnLoadModel", "DescribeModel", "Predict"):
        lines.append(f"Model {options.name} has not been loaded")
    return "\n".join((*lines, f"{_call(options.word)} failed"))


def listed(names: Sequence[str]) -> tuple[str, ...]:
    """The loaded models."""
    return (f"There are {len(names)} models", *(f"Model {n}  {name}" for n, name in enumerate(names)))


def outputs(arrays: "Sequence[NDArray[Any]]") -> list[str]:
    """Every value of every output, fractions with six digits as C++ prints them."""
    lines = []
    for n, array in enumerate(arrays, 1):
        values = (f"{v:.6g} " if isinstance(v, float) else f"{int(v)} " for v in array.reshape(-1).tolist())
        lines += [f"Flattened RAW Output Tensor:{n}", "".join(values)]
    return lines


@dataclass(frozen=True)
class PictureSize:
    """Pixels and channels that a picture is given with; `layout` where it was said."""

    width: int
    height: int
    channels: int
    layout: str | None = None


def _size(words: Sequence[str]) -> PictureSize:
    """`w h c`, or as the release of 2022 has it, a layout and its four dimensions. Raises ValueError."""
    if words[0].upper() in LAYOUTS:
        layout = words[0].upper()
        count, *rest = map(int, words[1:])
        high, wide, channels = rest if layout == "NHWC" else (*rest[1:], rest[0])
        if count != 1:
            raise ValueError("one picture at a time")
        return PictureSize(wide, high, channels, layout)
    wide, high, channels = map(int, words)
    return PictureSize(wide, high, channels)


class SizeAction(Action):
    """The words of a picture's size, as one `PictureSize`."""

    def __call__(self, parser: ArgumentParser, namespace: Namespace, values: Any, option: str | None = None) -> None:
        try:
            setattr(namespace, self.dest, _size(values))
        except ValueError:
            text = f"{' '.join(values)!r} is not allowed; expected w h c, or NHWC 1 h w c, or NCHW 1 c h w"
            raise ArgumentError(self, text) from None
