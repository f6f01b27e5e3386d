"""All checks of the installed package, in order."""

import importlib
import sys

import harness

for part in ("install", "hangs", "models", "uploads", "operation", "removal"):
    importlib.import_module(part)

if __name__ == "__main__":
    sys.exit(harness.run_checks())
