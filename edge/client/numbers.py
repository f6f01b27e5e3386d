"""Numbers among the words of a command: types for argparse, which names the option and its value."""

import argparse
import math

from edge.package.selftest import MAX_TOLERANCE


def seconds(text: str) -> float:
    """A time, 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; expected a number of seconds, 0 or more")
    return number


def count(text: str) -> int:
    """A whole number, 1 or more."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; expected a whole number, 1 or more")
    return number


def tolerance(text: str) -> float:
    """What a number may be off by, 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= MAX_TOLERANCE:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; expected a number, 0 to {MAX_TOLERANCE:g}")
    return number


def percent(text: str) -> float:
    """A share of all, over 0 and at most 100."""
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = math.nan
    if not 0 < number <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; expected a percentage, over 0 and at most 100")
    return number
