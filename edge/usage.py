"""Wrong usage of a command, in one line: argparse prints the whole usage before what is wrong."""

import argparse
from typing import NoReturn

from edge.text import printable

MAX_MESSAGE_CHARACTERS = 1000  # of the message about a wrong command line


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong, and where help is."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {printable(message, MAX_MESSAGE_CHARACTERS)}; try {self.prog} --help\n")
