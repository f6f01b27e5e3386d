"""The manifest of a package: which model it is, for which machine, on which runtime (S-1). Pure."""

import json
import re
from dataclasses import dataclass
from typing import Any

from edge.errors import ManifestError, TargetError
from edge.package.adapter import TensorAdapter, format_adapter, read_adapters
from edge.strict_json import JsonFault, check_keys, kind, parse_object, sizes, table, text
from edge.text import shown

MANIFEST_FILE = "sagemaker_edge_manifest"
SIGNATURE_FILE = "model.sig"
FORMAT_VERSION = 1
ENGINES = ("tflite",)
ANY_ARCH = "any"

MAX_MANIFEST_BYTES = 64 * 1024  # of a manifest, which is read whole
MAX_THREADS = 256  # that a manifest may ask for
MAX_INSTANCES = 64  # that a manifest may ask for
MAX_FILE_NAME_BYTES = 255  # of a file's name in a manifest: the limit of file systems
MAX_TRIAL_SECONDS = 3600  # that a manifest may allow for one inference of the trial
DEFAULT_TRIAL_SECONDS = 10
MAX_SAMPLE_INPUTS = 256  # inputs that a package's sample gives
MAX_SIGNATURE_CHARACTERS = 256  # of the name of a model's signature
NAMES = ("tensor", "signature")
STATES = ("none", "keep")
ACCELERATORS = ("cpu", "gpu")
PRECISIONS = ("float32", "float16")  # of a GPU

# The name becomes a folder of capture files and part of a cloud key: no separator, and no leading dot.
NAME_FORM = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
VERSION_FORM = r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}"
WORD_FORM = r"[a-z0-9][a-z0-9_-]{0,31}"
_DELEGATE_FORM = r"[A-Za-z0-9._/+-]{1,1024}"


_RUNTIME_KEYS = (
    "delegate",
    "threads",
    "instances",
    "signature",
    "state",
    "trial_seconds",
    "accelerator",
    "precision",
    "fallback",
)


@dataclass(frozen=True)
class Manifest:
    """A package's description of itself. `threads` and `instances`: None if the agent decides.

    `names`: whose names tensors have, the model's own or its signature's. `sample`: what the model is tried on, the shapes of
    inputs by name, or a file in the package with their arrays. `accelerator`: what is to run it, `precision`: with which numbers,
    `fallback`: the CPU does where that cannot. `inputs` and `outputs`: those that applications see otherwise.
    """

    model_name: str
    model_version: str
    model: str
    os: str = "linux"
    arch: str = ANY_ARCH
    engine: str = "tflite"
    delegate: str | None = None
    threads: int | None = None
    instances: int | None = None
    signature: str | None = None
    names: str = "tensor"
    state: str = "none"
    trial_seconds: int = DEFAULT_TRIAL_SECONDS
    accelerator: str = "cpu"
    precision: str = "float32"
    fallback: bool = True
    sample: str | tuple[tuple[str, tuple[int, ...]], ...] | None = None
    inputs: tuple[TensorAdapter, ...] = ()
    outputs: tuple[TensorAdapter, ...] = ()

    @property
    def sample_file(self) -> str | None:
        """The file of the sample, if that is one."""
        return self.sample if isinstance(self.sample, str) else None

    @property
    def sample_shapes(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """The shapes of the sample, if it gives only those."""
        return self.sample if isinstance(self.sample, tuple) else ()


def parse_manifest(data: bytes) -> Manifest:
    """Parse a manifest.

    Raises:
        ManifestError: says which key is wrong, and how.
    """
    try:
        return _read(parse_object(data, max_bytes=MAX_MANIFEST_BYTES))
    except JsonFault as fault:
        raise ManifestError(f"{MANIFEST_FILE} {fault}") from fault


def format_manifest(manifest: Manifest) -> bytes:
    """The manifest as a file, in the order of the specification.

    Raises:
        ManifestError: it would not be read back.
    """
    runtime: dict[str, Any] = {"engine": manifest.engine}
    usual = Manifest("", "", "")
    for key in _RUNTIME_KEYS:
        if getattr(manifest, key) != getattr(usual, key):
            runtime[key] = getattr(manifest, key)
    value: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "metadata": {"model_name": manifest.model_name, "model_version": manifest.model_version},
        "model": manifest.model,
        "target": {"os": manifest.os, "arch": manifest.arch},
        "runtime": runtime,
    }
    if manifest.names != usual.names:
        value["names"] = manifest.names
    if manifest.sample is not None:
        value["sample"] = manifest.sample_file or {name: list(shape) for name, shape in manifest.sample_shapes}
    for side in ("inputs", "outputs"):
        if adapters := getattr(manifest, side):
            value[side] = [format_adapter(one) for one in adapters]
    data = json.dumps(value, indent=2).encode() + b"\n"
    parse_manifest(data)
    return data


def check_target(manifest: Manifest, *, os: str, arch: str) -> None:
    """Whether the package is for this machine; `arch` as `uname -m` says it.

    Raises:
        TargetError: it is for another, or needs a runtime this agent lacks (L-5).
    """
    if manifest.os != os or manifest.arch not in (ANY_ARCH, arch):
        raise TargetError(f"the package is for {manifest.os} on {manifest.arch}; this machine is {os} on {arch}")
    if manifest.engine not in ENGINES:
        raise TargetError(f"the package needs the runtime {manifest.engine}; this agent has {', '.join(ENGINES)}")


def _read(value: dict[str, Any]) -> Manifest:
    # The version comes first: another version may have other keys.
    version = value.get("format_version", FORMAT_VERSION)
    if type(version) is not int or version != FORMAT_VERSION:
        raise JsonFault(f"has format_version {shown(str(version))}; this agent reads {FORMAT_VERSION}")
    check_keys(
        value,
        "",
        required=("format_version", "metadata", "model", "target", "runtime"),
        optional=("names", "sample", "inputs", "outputs"),
    )
    metadata = table(value["metadata"], "metadata")
    check_keys(metadata, "metadata", required=("model_name", "model_version"))
    target = table(value["target"], "target")
    check_keys(target, "target", required=("os", "arch"))
    runtime = table(value["runtime"], "runtime")
    check_keys(
        runtime,
        "runtime",
        required=("engine",),
        optional=_RUNTIME_KEYS,
    )
    manifest = Manifest(
        model_name=_form(metadata["model_name"], "metadata.model_name", NAME_FORM),
        model_version=_form(metadata["model_version"], "metadata.model_version", VERSION_FORM),
        model=_file_name(value["model"], "model"),
        os=_form(target["os"], "target.os", WORD_FORM),
        arch=_form(target["arch"], "target.arch", WORD_FORM),
        engine=_form(runtime["engine"], "runtime.engine", WORD_FORM),
        delegate=_form(runtime["delegate"], "runtime.delegate", _DELEGATE_FORM) if "delegate" in runtime else None,
        threads=_count(runtime, "threads", MAX_THREADS),
        instances=_count(runtime, "instances", MAX_INSTANCES),
        signature=_signature(runtime["signature"]) if "signature" in runtime else None,
        names=_choice(value, "names", "names", NAMES),
        state=_choice(runtime, "state", "runtime.state", STATES),
        trial_seconds=_count(runtime, "trial_seconds", MAX_TRIAL_SECONDS) or DEFAULT_TRIAL_SECONDS,
        accelerator=_choice(runtime, "accelerator", "runtime.accelerator", ACCELERATORS),
        precision=_choice(runtime, "precision", "runtime.precision", PRECISIONS),
        fallback=_truth(runtime, "fallback", "runtime.fallback"),
        sample=_sample(value["sample"]) if "sample" in value else None,
        inputs=read_adapters(value.get("inputs", []), "inputs"),
        outputs=read_adapters(value.get("outputs", []), "outputs"),
    )
    if manifest.state == "keep" and (manifest.instances or 1) > 1:
        raise JsonFault(
            f"runtime.state is keep and runtime.instances {manifest.instances}; a model that keeps state has one instance"
        )
    if manifest.accelerator == "cpu":
        for key in ("precision", "fallback"):
            if key in runtime:
                raise JsonFault(f"runtime.{key} is for an accelerator; runtime.accelerator is cpu")
    elif manifest.delegate is not None:
        raise JsonFault("runtime.delegate and runtime.accelerator exclude each other")
    return manifest


def _form(value: object, where: str, form: str) -> str:
    found = text(value, where)
    if not re.fullmatch(form, found):
        raise JsonFault(f"{where} {shown(found)} is not allowed; expected the form {form}")
    return found


def _choice(of: dict[str, Any], key: str, where: str, choices: tuple[str, ...]) -> str:
    value = text(of.get(key, choices[0]), where)
    if value not in choices:
        raise JsonFault(f"{where} {shown(value)} is not known; expected {' or '.join(choices)}")
    return value


def _truth(of: dict[str, Any], key: str, where: str) -> bool:
    value = of.get(key, True)
    if type(value) is not bool:
        raise JsonFault(f"{where} must be true or false, not {kind(value)}")
    return value


def _signature(value: object) -> str:
    key = text(value, "runtime.signature")
    if not 1 <= len(key) <= MAX_SIGNATURE_CHARACTERS:
        raise JsonFault(f"runtime.signature must have 1 to {MAX_SIGNATURE_CHARACTERS} characters, got {len(key)}")
    return key


def _sample(value: object) -> str | tuple[tuple[str, tuple[int, ...]], ...]:
    if isinstance(value, str):
        return _file_name(value, "sample")
    shapes = table(value, "sample")
    if not 1 <= len(shapes) <= MAX_SAMPLE_INPUTS:
        raise JsonFault(f"sample must have 1 to {MAX_SAMPLE_INPUTS} inputs, got {len(shapes)}")
    return tuple((name, sizes(shape, f"sample.{shown(name)}")) for name, shape in shapes.items())


def _file_name(value: object, where: str) -> str:
    name = text(value, where)
    if "/" in name or name in ("", ".", ".."):
        raise JsonFault(
            f"{where} {shown(name)} must be the name of a file beside the manifest, without a folder (L-11)"
        )
    if len(name.encode()) > MAX_FILE_NAME_BYTES or not name.isprintable():
        raise JsonFault(f"{where} {shown(name)} is not a file name")
    if name in (MANIFEST_FILE, SIGNATURE_FILE):
        raise JsonFault(f"{where} {shown(name)} names the package's own file")
    return name


def _count(runtime: dict[str, Any], key: str, most: int) -> int | None:
    if key not in runtime:
        return None
    value = runtime[key]
    if type(value) is not int:
        raise JsonFault(f"runtime.{key} must be a whole number, not {kind(value)}")
    if not 1 <= value <= most:
        raise JsonFault(f"runtime.{key} must be 1 to {most}, got {shown(str(value))}")
    return value
