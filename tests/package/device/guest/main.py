"""All checks of the installed package, in order; after the reboot, those of a second boot."""

import importlib
import sys

import harness

FIRST = ("install", "hangs", "models", "uploads", "operation", "removal", "before_reboot")

if __name__ == "__main__":
    booted = harness.STAGE / "booted"
    second = booted.exists()
    booted.touch()
    if second:
        importlib.import_module("rebooted")  # and with it what its checks use of others
        harness.checks[:] = [one for one in harness.checks if one[1].__module__ == "rebooted"]
    else:
        for part in FIRST:
            importlib.import_module(part)
    sys.exit(harness.run_checks())
