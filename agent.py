"""The program: agent, command-line client and packaging tool in one."""

import sys

from edge.cli import main

if __name__ == "__main__":
    sys.exit(main())
