"""Reads a recipe as BitBake would, for the checks that must run where BitBake is not.

    python yocto/recipe.py RECIPE.bb --arch arm64                     # its variables and flags as JSON
    python yocto/recipe.py RECIPE.bb --arch arm64 --install S D       # and runs do_install from S into D

Understands what this layer's recipes use: =, ?=, ??=, +=, :append, the architecture's overrides, flags and require.
The parsing is oelint-parser's; BitBake itself has the last word (check.py).
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from oelint_parser.cls_item import FlagAssignment, Function, Inherit, Item, Variable
from oelint_parser.cls_stash import Stash

OVERRIDES = {"arm64": "aarch64", "amd64": "x86-64"}
LINE_CONTINUED = "\x1b"  # oelint-parser's mark

# meta/conf/bitbake.conf of openembedded-core, for a 64-bit target without usrmerge.
DEFAULTS = {
    "bindir": "/usr/bin",
    "libdir": "/usr/lib",
    "nonarch_libdir": "/usr/lib",
    "sbindir": "/usr/sbin",
    "datadir": "/usr/share",
    "docdir": "/usr/share/doc",
    "mandir": "/usr/share/man",
    "sysconfdir": "/etc",
    "localstatedir": "/var",
    "base_sbindir": "/sbin",
    "systemd_unitdir": "/lib/systemd",
    "systemd_system_unitdir": "/lib/systemd/system",
    "PTEST_PATH": "${libdir}/${BPN}/ptest",
}


class Recipe:
    """A recipe's variables, flags and functions, as one architecture ("arm64", "amd64") sees them."""

    def __init__(self, path: Path, arch: str) -> None:
        name, _, version = path.stem.partition("_")
        self._override = OVERRIDES[arch]
        self._values = dict(DEFAULTS, PN=name, BPN=name, PV=version, BP=f"{name}-{version}")
        self._defaults: dict[str, str] = {}
        self._appended: dict[str, str] = {}
        self._flags: dict[str, str] = {}
        self._functions: dict[str, str] = {}
        self._inherits: set[str] = set()
        stash = Stash(quiet=True)
        stash.AddFile(str(path))
        stash.Finalize()
        # `require` is the first line of a .bb here, so what it brings comes first.
        for item in sorted(stash.GetItemsFor(filename=str(path)), key=lambda i: (i.Origin == str(path), i.Line)):
            self._take(item)

    def _take(self, item: Item) -> None:
        if isinstance(item, Inherit):
            self._inherits.update(item.Class.split())
        elif isinstance(item, Function):
            # FuncBody has lost the ends of its lines.
            self._functions[item.FuncName] = item.RealRaw.partition("{\n")[2].rpartition("}")[0]
        elif isinstance(item, FlagAssignment):
            self._flags[f"{item.VarName}[{item.Flag}]"] = item.Value.strip("\"'")
        elif isinstance(item, Variable):
            self._assign(item.VarNameComplete, item.VarOp.strip(), item.VarValueStripped)

    def _assign(self, name: str, operator: str, value: str) -> None:
        value = " ".join(value.replace(LINE_CONTINUED, " ").split())
        words = [word for word in name.split(":") if word not in ("append", self._override)]
        key = ":".join(words)
        if any(not word.startswith("${PN}") for word in words[1:]):
            return  # an override that this target does not have
        if ":append" in name:
            self._appended[key] = self._appended.get(key, "") + " " + value
        elif operator in ("?=", "??="):
            self._defaults.setdefault(key, value)
        elif operator == "+=":
            self._values[key] = f"{self._values.get(key, '')} {value}".strip()
        else:
            self._values[key] = value

    def expand(self, text: str) -> str:
        """Text with every ${NAME} that is known replaced; the others are the shell's."""
        known = dict(self._defaults) | self._values
        before = None
        while before != text:
            before = text
            text = re.sub(r"\$\{([\w-]+)\}", lambda match: known.get(match[1], match[0]), text)
        return text

    def as_json(self) -> dict[str, object]:
        raw = dict(self._defaults) | self._values
        values = {key: raw.get(key, "") + self._appended.get(key, "") for key in raw.keys() | self._appended.keys()}
        return {
            "variables": {self.expand(key): self.expand(value) for key, value in values.items()},
            "flags": {key: self.expand(value) for key, value in self._flags.items()},
            "inherits": sorted(self._inherits),
        }

    def install(self, source: Path, destination: Path) -> None:
        """Runs do_install with S at `source` and D at `destination`."""
        self._values |= {"S": str(source), "UNPACKDIR": str(source.parent), "D": str(destination)}
        destination.mkdir(parents=True, exist_ok=True)
        subprocess.run(["sh", "-euc", "umask 022\n" + self.expand(self._functions["do_install"])], check=True)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--arch", choices=sorted(OVERRIDES), required=True)
    parser.add_argument("--install", nargs=2, type=Path, metavar=("S", "D"))
    arguments = parser.parse_args(argv)
    recipe = Recipe(arguments.recipe.resolve(), arguments.arch)
    json.dump(recipe.as_json(), sys.stdout, indent=1, sort_keys=True)
    if arguments.install:
        recipe.install(*(path.resolve() for path in arguments.install))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
