"""Which packages of the host system the built program needs, as a substvar for debian/control.

Reads the ELF files themselves, so that it works for a machine whose libraries are not installed here.

    shlibs.py TREE
"""

import re
import subprocess
import sys
from pathlib import Path

PACKAGES = {
    "libc6": r"lib(c|m|dl|pthread|rt|util|resolv|nsl|crypt_stub|anl|BrokenLocale)\.so\.\d+|ld-linux.*\.so\.\d+",
    "libgcc-s1": r"libgcc_s\.so\.1",
    "libstdc++6": r"libstdc\+\+\.so\.6",
    "zlib1g": r"libz\.so\.1",
}


def elf_files(tree: Path) -> list[Path]:
    return sorted(
        p for p in tree.rglob("*") if p.is_file() and not p.is_symlink() and p.open("rb").read(4) == b"\x7fELF"
    )


def dynamic_section(file: Path) -> tuple[set[str], set[tuple[int, ...]]]:
    """The libraries a file needs, and the versions of glibc that its symbols name."""
    text = subprocess.run(
        ["readelf", "--wide", "--dynamic", "--version-info", str(file)], capture_output=True, text=True, check=True
    ).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", text))
    versions = {tuple(map(int, v.split("."))) for v in re.findall(r"Name: GLIBC_([0-9.]+)\b", text)}
    return needed, versions


def dependencies(tree: Path) -> str:
    """The Depends of all ELF files below `tree`.

    Raises:
        SystemExit: a library is neither bundled nor known.
    """
    files = elf_files(tree)
    bundled = {file.name for file in files}
    packages: set[str] = set()
    floor: tuple[int, ...] = (2, 17)
    for file in files:
        needed, versions = dynamic_section(file)
        floor = max([floor, *versions])
        for soname in needed - bundled:
            found = [package for package, names in PACKAGES.items() if re.fullmatch(names, soname)]
            if not found:
                raise SystemExit(f"{file}: needs {soname}, which is neither bundled nor in a known package")
            packages.update(found)
    glibc = ".".join(map(str, floor))
    return ", ".join(
        f"libc6 (>= {glibc})" if package == "libc6" else package for package in sorted(packages | {"libc6"})
    )


if __name__ == "__main__":
    print("shlibs:Depends=" + dependencies(Path(sys.argv[1])))
