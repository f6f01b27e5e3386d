"""What the model saw and said, a card for each picture, side by side."""

import os
import shutil
import statistics
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

CARD_WIDTH = 25  # characters, with the gap to the next
MOST_COLUMNS = 4
INK = 0.35  # darker than this is paper, where there are no colours


@dataclass(frozen=True)
class Card:
    """One picture, `grey` [8, 8] in 0..1, and what became of it; times in milliseconds."""

    grey: npt.NDArray[Any]
    says: int
    truth: int
    confidence: float
    inline_ms: float
    shared_ms: float
    capture_id: str


def sheet(cards: list[Card]) -> str:
    """All cards, as many side by side as the terminal takes."""
    columns = max(1, min(MOST_COLUMNS, shutil.get_terminal_size().columns // CARD_WIDTH))
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    rows = []
    for start in range(0, len(cards), columns):
        drawn = [_card(card, coloured) for card in cards[start : start + columns]]
        rows.append("\n".join("  " + "".join(parts).rstrip() for parts in zip(*drawn, strict=True)))
    return "\n\n".join(rows)


def summary(cards: list[Card]) -> str:
    """The median of a call, each way."""
    inline, shared = (
        statistics.median(times) for times in ([c.inline_ms for c in cards], [c.shared_ms for c in cards])
    )
    return f"{inline:.2f} ms inline, {shared:.2f} ms shared"


def _card(card: Card, coloured: bool) -> list[str]:
    picture = _half_blocks(card.grey, coloured)
    right = card.says == card.truth
    words = [
        f"{card.says} {'✓' if right else '✗'} {card.confidence:7.2%}",
        f"truth  {card.truth}",
        f"inline {_milliseconds(card.inline_ms)}",
        f"shared {_milliseconds(card.shared_ms)}",
    ]
    words = [f"{word:<{CARD_WIDTH - 10}}" for word in words]
    if coloured:
        words[0] = f"\033[1;{32 if right else 31}m{words[0]}\033[0m"
    return [f"{line}  {word}" for line, word in zip(picture, words, strict=True)]


def _milliseconds(value: float) -> str:
    return f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"


def _half_blocks(grey: npt.NDArray[Any], coloured: bool) -> list[str]:
    """Two rows of pixels a line: the upper is the block's ink, the lower the ground behind it."""
    if not coloured:
        ink = grey > INK
        return [
            "".join(" ▄▀█"[2 * int(a) + int(b)] for a, b in zip(*pair, strict=True))
            for pair in zip(ink[::2], ink[1::2], strict=True)
        ]
    levels = 232 + np.rint(np.clip(grey, 0, 1) * 23).astype(int)  # the 24 greys of a 256-colour terminal
    return [
        "".join(f"\033[38;5;{a};48;5;{b}m▀" for a, b in zip(*pair, strict=True)) + "\033[0m"
        for pair in zip(levels[::2], levels[1::2], strict=True)
    ]
