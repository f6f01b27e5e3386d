"""The program: agent, command-line client and packaging tool in one."""

import sys

from edge.cli import main

if __name__ == "__main__":
    # The compiled program has its own path there; the name that it was called by says what it is.
    if "__compiled__" in globals():
        sys.argv[0] = globals()["__compiled__"].original_argv0
    sys.exit(main())
