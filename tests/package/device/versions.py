"""Packages of a model in several versions, of which some must never replace another: `make_versions`."""

import shutil
import subprocess
from pathlib import Path

import numpy as np

from edge.package.identity import load_identity
from edge.package.making import make_package
from edge.package.manifest import Manifest
from edge.package.selftest import SELFTEST_DATA, SELFTEST_FILE, Case, GoldenTensor, SelfTest, format_selftest
from edge.tensors import DType
from tests.data import hard_models

DELEGATE = Path(__file__).resolve().parents[2] / "data/delegate/delegate.c"
COMPILERS = {"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"}
WHERE = "/srv/test/delegates"  # of the machine under test
TRIAL_SECONDS = 3
LATER = "2.0"
FAILING = "5.0"  # fails to divide by 3
LATER_SECONDS = {"amd64": 15, "arm64": 180}  # a trial is over before


def make_versions(folder: Path, ca: Path, architecture: str) -> dict[str, str]:
    """Packages `division-VERSION` in folder/packages: what the device is to say of each that it must refuse.

    The model divides. Of LATER nothing is to be said at first: it crashes the agent some time after its switch. Versions that need
    a delegate are left out where there is no compiler for it.
    """
    identity = load_identity(ca / "signing.key", ca / "signing.pem", None)
    model = folder / "division.tflite"
    model.write_bytes(hard_models.division())
    no_threes = folder / "no-threes.tflite"
    no_threes.write_bytes(hard_models.division(less=3))
    # A model with a delegate runs in the interpreter, whose process a division by zero ends: a trial's zeros must not be one.
    for_delegates = folder / "no-sevens.tflite"
    for_delegates.write_bytes(hard_models.division(less=7))

    def package(version: str, made: dict[str, bytes] | None = None, delegate: str | None = None) -> None:
        file = for_delegates if delegate else model
        manifest = Manifest("division", version, file.name, delegate=delegate, trial_seconds=TRIAL_SECONDS)
        make_package(manifest, file, [], identity, folder / f"packages/division-{version}", made=made)

    for version in ("1.0", "3.0", "4.0"):
        package(version)
    manifest = Manifest("division", FAILING, no_threes.name, trial_seconds=TRIAL_SECONDS)
    make_package(manifest, no_threes, [], identity, folder / f"packages/division-{FAILING}")
    package("1.1", _wrong_selftest())
    refused = {"1.1": "self-test"}
    compiler = shutil.which(COMPILERS[architecture])
    for version, flag, words in (
        ("1.2", "CRASHES", "crashes, SIGSEGV"),
        ("1.3", "SLEEPS", "DEADLINE_EXCEEDED"),
        (LATER, f"CRASHES_AFTER={LATER_SECONDS[architecture]}", ""),
    ):
        if compiler is not None:
            library = folder / "delegates" / f"{version}.so"
            library.parent.mkdir(exist_ok=True)
            command = [compiler, "-shared", "-fPIC", f"-DPREPARE_{flag}", "-o", library, DELEGATE, "-lpthread"]
            subprocess.run(command, check=True)
            package(version, delegate=f"{WHERE}/{library.name}")
            refused[version] = words
    return refused


def _wrong_selftest() -> dict[str, bytes]:
    """A self-test whose expected output is wrong: 6 / 3 is 1."""
    names = (("n", 6), ("d", 3), ("q", 1))
    tensors = [GoldenTensor(name, DType.INT32, (1,), 0.0, 0.0) for name, _ in names]
    case = Case("wrong", tuple(tensors[:2]), tuple(tensors[2:]))
    data = b"".join(np.int32(value).tobytes() for _, value in names)
    return {SELFTEST_FILE: format_selftest(SelfTest((case,))), SELFTEST_DATA: data}
