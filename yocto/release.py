"""Brings the layer up to a release: the versioned recipes with the tarballs' sums, and copies of the shared files.

    python yocto/release.py --tarballs dist       # dist/arm64/VERSION.tgz and dist/amd64/VERSION.tgz; the GPU's beside, if built
    python yocto/release.py --copies              # only the copies
    python yocto/release.py --check               # exit 1 where a copy differs from its source

A layer has to stand alone, so it carries copies of what lives under packaging/ and demo/. They are never edited there.
"""

import argparse
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
LAYER = TOP / "yocto" / "meta-sagemaker-edge-agent"
RECIPE = "sagemaker-edge-agent"
GPU_RECIPE = f"{RECIPE}-gpu"
ARCHES = ("arm64", "amd64")
PROGRAM = "bin/sagemaker_edge_agent_binary"
TRAILER_BYTES = 128
LICENCES = ("docs/attributions/agent.txt", "docs/attributions/core.txt")
GPU_LICENCES = tuple(f"usr/share/doc/{GPU_RECIPE}/{name}" for name in ("LICENSE", "copyright"))

SYSTEMD, AGENT, CONF, DEMO = "packaging/systemd", f"{RECIPE}/files", f"{RECIPE}-conf/files", f"{RECIPE}-demo/files"
# Source pattern below the repository's top -> folder below recipes-edge/ of the layer.
COPIES = [
    (f"{SYSTEMD}/{RECIPE}.service", f"{AGENT}/systemd"),
    (f"{SYSTEMD}/{RECIPE}.sysusers", f"{AGENT}/systemd"),
    (f"{SYSTEMD}/{RECIPE}.tmpfiles", f"{AGENT}/systemd"),
    (f"{SYSTEMD}/examples/*.conf", f"{AGENT}/systemd/examples"),
    ("packaging/man/*.[158]", f"{AGENT}/man"),
    (f"{SYSTEMD}/config.json", CONF),
    (f"{SYSTEMD}/trust-README", CONF),
    ("demo/data/pictures/*_a.bmp", f"{DEMO}/pictures"),
]


def copies(layer: Path) -> dict[Path, Path]:
    """Every copy in the layer, and the file it is a copy of."""
    pairs = {}
    for pattern, folder in COPIES:
        sources = sorted(TOP.glob(pattern))
        if not sources:
            raise SystemExit(f"{pattern}: no such file; the layer cannot be brought up to date")
        pairs |= {layer / "recipes-edge" / folder / source.name: source for source in sources}
    return pairs


def out_of_date(layer: Path) -> list[str]:
    """What `write_copies` would change, in words."""
    pairs = copies(layer)
    changed = [copy for copy, source in pairs.items() if not copy.is_file() or copy.read_bytes() != source.read_bytes()]
    folders = {copy.parent for copy in pairs if copy.parent.name != "files"}
    stray = [file for folder in folders for file in folder.glob("*") if file.is_file() and file not in pairs]
    return [f"{path.relative_to(layer)} differs from its source" for path in changed] + [
        f"{path.relative_to(layer)} has no source" for path in sorted(stray)
    ]


def write_copies(layer: Path) -> None:
    pairs = copies(layer)
    for folder in {copy.parent for copy in pairs if copy.parent.name != "files"}:
        shutil.rmtree(folder, ignore_errors=True)
    for copy, source in pairs.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())


def find_tarballs(folder: Path, recipe: str = RECIPE) -> dict[str, Path]:
    """The tarball of each architecture below `folder`: the release's, or that of GPU_RECIPE.

    Raises:
        SystemExit: one is missing or there are several, or they are of different versions.
    """
    pattern, target = ("[0-9]*.tgz", "tarball") if recipe == RECIPE else (f"{recipe}-*.tgz", "deb-gpu")
    found = {arch: sorted((folder / arch).glob(pattern)) for arch in ARCHES}
    for arch, files in found.items():
        if len(files) != 1:
            raise SystemExit(
                f"{folder / arch}: one {pattern} is wanted here, there are {len(files)}; run 'make {target} ARCH={arch}'"
            )
    if len({files[0].name for files in found.values()}) != 1:
        raise SystemExit(f"{folder}: the architectures' tarballs are of different versions")
    return {arch: files[0] for arch, files in found.items()}


def read(tarball: Path, *names: str) -> list[bytes]:
    """Files of a release.

    Raises:
        SystemExit: one is missing.
    """
    with tarfile.open(tarball) as archive:
        members = {member.name.removeprefix("./"): member for member in archive if member.isfile()}
        if missing := [name for name in names if name not in members]:
            raise SystemExit(f"{tarball}: {', '.join(missing)} missing")
        return [archive.extractfile(members[name]).read() for name in names]  # type: ignore[union-attr]


def program_files(tarball: Path) -> dict[str, bytes]:
    """The program as it is installed: the files packed into the released one, by their paths."""
    [program] = read(tarball, PROGRAM)
    magic, offset, size, *_ = program[-TRAILER_BYTES:].decode("ascii", "replace").split()
    if magic != "sagemaker-edge-payload-1":
        raise SystemExit(f"{tarball}: {PROGRAM} carries no program")
    payload = program[int(offset) : int(offset) + int(size)]
    unpacked = subprocess.run(["zstd", "-dcq"], input=payload, stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        files = {member.name.removeprefix("./"): archive.extractfile(member) for member in archive if member.isfile()}
        return {name: file.read() for name, file in files.items() if file}


def bundled_libraries(tarball: Path) -> set[str]:
    """The sonames of the shared libraries that the program brings along."""
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(program_files(tarball).values()):
            if data.startswith(b"\x7fELF"):
                (Path(folder) / str(number)).write_bytes(data)
        command = ["readelf", "--dynamic", *map(str, Path(folder).iterdir())]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"\(SONAME\).*\[(.+)\]", text))


def assign(name: str, words: list[str]) -> str:
    start = f'{name} = "'
    return f'{start}{(f" {chr(92)}{chr(10)}" + " " * len(start)).join(words)}"'


def _pinned(tarballs: dict[str, Path], licences: tuple[str, ...]) -> list[str]:
    """The lines of a recipe that pin the licences' texts and the tarballs."""
    sums = {arch: hashlib.sha256(tarball.read_bytes()).hexdigest() for arch, tarball in tarballs.items()}
    texts = {
        arch: [
            f"file://{name};md5={hashlib.md5(text).hexdigest()}"
            for name, text in zip(licences, read(tarball, *licences), strict=True)
        ]
        for arch, tarball in tarballs.items()
    }
    if texts["arm64"] == texts["amd64"]:
        lines = [assign("LIC_FILES_CHKSUM", texts["arm64"])]
    else:  # the architectures bundle different libraries
        lines = [assign("LIC_FILES_CHKSUM:aarch64", texts["arm64"]), assign("LIC_FILES_CHKSUM:x86-64", texts["amd64"])]
    return [*lines, "", *(f'SRC_URI[{arch}.sha256sum] = "{sums[arch]}"' for arch in ARCHES)]


def recipe_text(tarballs: dict[str, Path]) -> str:
    """The agent's versioned recipe: what changes from one release to the next, and nothing else."""
    libraries = set().union(*map(bundled_libraries, tarballs.values()))
    lines = [f"require {RECIPE}.inc", "", *_pinned(tarballs, LICENCES)]
    lines += ["", "# What the program brings along is its own business: no other recipe may come to depend on it."]
    lines += ["# nooelint: oelint.vars.mispell.unknown - oelint's list lacks this variable of package.bbclass"]
    lines += [assign("PRIVATE_LIBS:${PN}", sorted(libraries))]
    return "\n".join(lines) + "\n"


def gpu_recipe_text(tarballs: dict[str, Path]) -> str:
    """The same of the package that adds the GPU."""
    return "\n".join([f"require {GPU_RECIPE}.inc", "", *_pinned(tarballs, GPU_LICENCES)]) + "\n"


def _write(folder: Path, version: str, text: str) -> Path:
    for old in folder.glob(f"{folder.name}_*.bb"):
        old.unlink()
    recipe = folder / f"{folder.name}_{version}.bb"
    recipe.write_text(text)
    return recipe


def write_recipe(layer: Path, tarballs: dict[str, Path]) -> Path:
    """Writes the recipe of the tarballs' version in the place of any other version's."""
    return _write(layer / "recipes-edge" / RECIPE, tarballs["arm64"].stem, recipe_text(tarballs))


def write_gpu_recipe(layer: Path, tarballs: dict[str, Path]) -> Path:
    """The same of the package that adds the GPU."""
    version = tarballs["arm64"].stem.removeprefix(f"{GPU_RECIPE}-")
    return _write(layer / "recipes-edge" / GPU_RECIPE, version, gpu_recipe_text(tarballs))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--tarballs", type=Path, metavar="FOLDER")
    what.add_argument("--copies", action="store_true")
    what.add_argument("--check", action="store_true")
    parser.add_argument("--layer", type=Path, default=LAYER, help="another copy of the layer")
    arguments = parser.parse_args(argv)
    if arguments.check:
        faults = out_of_date(arguments.layer)
        print("\n".join([*faults, "Run: make yocto-release"] if faults else ["The layer's copies are up to date."]))
        return 1 if faults else 0
    write_copies(arguments.layer)
    if arguments.tarballs:
        print(write_recipe(arguments.layer, find_tarballs(arguments.tarballs)))
        if any(arguments.tarballs.glob(f"*/{GPU_RECIPE}-*.tgz")):
            print(write_gpu_recipe(arguments.layer, find_tarballs(arguments.tarballs, GPU_RECIPE)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
