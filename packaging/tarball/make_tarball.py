"""The release: <VERSION>.tgz with the layout of an Edge Manager release, and sha256_hex.shasum. Same input, same bytes."""

import argparse
import gzip
import hashlib
import io
import stat
import tarfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
EXAMPLE = "examples/ipc_example"
EXAMPLE_FILES = (
    "CMakeLists.txt",
    "README.md",
    "sagemaker_edge.proto",
    "sagemaker_edge_client.cc",
    "sagemaker_edge_client.hh",
    "sagemaker_edge_client_example.cc",
    "shm.cc",
    "shm.hh",
    "street_small.bmp",
)
BINARY = "bin/sagemaker_edge_agent_binary"
CLIENT = "bin/sagemaker_edge_agent_client_example"


def content(binary: Path, attributions: Path) -> dict[str, Path]:
    """Every file of the release and where it comes from; the client is the binary under a second name."""
    return {
        BINARY: binary,
        "docs/api/agent.proto": TOP / "proto/agent.proto",
        "docs/attributions/agent.txt": attributions / "agent.txt",
        "docs/attributions/core.txt": attributions / "core.txt",
        "docs/attributions/sbom.cdx.json": attributions / "sbom.cdx.json",
        "docs/metrics.md": TOP / "docs/metrics.md",
        "docs/metrics/alerts.yml": TOP / "docs/metrics/alerts.yml",
        "docs/metrics/dashboard.json": TOP / "docs/metrics/dashboard.json",
        **{f"docs/{EXAMPLE}/{name}": TOP / EXAMPLE / name for name in EXAMPLE_FILES},
    }


def build(files: dict[str, Path], seconds: int) -> bytes:
    """The compressed archive. The second name of the binary is a hard link: it takes no room, here or on the board."""
    folders = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9, mtime=seconds) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in sorted([*folders, *files, CLIENT]):
            info = tarfile.TarInfo(name)
            info.mtime = seconds
            info.uname = info.gname = "root"
            if name in folders:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            elif name == CLIENT:
                info.type, info.mode, info.linkname = tarfile.LNKTYPE, 0o755, BINARY
                tar.addfile(info)
            else:
                data = files[name].read_bytes()
                info.mode = 0o755 if files[name].stat().st_mode & stat.S_IXUSR and name == BINARY else 0o644
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--attributions", type=Path, required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--seconds", type=int, required=True, help="date of everything inside, seconds since the epoch")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    options = parser.parse_args()
    data = build(content(options.binary, options.attributions), options.seconds)
    options.output.mkdir(parents=True, exist_ok=True)
    name = f"{options.version}.tgz"
    (options.output / name).write_bytes(data)
    (options.output / "sha256_hex.shasum").write_text(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
    print(options.output / name)


if __name__ == "__main__":
    main()
