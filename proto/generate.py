"""Generate edge/rpc/_generated from proto/*.proto, or check that it is current: python -m proto.generate [--check]."""

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
GENERATED = HERE.parent / "edge" / "rpc" / "_generated"
SUFFIXES = ("_pb2.py", "_pb2.pyi")


def generate(target: Path) -> None:
    """Write the modules of every definition into `target`."""
    sources = sorted(str(path) for path in HERE.glob("*.proto"))
    if protoc.main(["protoc", f"-I{HERE}", f"--python_out={target}", f"--pyi_out={target}", *sources]) != 0:
        raise SystemExit("proto: the definitions do not compile")


def main() -> int:
    """Generate, or with --check compare; returns the exit code."""
    if "--check" not in sys.argv[1:]:
        generate(GENERATED)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    kept = {path.name: path.read_bytes() for path in GENERATED.iterdir() if path.name.endswith(SUFFIXES)}
    if fresh != kept:
        sys.stderr.write("edge/rpc/_generated is not what proto/ says; run: make proto\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
