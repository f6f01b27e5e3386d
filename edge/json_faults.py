"""What is wrong with a text that is not JSON, for the person who wrote it."""

import json


def explain(error: json.JSONDecodeError) -> str:
    """Where the fault is, and what it most likely is, in a few words."""
    text, place = error.doc, error.pos
    before = text[:place].rstrip()
    if before.endswith(",") and text[place:].lstrip()[:1] in ("}", "]"):
        place = len(before) - 1  # Python 3.13 points at the comma, earlier ones at the bracket after it
    line, column = text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
    return f"line {line}, column {column}: {_cause(text, place, error.msg) or _said(error)}"


def _said(error: json.JSONDecodeError) -> str:
    """What Python's reader found, in the words of JSON."""
    if not error.doc[error.pos :].strip():
        return "the text ends too early: a value, a quote, or one of ] and } is missing"
    for beginning, words in _WORDS:
        if error.msg.startswith(beginning):
            return words
    return error.msg


_WORDS = (
    ("Expecting property name", "expected a name in double quotes"),
    ("Expecting value", "expected a value: text in double quotes, a number, true, false, null, [ or {"),
    ("Expecting ':'", "expected a colon after the name"),
    ("Expecting ','", "expected a comma, or the closing ] or }"),
    ("Illegal trailing comma", "a comma after the last entry, which JSON does not allow"),
    ("Extra data", "there is more after the end"),
    ("Unterminated string", "the closing double quote of this text is missing"),
    (
        "Invalid control character",
        "a line's end, a tab or another control character in a text; JSON writes it \\n, \\t or \\u0009",
    ),
    ("Invalid", "a backslash that begins nothing JSON knows; a backslash itself is written \\\\"),
    ("Unexpected UTF-8 BOM", "a byte order mark, which JSON does not allow: save the file as UTF-8 without it"),
)


def _cause(text: str, place: int, said: str) -> str:
    if not text.strip():
        return "the text is empty"
    if not said.startswith(("Expecting", "Illegal", "Extra")):
        return ""
    before, here = text[:place].rstrip(), text[place:].lstrip()
    if here[:1] == "," and here[1:].lstrip()[:1] in ("}", "]"):
        return "a comma after the last entry, which JSON does not allow"
    if here.startswith(("//", "/*", "#")):
        return "a comment, which JSON does not allow"
    if here.startswith("'"):
        return "a single quote; JSON needs double quotes"
    if here.startswith('"') and before and before[-1] not in ",:{[":
        return "a comma is missing before this"
    if here.startswith(("True", "False", "None")):
        return "JSON spells true, false and null in lower case"
    if here[:1] in ("\u201c", "\u201d", "\u201e"):
        return "a typographic quote; JSON needs plain double quotes"
    if here[:1].isalpha() or here[:1] in ("/", "_", "~"):  # not shown: it may be a secret
        return "" if before and before[-1] not in ",:{[" else "text without quotes; JSON needs double quotes around it"
    return ""
