"""What `package` asks of a model before it is signed: that it is one, and that the rest of the package fits it."""

import mmap
from pathlib import Path

from edge.engine.engine import SessionOptions
from edge.engine.model_file import check_model_file
from edge.engine.model_reading import facts_of
from edge.engine.sample_inputs import SampleInputs
from edge.engine.samples import Sample
from edge.engine.tflite import TfliteEngine
from edge.errors import EdgeError, ModelRefusedError, PackageError
from edge.package.adapter import TensorAdapter, read_adapters, view
from edge.package.manifest import MAX_MANIFEST_BYTES, Manifest
from edge.strict_json import JsonFault, check_keys, parse_object

_CONVERSIONS = {
    ".onnx": "onnx2tf -i MODEL.onnx",
    ".h5": "tf.lite.TFLiteConverter.from_keras_model",
    ".keras": "tf.lite.TFLiteConverter.from_keras_model",
    ".pb": "tf.lite.TFLiteConverter.from_saved_model, with the model's SavedModel folder",
    ".pt": "litert_torch.convert, or by way of ONNX with onnx2tf",
    ".pth": "litert_torch.convert, or by way of ONNX with onnx2tf",
}


def check_model(file: Path) -> None:
    """Refuses what no agent could load, before it is signed.

    Raises:
        PackageError: it is no TensorFlow Lite model, or not a whole one.
    """
    if file.is_dir():
        how = (
            "" if not (file / "saved_model.pb").exists() else "; convert it by tf.lite.TFLiteConverter.from_saved_model"
        )
        raise PackageError(f"{file} is a folder; --model is one TensorFlow Lite file (.tflite){how}")
    how = _CONVERSIONS.get(file.suffix.lower(), "")
    try:
        with file.open("rb") as model:
            if not model.read(1):
                raise PackageError(f"{file} is empty")
            with mmap.mmap(model.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as whole:
                check_model_file(whole)
    except OSError as error:
        raise PackageError(f"{file} cannot be read: {error.strerror}") from error
    except ModelRefusedError as error:
        reason = str(error).removeprefix("the runtime refuses the model file: ")
        raise PackageError(f"{file}: {reason}" + (f"; convert it by {how}" if how else "")) from None


def check_signature(model: Path, wanted: str | None) -> None:
    """Of several signatures one must be chosen; which, the maker of the package knows. What is no model an agent refuses."""
    try:
        keys = [signature.key for signature in facts_of(str(model)).signatures]
    except (OSError, ModelRefusedError):
        return
    there = ", ".join(keys) or "none"
    if wanted is not None and wanted not in keys:
        raise PackageError(f"{model} has no signature {wanted!r}; it has {there}")
    if wanted is None and len(keys) > 1:
        raise PackageError(f"{model} has several signatures ({there}); say which one to call with --signature")


def check_tensors(model: Path, manifest: Manifest) -> None:
    """An adapter and a sample's shapes fit the model, as far as the engine opens it here; an agent looks in any case.

    Raises:
        ManifestError, UnsupportedModelError: they do not.
    """
    if not (manifest.inputs or manifest.outputs or manifest.sample_shapes):
        return
    wanted = SessionOptions(signature=manifest.signature, signature_names=manifest.names == "signature", allocate=False)
    try:
        session = TfliteEngine().open(str(model), wanted)
    except EdgeError:
        return
    try:
        view(session.inputs, manifest.inputs, "inputs")
        view(session.outputs, manifest.outputs, "outputs")
        SampleInputs(session.inputs, Sample(manifest.sample_shapes))
    finally:
        session.close()


def adapter_of(file: Path | None) -> tuple[tuple[TensorAdapter, ...], tuple[TensorAdapter, ...]]:
    """The manifest's `inputs` and `outputs`, as a file has them.

    Raises:
        PackageError: it cannot be read, or something in it is wrong.
    """
    if file is None:
        return (), ()
    try:
        value = parse_object(file.read_bytes(), max_bytes=MAX_MANIFEST_BYTES)
        check_keys(value, "", required=(), optional=("inputs", "outputs"))
        return read_adapters(value.get("inputs", []), "inputs"), read_adapters(value.get("outputs", []), "outputs")
    except JsonFault as fault:
        raise PackageError(f"{file} {fault}") from None
    except OSError as error:
        raise PackageError(f"{file} cannot be read: {error.strerror}") from error
