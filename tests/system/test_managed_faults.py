"""A new version whose inferences fail: it is taken back where the one before answers, and never for what a client sends (W-6)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from edge.package.identity import load_identity
from edge.package.making import make_package
from edge.package.manifest import Manifest
from edge.rpc._generated import agent_pb2 as pb
from edge.rpc._generated import operations_pb2 as ops
from tests.data import hard_models, make_models
from tests.data.tflite_writer import Model, Op
from tests.fakes.compiler import shared_library
from tests.fakes.engines import plain_engine
from tests.system.conftest import Signer
from tests.system.harness import EVENT_PATIENCE, array_of, eventually
from tests.system.managed import Site, adder
from tests.system.segments import Segment, by_segment
from tests.system.test_delegates import SOURCE

Refused = Callable[..., Any]
NOT_YET = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE)


def table(signer: Signer, version: str, entries: int, folder: Path) -> Path:
    """A package that looks up the first of so many entries; another index fails in the engine."""
    target, model = folder / f"table-{version}", folder / f"table-{version}.tflite"
    model.write_bytes(make_models.look_up(entries))
    identity = load_identity(signer.key, signer.certificate, None)
    make_package(Manifest("table", version, model.name), model, [], identity, target)
    return target


@pytest.fixture
def site(agents: Any, signer: Signer, tmp_path: Path) -> Site:
    """A table of four entries, replaced by one of two."""
    site = Site.made(agents, tmp_path)
    site.declare("table", table(signer, "1.0", 4, tmp_path))
    site.agent.start()
    site.declare("table", table(signer, "2.0", 2, tmp_path))
    assert site.apply()["table"].version == "table 2.0"
    return site


def index(number: int) -> pb.Tensor:
    return pb.Tensor(byte_data=np.array([number], np.int32).tobytes())


def look_up(site: Site, tensor: pb.Tensor) -> int | None:
    """The entry; None where the runtime fails."""
    try:
        (value,) = site.agent.client.predict("table", [tensor])
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error  # type: ignore[attr-defined]
        assert "the runtime fails on these inputs" in error.details(), error  # type: ignore[attr-defined]
        return None
    return int(array_of(value)[0])


def test_what_a_client_sends_takes_no_version_back(site: Site, refused: Refused) -> None:  # [W-6]
    assert look_up(site, index(9)) is None
    eventually(lambda: "table 1.0 does not answer either" in site.agent.log, what="the version before is asked")
    for _ in range(20):
        assert look_up(site, index(9)) is None
        with refused("INVALID_ARGUMENT", "expected"):
            site.agent.client.predict("table", [pb.Tensor(byte_data=b"123")])
    assert look_up(site, index(1)) == 11
    managed = site.managed("table")
    assert (managed.version, managed.refused) == ("table 2.0", "")


@pytest.mark.parametrize("shared", [False, True])
def test_a_version_that_fails_where_the_one_before_answers_is_taken_back(site: Site, shared: bool) -> None:  # [W-6]
    segment = Segment(64).write(np.array([3], np.int32).tobytes())
    segment.set_mode(0o400)
    try:
        assert look_up(site, by_segment(segment, size=4) if shared else index(3)) is None
    finally:
        segment.remove()
    eventually(lambda: look_up(site, index(3)) == 13, seconds=60, what="the version before serves again")
    why = "table 2.0 was taken back: the runtime fails on a call that the version before answers"
    eventually(lambda: site.managed("table").refused == why, what="it says why")
    assert "was taken back" in site.apply()["table"].refused
    assert site.managed("table").version == "table 1.0"
    assert site.apply("table", retry=True)["table"].version == "table 2.0"  # whoever names it has his way


def serving(site: Site, name: str) -> float | None:
    """What a model adds; None where nothing serves under the name."""
    try:
        return site.added(name)
    except grpc.RpcError as error:
        assert error.code() in NOT_YET, error  # type: ignore[attr-defined]
        return None


def test_a_trial_that_hangs_holds_up_no_other_model(
    agents: Any, signer: Signer, tmp_path: Path
) -> None:  # [M-4] [L-12]
    library = str(shared_library(SOURCE, tmp_path / "libtest_delegate.so", "-O1", "-DPREPARE_SLEEPS"))
    site = Site.made(agents, tmp_path, edge_delegate_paths=[library])
    for name in ("add", "other"):
        (tmp_path / name).mkdir()
        site.declare(name, adder(signer, "1.0", 1, tmp_path / name))
    site.agent.start()
    model = tmp_path / "adder.tflite"
    model.write_bytes(make_models.add_one(amount=2))
    identity = load_identity(signer.key, signer.certificate, None)
    make_package(Manifest("adder", "2.0", model.name, delegate=library), model, [], identity, tmp_path / "hangs")
    site.declare("add", tmp_path / "hangs")
    apply = site.agent.channel.unary_unary(
        "/edge.v1.Operations/ApplyModels",
        request_serializer=ops.ApplyModelsRequest.SerializeToString,
        response_deserializer=ops.ApplyModelsResponse.FromString,
    )
    with pytest.raises(grpc.RpcError) as refused:
        apply(ops.ApplyModelsRequest(names=["add"]), timeout=2 * EVENT_PATIENCE)
    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    site.declare("other", adder(signer, "1.1", 2, tmp_path / "other"))
    assert site.apply("other")["other"].version == "adder 1.1"  # with its caller the trial has ended
    site.agent.kill()
    site.agent.begin(force=True)  # it is READY when the trial has ended, or after a minute
    eventually(lambda: serving(site, "other") == 2, what="the model that comes after it serves")
    eventually(lambda: serving(site, "add") == 1, what="what served before serves")
    assert site.agent.stop() == 0


@pytest.mark.skipif(plain_engine() != "litert", reason="the interpreter's bindings cannot end an inference")
def test_a_version_that_hangs_where_the_one_before_answers_is_taken_back(
    agents: Any, signer: Signer, tmp_path: Path
) -> None:  # [W-6] [P-20]
    site = Site.made(agents, tmp_path, edge_inference_stuck_seconds=EVENT_PATIENCE)
    identity = load_identity(signer.key, signer.certificate, None)

    def declare(version: str, made: bytes) -> None:
        model = tmp_path / f"steps-{version}.tflite"
        model.write_bytes(made)
        manifest = Manifest("steps", version, model.name, trial_seconds=EVENT_PATIENCE)
        make_package(manifest, model, [], identity, tmp_path / version)
        site.declare("steps", tmp_path / version)

    before = Model()
    graph = before.graph()
    step, done = (graph.tensor(name, np.int32, [1]) for name in ("step", "done"))
    graph.op(Op.ADD, [step, graph.constant("one", np.ones(1, np.int32))], [done])
    graph.ends([step], [done])
    declare("1.0", before.to_bytes())
    site.agent.start()
    declare("2.0", hard_models.endless_on_zeros())
    assert site.apply()["steps"].version == "steps 2.0"
    with pytest.raises(grpc.RpcError) as stuck:
        site.agent.client.predict("steps", [index(0)])
    assert stuck.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    eventually(lambda: "was taken back" in site.managed("steps").refused, what="the version before serves again")
    assert array_of(site.agent.client.predict("steps", [index(0)])[0]).tolist() == [1]
