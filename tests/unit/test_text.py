"""Foreign text is printable, on one line and bounded wherever it is shown (X-5)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.text import PRINTABLE_CHARACTERS, SHOWN_CHARACTERS, counted, cut, printable, shown


@given(st.text(max_size=400), st.integers(3, 300))
def test_whatever_it_is_it_prints_on_one_line_of_bounded_length(text: str, most: int) -> None:
    assert printable(text, most).isprintable() and len(printable(text, most)) <= most
    assert shown(text).isprintable() and len(shown(text)) <= SHOWN_CHARACTERS
    printable(text, most).encode(), shown(text).encode()  # lone surrogates too


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("words, größer ✓", "words, größer ✓"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\udcff", r"\udcff"),
        ("x" * PRINTABLE_CHARACTERS, "x" * PRINTABLE_CHARACTERS),
        ("x" * 10_000_000, "x" * (PRINTABLE_CHARACTERS - 3) + "..."),
    ],
)
def test_a_foreign_text_for_a_line(text: str, seen: str) -> None:
    assert printable(text) == seen


def test_a_value_in_a_sentence_is_quoted() -> None:
    assert shown("it's\n") == '"it\'s\\n"'
    assert shown("x" * 100) == "'" + "x" * (SHOWN_CHARACTERS - 4) + "..."
    assert cut("short", 5) == "short" and cut("longer", 5) == "lo..."


def test_counted() -> None:
    assert [counted(n, "call") for n in (0, 1, 2)] == ["0 calls", "1 call", "2 calls"]
