"""The protocol's model repository, on the agent's registry: packages are named by their urls, not found in a folder."""

import json
from typing import Any

from edge.deploy.adoption import Models
from edge.errors import NotOfferedError, PackageNotFoundError, RequestError
from edge.rpc._generated import open_inference_pb2 as pb
from edge.rpc.calls import step_far_aside
from edge.rpc.codec import parse
from edge.serving.caller import Caller
from edge.serving.registry import Registry
from edge.text import shown

MAX_UNLOADED = 100  # models unloaded by RepositoryModelUnload whose packages are remembered

_STATES = {"LOADING": "LOADING", "WARMING": "LOADING", "READY": "READY", "DRAINING": "UNLOADING"}


class Repository:
    """RepositoryIndex, RepositoryModelLoad, RepositoryModelUnload. Safe to use from any thread."""

    def __init__(self, registry: Registry, models: Models) -> None:
        self._registry = registry
        self._models = models
        self._unloaded: dict[str, tuple[str, str]] = {}  # the version and the url of each, by name

    def index(self, raw: bytes, caller: Caller) -> bytes:
        """Every model that is loaded, comes or goes, and those that can be loaded again by their names."""
        request = parse(pb.RepositoryIndexRequest, raw)
        _check_repository(request)
        models = [
            _entry(name, model.manifest.model_version if model else "", _STATES[state.value])
            for name, state, model in self._registry.states()
        ]
        there = {model.name for model in models}
        models += [
            _entry(name, version, "UNAVAILABLE", "unloaded")
            for name, (version, _) in list(self._unloaded.items())
            if name not in there
        ]
        answer = pb.RepositoryIndexResponse(
            models=[model for model in models if model.state == "READY" or not request.ready]
        )
        message: bytes = answer.SerializeToString()
        return message

    def load(self, raw: bytes, caller: Caller) -> bytes:
        """Load a package, in place of the model that serves under the name if there is one; but see `Models.replace`."""
        step_far_aside(caller)
        request = parse(pb.RepositoryModelLoadRequest, raw)
        _check_repository(request)
        name = request.model_name
        url = _url(request.parameters)
        self._models.replace(name, lambda: url or self._known(name), caller)
        self._unloaded.pop(name, None)
        return b""  # a RepositoryModelLoadResponse has no fields

    def _known(self, name: str) -> str:
        for model in self._registry.models():
            if model.name == name:
                return model.url
        if remembered := self._unloaded.get(name):
            return remembered[1]
        raise PackageNotFoundError(
            f"no package is known for model {shown(name)}; give its path in the parameter 'url', or as string_value of the "
            "parameter 'url' in 'config'"
        )

    def unload(self, raw: bytes, caller: Caller) -> bytes:
        """Unload a model, which can then be loaded again by its name; a declared one stays (M-10)."""
        request = parse(pb.RepositoryModelUnloadRequest, raw)
        _check_repository(request)
        model = self._registry.get(request.model_name)
        self._models.unload(model.name)
        if self._models.released(model.name):
            return b""
        self._unloaded.pop(model.name, None)
        self._unloaded[model.name] = model.manifest.model_version, model.url
        for name in list(self._unloaded)[:-MAX_UNLOADED]:
            self._unloaded.pop(name, None)
        return b""  # a RepositoryModelUnloadResponse has no fields


def _entry(name: str, version: str, state: str, reason: str = "") -> Any:
    return pb.RepositoryIndexResponse.ModelIndex(name=name, version=version, state=state, reason=reason)


def _check_repository(request: Any) -> None:
    if request.repository_name:
        raise NotOfferedError(f"repository {shown(request.repository_name)}: there is one, without a name")


def _url(parameters: Any) -> str:
    """The package's url that a load names: its parameter "url", or the parameter "url" of the model config in JSON.

    Raises:
        RequestError: the config is none, or the load brings files.
    """
    for name in parameters:
        if name.startswith("file:"):
            raise RequestError(f"parameter {shown(name)}: files are not taken; a model comes in a signed package")
    if "url" in parameters:
        url: str = parameters["url"].string_param
        if not url:
            raise RequestError('parameter "url": expected the path of a package as string_param')
        return url
    if "config" not in parameters:
        return ""
    try:
        given = json.loads(parameters["config"].string_param)["parameters"]["url"]["string_value"]
    except (ValueError, LookupError, TypeError, RecursionError):
        given = None
    if not isinstance(given, str):
        raise RequestError(
            'parameter "config": expected {"parameters": {"url": {"string_value": PATH}}}, the path of a package'
        )
    return given
