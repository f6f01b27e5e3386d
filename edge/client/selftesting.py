"""The self-test of a package as its maker sees it: cases from files, outputs recorded, and a run without an agent (L-13)."""

import os
import zipfile
import zlib
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from edge.arrays import dtype_of, numpy_dtype
from edge.durable import write_all
from edge.engine.engine import DelegateRef, SessionOptions
from edge.engine.engines import Engines
from edge.engine.samples import Sample
from edge.engine.tflite import TfliteEngine
from edge.errors import PackageError
from edge.package.adapter import view
from edge.package.manifest import Manifest
from edge.package.open import Package
from edge.package.selftest import (
    MAX_TOLERANCE,
    SELFTEST_DATA,
    SELFTEST_FILE,
    Case,
    GoldenTensor,
    SelfTest,
    format_selftest,
    parse_selftest,
)
from edge.serving.opening import default_threads, options_for, try_out
from edge.serving.selftest import Model, run_selftest
from edge.tensors import DType, TensorSpec, integer_range, positions
from edge.text import shown

SUFFIXES = (".npy", ".npz")
# What a float output may be off by unless the maker says: of the value, and of the largest in the tensor. An engine for another
# processor adds up in another order; a wrong kernel is off by far more.
RELATIVE, OF_LARGEST = 1e-3, 1e-4
RELATIVE_FLOAT16, OF_LARGEST_FLOAT16 = 1e-2, 1e-3

Array = np.ndarray[Any, Any]
Specs = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]


@dataclass(frozen=True)
class Made:
    """A self-test for a package: its files, how many cases it has, of how many the outputs were recorded, what was not done."""

    files: dict[str, bytes]
    cases: int
    recorded: int
    note: str = ""


def make_selftest(
    source: Path, model: Path, manifest: Manifest, sample: Path | None, tolerance: tuple[float, float] | None
) -> Made:
    """Read the cases, run them, and record the outputs of those that have none.

    Args:
        source: a folder of .npz and .npy files, or one such file; each is a case.
        sample: the file of the package's sample, if it has one.
        tolerance: absolute and relative, of every output; None: by its dtype.

    Raises:
        PackageError: a file cannot be used, or names what the model does not have.
        EdgeError: the model cannot be run, or answers otherwise than a case says.
    """
    specs = _specs(model, manifest)
    given = [_Given(file.stem, *_arrays(file, specs)) for file in _files(source)]
    recorded = sum(not one.outputs for one in given)
    if manifest.delegate is not None and not Path(manifest.delegate).exists():
        if recorded:
            raise PackageError(
                f"the outputs of {recorded} cases cannot be recorded here, where the delegate {manifest.delegate} is not; give"
                " them beside the inputs, in an .npz for each case"
            )
        note = f"not run here, where the delegate {manifest.delegate} is not"
        return Made(_files_of(given, tolerance), len(given), 0, note)
    with ExitStack() as stack:
        sample_fd = stack.enter_context(sample.open("rb")).fileno() if sample is not None else None
        tried = _tried(stack.enter_context(model.open("rb")).fileno(), manifest, sample_fd)
        files = _files_of(given, tolerance, recorded=False)
        data_fd, record_fd = _memory(stack, files[SELFTEST_DATA]), _memory(stack, b"")
        selftest = parse_selftest(files[SELFTEST_FILE], len(files[SELFTEST_DATA]), recorded=False)
        done = run_selftest(tried, selftest, data_fd, record_fd=record_fd)
        with os.fdopen(os.dup(record_fd), "rb") as record:
            record.seek(0)
            for one, case in zip(given, done.cases, strict=True):
                if not one.outputs:
                    one.outputs = [(tensor.name, _read_array(record, tensor)) for tensor in case.outputs]
    return Made(_files_of(given, tolerance), len(given), recorded)


def run_here(package: Package) -> int:
    """Try a package's model out and run its self-test, as an agent would; how many cases that had.

    Raises:
        EdgeError: the model cannot be run here, or fails the self-test.
    """
    tried = _tried(package.model_fd, package.manifest, package.sample_fd)
    if package.selftest is None or package.selftest_fd is None:
        return 0
    run_selftest(tried, package.selftest, package.selftest_fd)
    return len(package.selftest.cases)


def _tried(fd: int, manifest: Manifest, sample_fd: int | None) -> Model:
    """A model that was tried out, as an agent would serve it here."""
    engines = Engines()
    engines.prepare()
    delegate = DelegateRef(manifest.delegate) if manifest.delegate else None
    options = options_for(manifest, threads=default_threads(manifest.instances or 1), delegate=delegate)
    sample = Sample(manifest.sample_shapes, sample_fd)
    options, _ = try_out(fd, manifest, options, sample, engines=engines)
    return Model(fd, manifest, options, engines.describe(options.engine))


# --- cases from files ----------------------------------------------------------


@dataclass
class _Given:
    """A case as its file has it: arrays by tensor, in the model's order."""

    name: str
    inputs: list[tuple[str, Array]]
    outputs: list[tuple[str, Array]]


def _specs(model: Path, manifest: Manifest) -> Specs:
    """The tensors as applications see them."""
    wanted = SessionOptions(signature=manifest.signature, signature_names=manifest.names == "signature", allocate=False)
    session = TfliteEngine().open(str(model), wanted)
    try:
        return view(session.inputs, manifest.inputs, "inputs"), view(session.outputs, manifest.outputs, "outputs")
    finally:
        session.close()


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        if source.suffix not in SUFFIXES:
            raise PackageError(f"--selftest {source} is neither a folder nor an .npz or .npy file")
        return [source]
    files = sorted(file for file in source.iterdir() if file.suffix in SUFFIXES)
    if not files:
        raise PackageError(f"--selftest {source} holds no .npz or .npy file")
    return files


def _arrays(file: Path, specs: Specs) -> tuple[list[tuple[str, Array]], list[tuple[str, Array]]]:
    """The arrays of a file for inputs and for outputs."""
    named = _load(file, specs[0])
    sides = [positions(some) for some in specs]
    found: list[dict[int, Array]] = [{}, {}]
    for name, array in named.items():
        side = next((side for side in (0, 1) if name in sides[side]), None)
        if side is None:
            known = ", ".join(shown(spec.name) for some in specs for spec in some)
            raise PackageError(f"{file}: {shown(name)} is neither input nor output of the model, which has {known}")
        at = sides[side][name]
        spec = specs[side][at]
        if at in found[side]:
            raise PackageError(f"{file}: {shown(spec.name)} is given twice, by both its names")
        if dtype_of(array.dtype) is not spec.dtype:
            raise PackageError(f"{file}: {shown(name)} is {array.dtype}; the model has {spec.dtype.name}")
        found[side][at] = np.asarray(array, order="C")
    if missing := [spec.name for at, spec in enumerate(specs[0]) if at not in found[0]]:
        raise PackageError(f"{file}: there is no array for input {shown(missing[0])}")
    inputs, outputs = ([(some[at].name, one[at]) for at in sorted(one)] for some, one in zip(specs, found, strict=True))
    return inputs, outputs


def _load(file: Path, inputs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            if len(inputs) != 1:
                raise PackageError(
                    f"{file} is one array, and the model has {len(inputs)} inputs; give an .npz with an array for each"
                )
            return {inputs[0].name: loaded}
        with loaded as archive:
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise PackageError(f"{file} cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error):
        raise PackageError(f"{file} is not an .npy or .npz of numbers, or damaged") from None


# --- files for a package -------------------------------------------------------


def _files_of(given: list[_Given], tolerance: tuple[float, float] | None, *, recorded: bool = True) -> dict[str, bytes]:
    """The self-test's files."""
    cases = tuple(
        Case(
            one.name,
            tuple(_golden(name, array) for name, array in one.inputs),
            tuple(_tolerant(_golden(name, array), array, tolerance) for name, array in one.outputs),
        )
        for one in given
    )
    data = b"".join(array.tobytes() for one in given for _, array in (*one.inputs, *one.outputs))
    return {SELFTEST_FILE: format_selftest(SelfTest(cases), recorded=recorded), SELFTEST_DATA: data}


def _golden(name: str, array: Array) -> GoldenTensor:
    dtype = dtype_of(array.dtype)
    if dtype is None:
        raise PackageError(f"{shown(name)} is {array.dtype}, which no model's tensor is")
    return GoldenTensor(name, dtype, tuple(array.shape))


def _tolerant(tensor: GoldenTensor, array: Array, tolerance: tuple[float, float] | None) -> GoldenTensor:
    """The tensor with what it may be off by; what is exact by its nature stays so unless the maker says."""
    if tensor.dtype is DType.BOOL or (tolerance is None and integer_range(tensor.dtype) is not None):
        return tensor
    if tolerance is not None:
        return replace(tensor, absolute=tolerance[0], relative=tolerance[1])
    half = tensor.dtype is DType.FLOAT16
    relative, of_largest = (RELATIVE_FLOAT16, OF_LARGEST_FLOAT16) if half else (RELATIVE, OF_LARGEST)
    finite = np.abs(array[np.isfinite(array)].astype(np.float64))
    absolute = float(f"{of_largest * finite.max(initial=0.0):.1g}")
    return replace(tensor, absolute=min(absolute, MAX_TOLERANCE), relative=relative)


def _read_array(record: IO[bytes], tensor: GoldenTensor) -> Array:
    data = record.read(tensor.byte_count)
    dtype = numpy_dtype(tensor.dtype)
    return np.frombuffer(data, dtype).reshape(tensor.shape) if data else np.empty(tensor.shape, dtype)


def _memory(stack: ExitStack, data: bytes) -> int:
    """An anonymous file."""
    fd = os.memfd_create("selftest", os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    write_all(fd, data)
    return fd
