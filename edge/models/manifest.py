"""The manifest of a package: which model it is, for which machine, on which runtime (S-1). Pure."""

import json
import re
from dataclasses import dataclass
from typing import Any

from edge.errors import ManifestError, TargetError
from edge.models.strict_json import JsonFault, check_keys, kind, parse_object, table, text
from edge.text import shown

MANIFEST_FILE = "sagemaker_edge_manifest"
SIGNATURE_FILE = "model.sig"
FORMAT_VERSION = 1
ENGINES = ("tflite",)
ANY_ARCH = "any"

MAX_MANIFEST_BYTES = 64 * 1024
MAX_MANIFEST_MARKS = 1000  # a manifest of every key has about 30
MAX_THREADS = 256
MAX_INSTANCES = 64
MAX_FILE_NAME_BYTES = 255

# The name becomes a folder of capture files and part of a cloud key: no separator, and no leading dot.
NAME_FORM = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
VERSION_FORM = r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}"
WORD_FORM = r"[a-z0-9][a-z0-9_-]{0,31}"
_DELEGATE_FORM = r"[A-Za-z0-9._/+-]{1,1024}"


@dataclass(frozen=True)
class Manifest:
    """What a package says of itself. `threads` and `instances`: None where the agent decides."""

    model_name: str
    model_version: str
    model: str
    os: str = "linux"
    arch: str = ANY_ARCH
    engine: str = "tflite"
    delegate: str | None = None
    threads: int | None = None
    instances: int | None = None


def parse_manifest(data: bytes) -> Manifest:
    """The manifest that `data` is.

    Raises:
        ManifestError: says which key is wrong, and how.
    """
    try:
        return _read(parse_object(data, max_bytes=MAX_MANIFEST_BYTES, max_marks=MAX_MANIFEST_MARKS))
    except JsonFault as fault:
        raise ManifestError(f"{MANIFEST_FILE} {fault}") from fault


def format_manifest(manifest: Manifest) -> bytes:
    """The manifest as a file, in the order of the specification.

    Raises:
        ManifestError: it would not be read back.
    """
    runtime: dict[str, Any] = {"engine": manifest.engine}
    for key in ("delegate", "threads", "instances"):
        if getattr(manifest, key) is not None:
            runtime[key] = getattr(manifest, key)
    value = {
        "format_version": FORMAT_VERSION,
        "metadata": {"model_name": manifest.model_name, "model_version": manifest.model_version},
        "model": manifest.model,
        "target": {"os": manifest.os, "arch": manifest.arch},
        "runtime": runtime,
    }
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
    check_keys(value, "", required=("format_version", "metadata", "model", "target", "runtime"))
    metadata = table(value["metadata"], "metadata")
    check_keys(metadata, "metadata", required=("model_name", "model_version"))
    target = table(value["target"], "target")
    check_keys(target, "target", required=("os", "arch"))
    runtime = table(value["runtime"], "runtime")
    check_keys(runtime, "runtime", required=("engine",), optional=("delegate", "threads", "instances"))
    return Manifest(
        model_name=_form(metadata["model_name"], "metadata.model_name", NAME_FORM),
        model_version=_form(metadata["model_version"], "metadata.model_version", VERSION_FORM),
        model=_file_name(value["model"]),
        os=_form(target["os"], "target.os", WORD_FORM),
        arch=_form(target["arch"], "target.arch", WORD_FORM),
        engine=_form(runtime["engine"], "runtime.engine", WORD_FORM),
        delegate=_form(runtime["delegate"], "runtime.delegate", _DELEGATE_FORM) if "delegate" in runtime else None,
        threads=_count(runtime, "threads", MAX_THREADS),
        instances=_count(runtime, "instances", MAX_INSTANCES),
    )


def _form(value: object, where: str, form: str) -> str:
    found = text(value, where)
    if not re.fullmatch(form, found):
        raise JsonFault(f"{where} {shown(found)} is not allowed; expected the form {form}")
    return found


def _file_name(value: object) -> str:
    name = text(value, "model")
    if "/" in name or name in ("", ".", ".."):
        raise JsonFault(f"model {shown(name)} must be the name of a file beside the manifest, without a folder (L-11)")
    if len(name.encode()) > MAX_FILE_NAME_BYTES or not name.isprintable():
        raise JsonFault(f"model {shown(name)} is not a file name")
    if name in (MANIFEST_FILE, SIGNATURE_FILE):
        raise JsonFault(f"model {shown(name)} names the package's own file, not a model")
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
