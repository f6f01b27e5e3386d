"""`python -m bench.engines`: the interpreter packages that could be shipped, compared (docs/adr/0006-engine.md).

Each gets an environment of its own under build/engines; measurements are interleaved, medians are printed as a table.
"""

import json
import statistics
import subprocess
import sys
import venv
from collections import defaultdict
from pathlib import Path

from bench.rig import MODELS
from tests.system.harness import ROOT

NUMPY = "numpy==1.26.4"
ENGINES = ("tflite-runtime==2.14.0", "ai-edge-litert==1.4.0", "ai-edge-litert==2.3.0")
CALLS = {"tiny": 2000, "float32": 40, "int8": 20, "large": 40}
THREADS = (1, 2)
ROUNDS = 5


def environment(package: str) -> Path:
    """The Python of an engine's environment, made at first use."""
    folder = ROOT / "build" / "engines" / package
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        venv.create(folder, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", package, NUMPY], check=True
        )
        (folder / ".ready").touch()
    return python


def main() -> int:
    pythons = {package: environment(package) for package in ENGINES}
    found: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        for model, calls in CALLS.items():
            for threads in THREADS:
                for name, python in pythons.items():
                    command = [
                        str(python), "-m", "bench.engine", str(MODELS[model]), "--calls", str(calls), "--threads", str(threads),
                    ]  # fmt: skip
                    done = subprocess.run(
                        command, input=b"\n", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, cwd=ROOT
                    )
                    found[model, threads, name].append(json.loads(done.stdout)["p50_us"] / 1000)
    print("| model, threads | " + " | ".join(pythons) + " |")
    print("|---|" + "---|" * len(pythons))
    for model in CALLS:
        for threads in THREADS:
            cells = " | ".join(f"{statistics.median(found[model, threads, name]):.3f}" for name in pythons)
            print(f"| {model}, {threads} | {cells} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
