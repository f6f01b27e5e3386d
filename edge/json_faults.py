"""What is wrong with a text that is not JSON, for the person who wrote it."""

import json


def explain(error: json.JSONDecodeError) -> str:
    """Where the fault is, and what it most likely is, in a few words."""
    text, place = error.doc, error.pos
    before = text[:place].rstrip()
    if before.endswith(",") and text[place:].lstrip()[:1] in ("}", "]"):
        place = len(before) - 1  # Python 3.13 points at the comma, earlier ones at the bracket after it
    line, column = text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
    return f"line {line}, column {column}: {_cause(text, place) or error.msg}"


def _cause(text: str, place: int) -> str:
    if not text.strip():
        return "the text is empty"
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
    return ""
