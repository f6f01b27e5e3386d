"""Join launcher and program to one file: launcher, tar in zstd, trailer. launcher.c describes the format."""

import argparse
import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

TRAILER_BYTES = 128
MAGIC = "sagemaker-edge-payload-1"
# The window is what the decoder on the board needs of memory, once: 2^25 bytes. One thread: the same bytes each time.
COMPRESS = ["zstd", "--ultra", "-22", "--long=25", "--check", "--single-thread", "--no-progress", "--quiet", "--stdout"]


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("launcher", type=Path)
    parser.add_argument("tree", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    launcher = options.launcher.read_bytes()
    tar = archive(options.tree)
    payload = subprocess.run(COMPRESS, input=tar, stdout=subprocess.PIPE, check=True).stdout
    name = hashlib.sha256(payload).hexdigest()[:32]
    trailer = f"{MAGIC} {len(launcher)} {len(payload)} {len(tar)} {name}".ljust(TRAILER_BYTES - 1) + "\n"
    partial = options.output.with_suffix(".part")
    partial.write_bytes(launcher + payload + trailer.encode())
    partial.chmod(0o755)
    partial.rename(options.output)


if __name__ == "__main__":
    main()
