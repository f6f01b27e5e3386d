"""LoadModel, UnLoadModel, ListModels and DescribeModel over the socket (L-1 to L-11, U-1 to U-3, LM, D)."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from edge.rpc._generated import agent_pb2 as pb
from tests.data import make_models
from tests.system.harness import EMULATED, AgentProcess, Client, array_of, eventually, from_source, zeros_for
from tests.system.test_predict import Slow, x_float

PackageOf = Callable[[str], Path]
Refused = Callable[..., Any]
CYCLES = 100
SPARE_THREADS = 5  # for calls that overlap, and gRPC's own; how many there are is a matter of luck on a busy machine
ALLOWED = 2.0 if EMULATED else 1.05  # of the memory before: an emulator keeps the code that it has translated


@pytest.mark.parametrize("name", ["", "-a", "a-", "a_b", "a b", "a.b", "ä", "a\n", "x" * 256, "../a"])
def test_names_outside_the_form(client: Client, digits: Path, refused: Refused, name: str) -> None:  # [L-1]
    with refused("INVALID_ARGUMENT", "not allowed", "1 to 255"):
        client.load(digits, name)


@pytest.mark.parametrize("name", ["a", "A-9", "a--b", "x" * 255])
def test_names_of_the_form(client: Client, package_of: PackageOf, name: str) -> None:  # [L-1]
    assert client.load(package_of("add_one"), name).name == name


def test_a_name_that_is_taken(client: Client, package_of: PackageOf, refused: Refused) -> None:  # [L-2]
    client.load(package_of("add_one"), "one")
    with refused("ALREADY_EXISTS", "'one' is already loaded"):
        client.load("/nowhere", "one")


def test_a_name_that_is_being_loaded(agent: AgentProcess, client: Client, package_of: PackageOf) -> None:  # [L-2]
    answers: list[str] = []
    served: list[str] = []
    package = package_of("add_one")

    def load() -> None:
        try:
            client.load(package, "race")
            answers.append("OK")
        except Exception as error:
            answers.append(error.code().name)  # type: ignore[attr-defined]
        served.append(client.describe("race").name)  # whoever loaded it, it serves now

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["ALREADY_EXISTS"] * 3 + ["OK"]
    assert served == ["race"] * 4


@pytest.mark.parametrize(
    "url", ["", "relative/path", "/nowhere/at/all", "file:///nowhere", "s3://bucket/x", "https://h/x"]
)
def test_nothing_is_there(client: Client, refused: Refused, url: str) -> None:  # [L-3]
    with refused("NOT_FOUND"):
        client.load(url, "none")
    assert not client.status().models


def test_a_relative_path_is_the_agents(agents: Any, package_of: PackageOf) -> None:  # [L-3]
    folder = package_of("add_one")
    agent = agents()
    agent.cwd = folder.parent / "elsewhere"
    agent.cwd.mkdir(exist_ok=True)
    agent.start()
    for url in (f"../{folder.name}", f"./../{folder.name}/"):
        assert agent.client.load(url, "add").url == str(folder)
        assert [model.url for model in agent.client.models()] == [str(folder)]
        assert [model.url for model in agent.client.status().models] == [str(folder)]
        agent.client.unload("add")


def test_an_archive_that_was_unpacked(client: Client, signer: Any, package_of: PackageOf, tmp_path: Path) -> None:
    archive = signer.package(package_of("add_one") / "add_one.tflite", "add-one", out=tmp_path / "add-one-1.0.tar.gz")
    flat = tmp_path / "flat"
    flat.mkdir()
    subprocess.run(["tar", "xzf", str(archive), "-C", str(flat)], check=True)
    assert (flat / "sagemaker_edge_manifest").is_file()
    (tmp_path / "nested").mkdir()
    (tmp_path / "nested" / "add-one-1.0").symlink_to(flat)
    with pytest.raises(Exception, match="FAILED_PRECONDITION"):  # [L-11]
        client.load(tmp_path / "nested", "add")
    (tmp_path / "nested" / "add-one-1.0").unlink()
    (flat).rename(tmp_path / "nested" / "add-one-1.0")
    for url in (archive, tmp_path / "nested", tmp_path / "nested" / "add-one-1.0"):
        client.load(url, "add")
        client.unload("add")


def test_folder_archive_and_file_url(client: Client, signer: Any, package_of: PackageOf, tmp_path: Path) -> None:
    folder = package_of("add_one")
    archive = signer.package(folder / "add_one.tflite", "add-one", out=tmp_path / "add-one-1.0.tar.gz")
    for url in (str(folder), f"file://{folder}", str(archive), f"file://{archive}", f"{folder}/"):
        model = client.load(url, "add")
        assert model.url == url
        (y,) = client.predict("add", [x_float([1, 2, 3, 4])])
        assert array_of(y).tolist() == [[2, 3, 4, 5]]
        client.unload("add")


def test_a_file_that_is_no_package(client: Client, refused: Refused, tmp_path: Path) -> None:  # [L-4]
    (tmp_path / "model.tflite").write_bytes(b"x" * 100)
    with refused("FAILED_PRECONDITION"):
        client.load(tmp_path / "model.tflite", "none")
    with refused("FAILED_PRECONDITION", "sagemaker_edge_manifest"):
        client.load(tmp_path, "none")


def changed(package: Path, target: Path, change: Callable[[Path], None]) -> Path:
    shutil.copytree(package, target)
    change(target)
    return target


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


@pytest.mark.parametrize("at", [0, 100, -1])
@pytest.mark.parametrize("name", ["add_one.tflite", "sagemaker_edge_manifest", "model.sig"])
def test_one_flipped_byte(
    client: Client, package_of: PackageOf, refused: Refused, tmp_path: Path, name: str, at: int
) -> None:  # [L-4] [S-5]
    package = changed(package_of("add_one"), tmp_path / "p", lambda folder: flip(folder / name, at))
    with refused("FAILED_PRECONDITION"):
        client.load(package, "bad")
    assert not client.status().models


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda p: (p / "extra.txt").write_text("x"), "extra.txt"),
        (lambda p: (p / "add_one.tflite").unlink(), "add_one.tflite"),
        (lambda p: (p / "model.sig").unlink(), "model.sig"),
        (lambda p: (p / "sagemaker_edge_manifest").unlink(), "sagemaker_edge_manifest"),
        (lambda p: (p / "link").symlink_to("/etc/passwd"), "link"),
    ],
)
def test_the_set_of_files(
    client: Client, package_of: PackageOf, refused: Refused, tmp_path: Path, change: Any, word: str
) -> None:  # [L-4] [L-11] [S-5]
    with refused("FAILED_PRECONDITION", word):
        client.load(changed(package_of("add_one"), tmp_path / "p", change), "bad")


def test_another_machine(client: Client, signer: Any, package_of: PackageOf, refused: Refused) -> None:  # [L-5]
    import platform

    package = signer.package(package_of("add_one") / "add_one.tflite", "other", "--arch", "riscv64")
    with refused("FAILED_PRECONDITION", "riscv64", os.environ.get("AGENT_MACHINE", platform.machine())):
        client.load(package, "other")


def test_a_delegate_that_is_not_allowed(client: Client, signer: Any, package_of: PackageOf, refused: Refused) -> None:
    package = signer.package(package_of("add_one") / "add_one.tflite", "npu", "--delegate", "/usr/lib/libnpu.so")
    with refused("FAILED_PRECONDITION", "/usr/lib/libnpu.so", "allows none"):  # [L-5]
        client.load(package, "npu")


def test_a_delegate_that_is_not_there(agents: Any, signer: Any, package_of: PackageOf, refused: Refused) -> None:
    agent = agents(edge_delegate_paths=["/usr/lib/libnpu.so"]).start()
    package = signer.package(package_of("add_one") / "add_one.tflite", "npu", "--delegate", "/usr/lib/libnpu.so")
    with refused("FAILED_PRECONDITION", "/usr/lib/libnpu.so", "cannot be loaded"):  # [L-5]
        agent.client.load(package, "npu")


@pytest.mark.parametrize(
    ("model", "word"),
    [("string", "cannot carry"), ("complex64", "cannot carry"), ("name_not_utf8", "UTF-8")],
)
def test_models_that_the_api_cannot_carry(
    client: Client, package_of: PackageOf, refused: Refused, model: str, word: str
) -> None:  # [T] [L-5]
    with refused("FAILED_PRECONDITION", word):
        client.load(package_of(model), "odd")


def test_memory_that_is_not_there(agents: Any, digits: Path, signer: Any, refused: Refused) -> None:  # [L-6]
    agent = agents(edge_memory_budget_mib=1).start()
    big = signer.package(make_models.big(64), "big")
    with refused("RESOURCE_EXHAUSTED", "needs", "are available"):
        agent.client.load(big, "big")
    assert not agent.client.status().models


def test_models_the_runtime_refuses(client: Client, signer: Any, refused: Refused) -> None:  # [L-7]
    for content in (b"", b"not a model", b"TFL3" * 100):
        with refused("FAILED_PRECONDITION", "runtime"):
            client.load(signer.sign_anything(content), "broken")
    assert not client.status().models


def test_broken_models_do_not_take_the_agent_down(
    agent: AgentProcess, client: Client, signer: Any, digits: Path
) -> None:  # [L-7] [L-9]
    """Truncated and bit-flipped models in correctly signed packages are refused, or load and work; the agent lives."""
    import random

    good, choose = (digits / "digits.tflite").read_bytes(), random.Random(20)
    contents = [good[: len(good) * part // 4] for part in (1, 2, 3)]
    for _ in range(12 if from_source() else 4):
        broken = bytearray(good)
        for _ in range(4):
            broken[choose.randrange(0, 4000)] ^= 1 << choose.randrange(8)
        contents.append(bytes(broken))
    for content in contents:
        try:
            client.load(signer.sign_anything(content), "broken")
        except Exception as error:
            assert error.code().name in ("FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"), error  # type: ignore[attr-defined]
        else:
            client.unload("broken")
        assert agent.process is not None and agent.process.poll() is None
    client.load(digits, "digits")


def test_several_models_at_once(client: Client, package_of: PackageOf) -> None:  # [L-8]
    for name in ("add_one", "two_by_two", "identity_int8", "scalar"):
        client.load(package_of(name), name.replace("_", "-"))
    assert [model.name for model in client.models()] == ["add-one", "two-by-two", "identity-int8", "scalar"]
    for model in client.models():
        assert client.predict(model.name, [zeros_for(m) for m in model.input_tensor_metadatas])


def test_the_same_package_under_two_names(client: Client, package_of: PackageOf) -> None:  # [L-8]
    for name in ("first", "second"):
        client.load(package_of("add_one"), name)
    client.unload("first")
    assert client.predict("second", [x_float([1, 2, 3, 4])])


def test_a_load_does_not_stall_predict(agent: AgentProcess, client: Client, package_of: PackageOf) -> None:  # [L-8]
    client.load(package_of("add_one"), "add")
    done = threading.Event()

    def load() -> None:
        client.load(package_of("slow"), "slow")
        done.set()

    thread = threading.Thread(target=load)
    thread.start()
    during = 0
    while not done.is_set():
        client.predict("add", [x_float([1, 2, 3, 4])])
        during += 1
    thread.join()
    assert during > 1


def test_the_model_is_warm_when_the_call_answers(client: Client, package_of: PackageOf) -> None:  # [L-10]
    client.load(package_of("slow"), "slow")
    assert [model.state for model in client.status().models] == ["READY"]
    assert client.status().models[0].memory_bytes > 0


def test_unload_what_is_not_loaded(client: Client, refused: Refused) -> None:  # [U-1]
    for name in ("ghost", "", "a/b"):
        with refused("NOT_FOUND"):
            client.unload(name)


def test_describe(client: Client, package_of: PackageOf, refused: Refused) -> None:  # [D]
    loaded = client.load(package_of("two_by_two"), "two")
    assert client.describe("two") == loaded == client.models()[0]
    assert [m.name for m in loaded.input_tensor_metadatas] == ["left", "right"]
    assert [m.name for m in loaded.output_tensor_metadatas] == ["sum", "difference"]
    assert all(list(m.shape) == [2, 3] for m in loaded.input_tensor_metadatas)
    with refused("NOT_FOUND", "'ghost'"):
        client.describe("ghost")


def test_list_with_nothing_loaded(client: Client) -> None:  # [LM]
    assert client.models() == []


def test_health_of_a_model(agent: AgentProcess, client: Client, package_of: PackageOf) -> None:  # [N]
    stub = health_pb2_grpc.HealthStub(agent.channel)
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    assert stub.Check(health_pb2.HealthCheckRequest()).status == serving
    client.load(package_of("add_one"), "add")
    assert stub.Check(health_pb2.HealthCheckRequest(service="add")).status == serving
    client.unload("add")
    assert stub.Check(health_pb2.HealthCheckRequest(service="add")).status == not_serving


def test_reflection(agent: AgentProcess) -> None:  # [N]
    from google.protobuf.descriptor_pool import DescriptorPool
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    database = ProtoReflectionDescriptorDatabase(agent.channel)
    assert {"AWS.SageMaker.Edge.Agent", "grpc.health.v1.Health"} <= set(database.get_services())
    service = DescriptorPool(database).FindServiceByName("AWS.SageMaker.Edge.Agent")
    assert [method.name for method in service.methods] == [
        m.name for m in pb.DESCRIPTOR.services_by_name["Agent"].methods
    ]


def footprint(agent: AgentProcess) -> tuple[int, int, int]:
    process = psutil.Process(agent.pid)
    return process.memory_info().rss, process.num_fds(), process.num_threads()


def test_cycles_leave_nothing_behind(agents: Any, digits: Path, signer: Any) -> None:  # [L-9] [U-3]
    """Loads, failed loads and unloads leave memory, files and threads where they were."""
    agent = agents().start()
    client, broken = agent.client, signer.sign_anything((digits / "digits.tflite").read_bytes()[:5000])

    def cycle() -> None:
        model = client.load(digits, "digits")
        client.predict("digits", [zeros_for(model.input_tensor_metadatas[0])])
        for url in (broken, "/nowhere"):
            with pytest.raises(Exception, match=r"FAILED_PRECONDITION|NOT_FOUND"):
                client.load(url, "other")
        client.unload("digits")

    for _ in range(10):
        cycle()
    rss, fds, threads = footprint(agent)
    for _ in range(CYCLES if from_source() else CYCLES // 10):
        cycle()
    eventually(lambda: footprint(agent)[1] <= fds, 10, "files are closed")
    eventually(lambda: footprint(agent)[0] <= rss * ALLOWED, 10, f"memory is what it was, {rss} bytes")
    after = footprint(agent)
    assert after[1] <= fds and after[2] <= threads + SPARE_THREADS, (fds, threads, after)


def test_memory_goes_back(agents: Any, signer: Any) -> None:  # [U-3]
    agent = agents().start()
    client, big = agent.client, signer.package(make_models.big(64), "big")
    client.load(big, "big")
    client.unload("big")
    before = agent.own_bytes()
    client.load(big, "big")
    loaded = agent.own_bytes()
    client.unload("big")
    after = agent.own_bytes()
    assert loaded - before > 32 << 20
    assert after - before < 8 << 20


def test_a_killed_load_is_refused_not_fatal(agents: Any, package_of: PackageOf, refused: Refused) -> None:  # [L-9]
    """The trial's child process is ended by something else: the load fails, the name is free again."""
    agent = agents().start()
    stop = threading.Event()

    def end_children() -> None:
        me = psutil.Process(agent.pid)
        while not stop.is_set():
            for child in me.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    child.kill()

    thread = threading.Thread(target=end_children)
    thread.start()
    try:
        with refused("RESOURCE_EXHAUSTED", "trial"):
            agent.client.load(package_of("add_one"), "add")
    finally:
        stop.set()
        thread.join()
    assert agent.client.load(package_of("add_one"), "add")


def test_the_manifest_names_the_package_not_the_alias(client: Client, package_of: PackageOf) -> None:
    client.load(package_of("add_one"), "alias")
    manifest = json.loads((package_of("add_one") / "sagemaker_edge_manifest").read_text())
    assert client.status().models[0].package_name == manifest["metadata"]["model_name"] != "alias"


def test_a_load_while_another_model_is_busy(
    agent: AgentProcess, client: Client, package_of: PackageOf
) -> None:  # [L-8]
    client.load(package_of("slow"), "slow")
    slow = Slow(agent)
    slow.start()
    slow.until(1, 0)
    assert client.load(package_of("add_one"), "add").name == "add"
    assert client.predict("add", [x_float([1, 2, 3, 4])])
    slow.cancel()
