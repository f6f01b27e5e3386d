"""Whether a GPU calculates what the CPU does: asked in the trial of a model that wants one (docs/adr/0038-gpu.md)."""

from collections.abc import Sequence
from typing import Any

from edge.engine.engine import FLOAT16, Session, SessionOptions
from edge.engine.engines import Engines
from edge.engine.sample_inputs import SampleInputs
from edge.errors import InferenceError, ModelRefusedError
from edge.tensors import DType, TensorSpec

# How far an output may be off, as a share of the largest number in it, and in steps of a quantised tensor.
TOLERANCE = {FLOAT16: 0.02}
TOLERANCE_FLOAT32 = 0.001
MAX_STEPS = 3  # that an element of 8 or 16 bits may be off on the GPU; rounding at each layer


def check_agreement(
    engines: Engines, path: str, options: SessionOptions, inputs: SampleInputs, kinds: Sequence[str]
) -> None:
    """Run the model on both, on all kinds of values that the CPU takes.

    Raises:
        ModelRefusedError: they differ by more than the precision explains.
        InferenceError: the GPU fails on what the CPU takes.
    """
    reference = engines.open_on_cpu(path, options)
    session = engines.open(path, options)
    tolerance = TOLERANCE.get(options.precision, TOLERANCE_FLOAT32)
    try:
        for kind in kinds:
            data = inputs.data(kind)
            try:
                wanted = _arrays(reference, reference.run(data, inputs.shapes))
            except InferenceError:
                continue
            found = _arrays(session, session.run(data, inputs.shapes))
            for spec, one, other in zip(reference.outputs, wanted, found, strict=True):
                _check(spec, one, other, tolerance)
    finally:
        reference.close()
        session.close()


def _arrays(session: Session, outputs: Sequence[Any]) -> list[Any]:
    import numpy as np

    from edge.arrays import numpy_dtype

    return [
        np.frombuffer(bytes(memoryview(output).cast("B")), numpy_dtype(spec.dtype)).reshape(output.shape)
        for spec, output in zip(session.outputs, outputs, strict=True)
    ]


def _check(spec: TensorSpec, wanted: Any, found: Any, tolerance: float) -> None:
    import numpy as np

    if wanted.shape != found.shape:
        raise ModelRefusedError(f"the GPU gives output {spec.name!r} another shape than the CPU")
    if not wanted.size:
        return
    if spec.dtype.name.startswith("FLOAT"):
        one, other = wanted.astype(np.float64), found.astype(np.float64)
        if not np.array_equal(np.isfinite(one), np.isfinite(other)):
            raise ModelRefusedError(
                f"the GPU gives output {spec.name!r} numbers where the CPU has none, or none where it has"
            )
        finite = np.isfinite(one)
        one, other = one[finite], other[finite]
        largest = float(np.abs(one).max(initial=0.0)) or 1.0
        off = float(np.abs(one - other).max(initial=0.0)) / largest
        if off > tolerance:
            raise ModelRefusedError(
                f"the GPU is off by {off:.2g} of the largest number in output {spec.name!r}; {tolerance:g} are allowed"
            )
        return
    steps = MAX_STEPS if spec.dtype in (DType.INT8, DType.UINT8, DType.INT16) else 0
    off_by = int(np.abs(wanted.astype(np.int64) - found.astype(np.int64)).max())
    if off_by > steps:
        raise ModelRefusedError(f"the GPU is off by {off_by} in output {spec.name!r}; {steps} are allowed")
