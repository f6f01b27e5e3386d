"""Join launcher and program to one file: launcher, tar in xz, trailer. launcher.c describes the format."""

import argparse
import hashlib
import io
import lzma
import tarfile
from pathlib import Path

TRAILER_BYTES = 128
MAGIC = "sagemaker-edge-payload-1"
ELF_MACHINES = {62: lzma.FILTER_X86}
# The decoder on the board needs this much memory once, at the first start.
DICTIONARY_BYTES = 32 << 20


def archive(tree: Path) -> bytes:
    """The tree as a tar archive that is the same for the same files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(tree.rglob("*")):
            info = tar.gettarinfo(path, str(path.relative_to(tree)))
            info.uid = info.gid = info.mtime = 0
            info.uname = info.gname = ""
            executable = path.is_dir() or (path.suffix == "" and path.stat().st_mode & 0o100)
            info.mode = 0o755 if executable else 0o644
            with path.open("rb") if path.is_file() else io.BytesIO() as file:
                tar.addfile(info, file)
    return buffer.getvalue()


def compress(data: bytes, machine: int) -> bytes:
    """xz, with the filter for the machine's instructions where there is one."""
    lzma2 = {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": DICTIONARY_BYTES}
    filters = [lzma2]
    if machine in ELF_MACHINES:
        filters.insert(0, {"id": ELF_MACHINES[machine]})
    return lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_SHA256, filters=filters)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("launcher", type=Path)
    parser.add_argument("tree", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    launcher = options.launcher.read_bytes()
    tar = archive(options.tree)
    payload = compress(tar, int.from_bytes(launcher[18:20], "little"))
    name = hashlib.sha256(payload).hexdigest()[:32]
    trailer = f"{MAGIC} {len(launcher)} {len(payload)} {len(tar)} {name}".ljust(TRAILER_BYTES - 1) + "\n"
    partial = options.output.with_suffix(".part")
    partial.write_bytes(launcher + payload + trailer.encode())
    partial.chmod(0o755)
    partial.rename(options.output)


if __name__ == "__main__":
    main()
