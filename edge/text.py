"""Text from outside, made fit for a message, a log line or a terminal: printable, on one line, of bounded length. Pure.

Whatever a client, a server, a package or a library says is shown through one of these; the work is bounded as the result is.
"""

SHOWN_CHARACTERS = 80
PRINTABLE_CHARACTERS = 200


def cut(text: str, most: int) -> str:
    """`text`, or as much of it as `most` characters take with "..." at the end."""
    return text if len(text) <= most else text[: most - 3] + "..."


def is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8; a path or a JSON escape need not be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str, most: int = PRINTABLE_CHARACTERS) -> str:
    """`text` on one line of at most `most` characters: a character that does not print stands as its escape, `\\x1b`."""
    head = text[: most + 1]
    if not head.isprintable():
        head = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in head)
    return cut(head, most)


def shown(value: str) -> str:
    """A value in quotes, for the middle of a sentence; the closing quote goes where it is cut."""
    return cut(repr(value[: SHOWN_CHARACTERS + 1]), SHOWN_CHARACTERS)


def counted(number: int, noun: str) -> str:
    """`1 capture`, `2 captures`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
