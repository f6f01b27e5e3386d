"""A declaration: the file `<alias>.json` that says which package serves under a name (M-1). Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edge import strict_json
from edge.capture_policy import Policy, PolicyFault, parse_policy
from edge.errors import DeclarationError
from edge.paths import is_url
from edge.strict_json import JsonFault
from edge.text import shown

SUFFIX = ".json"
ALIAS = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")  # before the suffix: a name that a model can have (L-1)
MAX_DECLARATION_BYTES = 16 << 10  # of a file in models.d
MAX_DECLARATION_MARKS = 1200  # commas, colons, brackets and braces in a file of models.d
MAX_DECLARATIONS = 256  # files in models.d
MAX_PATH_CHARACTERS = 4096  # of a package's path in a declaration
MAX_DEPLOYMENT_CHARACTERS = 128  # of a deployment's name
MAX_TOGETHER = 32  # models that switch together in one deployment
_FLAGS = ("allow_changed_tensors", "allow_gap")


@dataclass(frozen=True)
class Together:
    """A deployment: names whose models switch all or none (W-9). `models` are all of them, sorted."""

    name: str
    models: tuple[str, ...]


@dataclass(frozen=True)
class Declaration:
    """What is to serve: the package, and what may differ from the one that serves now (W-3, W-4)."""

    package: str
    allow_changed_tensors: bool = False
    allow_gap: bool = False
    deployment: Together | None = None
    capture: Policy | None = None  # which calls of it are captured without being asked for (K-1)


def parse(data: bytes) -> Declaration:
    """The declaration that a file's bytes are.

    Raises:
        DeclarationError: it is none; with what is wrong, in words that follow the file's name.
    """
    try:
        value = strict_json.parse_object(data, max_bytes=MAX_DECLARATION_BYTES, max_marks=MAX_DECLARATION_MARKS)
        strict_json.check_keys(value, "", required=("package",), optional=(*_FLAGS, "deployment", "capture"))
        package = strict_json.text(value["package"], "package")
        deployment = _together(value["deployment"]) if "deployment" in value else None
        capture = parse_policy(value["capture"]) if "capture" in value else None
    except JsonFault as fault:
        raise DeclarationError(str(fault)) from None
    except PolicyFault as fault:
        raise DeclarationError(f"has a capture that {fault}") from None
    if len(package) > MAX_PATH_CHARACTERS or not (package.startswith("/") or is_url(package)):
        raise DeclarationError(f"names the package {shown(package)}; expected an absolute path or a file:// url")
    changed, gap = (_flag(value, key) for key in _FLAGS)
    if gap and deployment is not None:
        raise DeclarationError("has allow_gap beside deployment; models that switch together do so without a gap")
    return Declaration(package, changed, gap, deployment, capture)


def _together(value: object) -> Together:
    given = strict_json.table(value, "deployment")
    strict_json.check_keys(given, "deployment", required=("name", "models"))
    name = strict_json.text(given["name"], "deployment.name")
    if not 0 < len(name) <= MAX_DEPLOYMENT_CHARACTERS or not name.isprintable():
        raise DeclarationError(
            f"names the deployment {shown(name)}; expected 1 to {MAX_DEPLOYMENT_CHARACTERS} printable characters"
        )
    listed = strict_json.array(given["models"], "deployment.models", most=MAX_TOGETHER)
    models = [strict_json.text(one, "deployment.models") for one in listed]
    wrong = next((one for one in models if not ALIAS.fullmatch(one)), None)
    if wrong is not None or not models or len(set(models)) < len(models):
        words = "none" if not models else "one twice" if wrong is None else shown(wrong)
        raise DeclarationError(f"has in deployment.models {words}; expected each alias of the deployment once")
    return Together(name, tuple(sorted(models)))


def not_with(deployment: Together, found: Mapping[str, object]) -> Sequence[str]:
    """The names of a deployment that are not declared as of it: it is whole where there are none."""
    return [name for name in deployment.models if deployment_of(found.get(name)) != deployment]


def deployment_of(found: object) -> Together | None:
    """The deployment of what was found where a declaration is; None where it is of none."""
    return found.deployment if isinstance(found, Declaration) else None


def _flag(value: dict[str, Any], key: str) -> bool:
    given = value.get(key, False)
    if not isinstance(given, bool):
        raise DeclarationError(f"{key} must be true or false, not {strict_json.kind(given)}")
    return given


def to_bytes(declaration: Declaration) -> bytes:
    """The file of a declaration; flags that are not set are left out."""
    value: dict[str, Any] = {"package": declaration.package}
    value |= {key: True for key in _FLAGS if getattr(declaration, key)}
    if declaration.deployment is not None:
        value["deployment"] = asdict(declaration.deployment)
    if declaration.capture is not None:
        value["capture"] = declaration.capture.given()
    return json.dumps(value, indent=2).encode() + b"\n"
