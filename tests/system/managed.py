"""Agents with declared models: their folders, declarations and store, and packages of several versions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.deploy.state import is_id
from edge.package.identity import load_identity
from edge.package.making import make_package
from edge.package.manifest import Manifest
from edge.rpc._generated import operations_pb2 as ops
from tests.data import make_models
from tests.system.conftest import Signer
from tests.system.harness import CALL_SECONDS, AgentProcess, array_of
from tests.system.test_predict import x_float

KEPT = {"state.json", "lock"}


def adder(signer: Signer, version: str, amount: float, folder: Path) -> Path:
    """A package that adds `amount` to each of four numbers."""
    target, model = folder / f"adder-{version}", folder / f"adder-{version}.tflite"
    model.write_bytes(make_models.add_one(amount=amount))
    identity = load_identity(signer.key, signer.certificate, None)
    make_package(Manifest("adder", version, "adder.tflite"), model, [], identity, target)
    return target


class Site:
    """An agent's declarations and store."""

    def __init__(self, agent: AgentProcess) -> None:
        self.agent = agent
        self.declarations = Path(json.loads(agent.config_path.read_text())["edge_models_path"])
        self.store = Path(json.loads(agent.config_path.read_text())["edge_package_store_path"])

    @classmethod
    def made(cls, agents: Any, folder: Path, **changes: Any) -> "Site":
        """An agent, not yet started, with an empty folder of declarations below `folder`."""
        made = cls(
            agents(edge_models_path=str(folder / "models.d"), edge_package_store_path=str(folder / "store"), **changes)
        )
        made.declarations.mkdir(exist_ok=True)
        return made

    def declare(self, name: str, package: Path | str, **more: Any) -> None:
        """Write a declaration by hand."""
        self.declarations.mkdir(exist_ok=True)
        self.write(name, json.dumps({"package": str(package), **more}))

    def write(self, name: str, text: str) -> None:
        (self.declarations / f"{name}.json").write_text(text)

    def call(self, method: str, request: Any, answer: Any) -> Any:
        """A call of the Operations service."""
        return self.agent.channel.unary_unary(
            f"/edge.v1.Operations/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )(request, timeout=CALL_SECONDS)

    def apply(self, *names: str, retry: bool = False) -> Mapping[str, Any]:
        """ApplyModels; what it says of each name."""
        done = self.call("ApplyModels", ops.ApplyModelsRequest(names=names, retry=retry), ops.ApplyModelsResponse)
        return {one.name: one for one in done.models}

    def rollback(self, name: str) -> Any:
        """RollbackModel."""
        return self.call("RollbackModel", ops.RollbackModelRequest(name=name), ops.ManagedModel)

    def managed(self, name: str) -> Any:
        """What GetStatus says of an alias."""
        return next(one for one in self.agent.client.status().managed if one.name == name)

    def added(self, name: str) -> float:
        """What the model adds."""
        (y,) = self.agent.client.predict(name, [x_float([1, 2, 3, 4])])
        return float(array_of(y)[0][0]) - 1

    def packages(self) -> set[str]:
        """Ids of the packages in the store; anything else that should not be there fails."""
        names = {path.name for path in self.store.iterdir()} - KEPT
        assert all(is_id(name) for name in names), names
        return names
