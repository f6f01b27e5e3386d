"""Which C library each bundled file needs. More than FLOOR fails the build: it is a promise to users."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

# Debian 11, Ubuntu 20.04 and so NVIDIA JetPack 5.
FLOOR = (2, 31)
ELF_MAGIC = b"\x7fELF"


def elf_files(tree: Path) -> list[Path]:
    """Every ELF file below `tree`, sorted."""

    def is_elf(path: Path) -> bool:
        if path.is_symlink() or not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(4) == ELF_MAGIC

    return sorted(path for path in tree.rglob("*") if is_elf(path))


def needs(path: Path) -> tuple[int, ...]:
    """The newest glibc symbol version that the file asks for; () if none."""
    shown = subprocess.run(["readelf", "-V", "--wide", path], capture_output=True, text=True, check=True).stdout
    wanted = shown.partition("Version needs section")[2]
    versions = (tuple(int(n) for n in v.split(".")) for v in re.findall(r"Name: GLIBC_([0-9.]+)", wanted))
    return max(versions, default=())


def text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version)) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="table: version, bytes, file")
    options = parser.parse_args()
    rows = sorted(((needs(path), path) for path in elf_files(options.tree)), reverse=True)
    options.output.write_text(
        "".join(f"{text(v)}\t{p.stat().st_size}\t{p.relative_to(options.tree)}\n" for v, p in rows)
    )
    over = [f"{path.name} needs {text(version)}" for version, path in rows if version > FLOOR]
    if over:
        sys.exit(f"glibc {text(FLOOR)} is promised, but " + "; ".join(over))


if __name__ == "__main__":
    main()
