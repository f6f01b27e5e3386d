"""A declaration: the file `<alias>.json` that says which package serves under a name (M-1). Pure."""

import json
import re
from dataclasses import dataclass
from typing import Any

from edge import strict_json
from edge.errors import DeclarationError
from edge.paths import is_url
from edge.strict_json import JsonFault
from edge.text import shown

SUFFIX = ".json"
ALIAS = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")  # before the suffix: a name that a model can have (L-1)
MAX_DECLARATION_BYTES = 16 << 10  # of a file of models.d
MAX_DECLARATIONS = 256  # in models.d
MAX_PATH_CHARACTERS = 4096  # of the package that a declaration names
_FLAGS = ("allow_changed_tensors", "allow_gap")


@dataclass(frozen=True)
class Declaration:
    """What is to serve: the package, and what may differ from the one that serves now (W-3, W-4)."""

    package: str
    allow_changed_tensors: bool = False
    allow_gap: bool = False


def parse(data: bytes) -> Declaration:
    """The declaration that a file's bytes are.

    Raises:
        DeclarationError: it is none; with what is wrong, in words that follow the file's name.
    """
    try:
        value = strict_json.parse_object(data, max_bytes=MAX_DECLARATION_BYTES, max_marks=100)
        strict_json.check_keys(value, "", required=("package",), optional=_FLAGS)
        package = strict_json.text(value["package"], "package")
    except JsonFault as fault:
        raise DeclarationError(str(fault)) from None
    if len(package) > MAX_PATH_CHARACTERS or not (package.startswith("/") or is_url(package)):
        raise DeclarationError(f"names the package {shown(package)}; expected an absolute path or a file:// url")
    return Declaration(package, *(_flag(value, key) for key in _FLAGS))


def _flag(value: dict[str, Any], key: str) -> bool:
    given = value.get(key, False)
    if not isinstance(given, bool):
        raise DeclarationError(f"{key} must be true or false, not {strict_json.kind(given)}")
    return given


def to_bytes(declaration: Declaration) -> bytes:
    """The file of a declaration; flags that are not set are left out."""
    value: dict[str, Any] = {"package": declaration.package}
    value |= {key: True for key in _FLAGS if getattr(declaration, key)}
    return json.dumps(value, indent=2).encode() + b"\n"
