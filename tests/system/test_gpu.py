"""Models on the GPU: SwiftShader, a Vulkan in software, as Debian's chromium-common has it."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.data import hard_models, make_models
from tests.fakes.engines import gpu_is_there
from tests.system.conftest import DIGITS
from tests.system.harness import ROOT, array_of, client_command, from_source, tensor_of

VULKAN = Path("/usr/lib/chromium")  # of chromium-common
ENVIRONMENT = {"VK_ICD_FILENAMES": str(VULKAN / "vk_swiftshader_icd.json"), "LD_LIBRARY_PATH": str(VULKAN)}
EMULATED = "AGENT_GPU" in os.environ  # the other machine's binary, with its own SwiftShader (make test-arm64-gpu)
pytestmark = pytest.mark.skipif(
    not EMULATED and not (from_source() and gpu_is_there() and (VULKAN / "vk_swiftshader_icd.json").exists()),
    reason="there is no GPU library for this platform, or no SwiftShader (chromium-common)",
)
ON_GPU = ("--accelerator", "gpu")
PICTURE = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1)


def engines(agent: Any) -> dict[str, str]:
    return {model.name: model.engine for model in agent.client.status().models}


def test_a_model_runs_on_the_gpu_as_on_the_cpu(agents: Any, signer: Any) -> None:  # [ACC-1] [ACC-4]
    agent = agents().start(env=ENVIRONMENT)
    client = agent.client
    client.load(signer.package(DIGITS, "on-gpu", *ON_GPU), "on-gpu")
    client.load(signer.package(DIGITS, "half", *ON_GPU, "--precision", "float16"), "half")
    client.load(signer.package(DIGITS, "on-cpu"), "on-cpu")
    name = client.describe("on-cpu").input_tensor_metadatas[0].name
    answers = {
        model: array_of(client.predict(model, [tensor_of(PICTURE, name)])[0]) for model in ("on-gpu", "half", "on-cpu")
    }
    assert np.allclose(answers["on-gpu"], answers["on-cpu"], atol=1e-5)
    assert np.allclose(answers["half"], answers["on-cpu"], atol=2e-2)
    said = engines(agent)
    assert said["on-gpu"].endswith("on the GPU, fully") and "GPU" not in said["on-cpu"], said
    assert agent.stop() == 0


def test_what_a_gpu_does_not_take_runs_on_the_cpu(agents: Any, signer: Any) -> None:  # [ACC-3] [ACC-4]
    agent = agents().start(env=ENVIRONMENT)
    client = agent.client
    for name, model in (
        ("loop", hard_models.doubling()),
        ("dynamic", make_models.add_one((-1, 4))),
    ):
        client.load(signer.package(model, name, *ON_GPU), name)
    said = engines(agent)
    assert said["loop"].endswith("on the GPU, in part"), said
    assert array_of(client.predict("loop", [tensor_of(np.ones(1, np.float32), "x")])[0]).item() == 8
    assert "not on the GPU: a GPU takes no model whose inputs have a choice of shapes" in said["dynamic"], said
    assert agent.stop() == 0


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a driver that fails as its file `fault` says (tests/fakes/failing_gpu.c)."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    folder = tmp_path_factory.mktemp("gpu")
    words = ["gcc", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o", str(folder / "libfailing_gpu.so")]
    subprocess.run([*words, str(ROOT / "tests/fakes/failing_gpu.c"), "-ldl"], check=True)
    driver = {"library_path": str(folder / "libfailing_gpu.so"), "api_version": "1.0.5"}
    (folder / "icd.json").write_text(json.dumps({"file_format_version": "1.0.0", "ICD": driver}))
    return folder


def started(agents: Any, faulty: Path, fault: str = "") -> Any:
    (faulty / "fault").write_text(fault)
    return agents().start(
        env={**ENVIRONMENT, "VK_ICD_FILENAMES": str(faulty / "icd.json"), "GPU_FAULT": str(faulty / "fault")}
    )


def ask(agent: Any, model: str) -> np.ndarray:
    name = agent.client.describe(model).input_tensor_metadatas[0].name
    return array_of(agent.client.predict(model, [tensor_of(PICTURE, name)])[0])


def test_the_cpu_takes_over_where_the_device_is_lost_for_good(
    agents: Any, signer: Any, faulty: Path
) -> None:  # [ACC-5]
    agent = started(agents, faulty)
    agent.client.load(signer.package(DIGITS, "digits", *ON_GPU), "digits")
    before = ask(agent, "digits")
    (faulty / "fault").write_text("lost")
    assert np.allclose(ask(agent, "digits"), before, atol=1e-5)  # by the CPU, while the GPU is set up anew
    assert np.allclose(ask(agent, "digits"), before, atol=1e-5)
    assert "on the CPU now, for the GPU failed" in engines(agent)["digits"], engines(agent)
    (faulty / "fault").write_text("")
    assert np.allclose(ask(agent, "digits"), before, atol=1e-5)
    assert "on the CPU now" in engines(agent)["digits"]
    agent.client.unload("digits")
    agent.client.load(signer.package(DIGITS, "digits", *ON_GPU), "digits")
    assert engines(agent)["digits"].endswith("on the GPU, fully")
    assert agent.stop() == 0


def test_a_device_that_is_lost_once_is_set_up_anew(agents: Any, signer: Any, faulty: Path) -> None:  # [ACC-5]
    agent = started(agents, faulty)
    agent.client.load(signer.package(DIGITS, "digits", *ON_GPU, "--no-fallback"), "digits")
    before = ask(agent, "digits")
    (faulty / "fault").write_text("lost")
    with pytest.raises(grpc.RpcError) as refused:
        ask(agent, "digits")
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    (faulty / "fault").write_text("")
    assert np.allclose(ask(agent, "digits"), before, atol=1e-5)
    assert engines(agent)["digits"].endswith("on the GPU, fully")
    assert agent.stop() == 0


def test_a_driver_that_crashes_in_the_trial(agents: Any, signer: Any, faulty: Path) -> None:  # [ACC-3]
    agent = started(agents, faulty, "abort")
    agent.client.load(signer.package(DIGITS, "digits", *ON_GPU), "digits")
    said = engines(agent)["digits"]
    assert "not on the GPU: the runtime (LiteRT 2.3.0 on the GPU) crashes, SIGABRT," in said, said
    with pytest.raises(grpc.RpcError) as refused:
        agent.client.load(signer.package(DIGITS, "only", *ON_GPU, "--no-fallback"), "only")
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert agent.stop() == 0


def test_no_driver_and_an_agent_that_allows_the_cpu_alone(
    agents: Any, signer: Any, tmp_path: Path
) -> None:  # [ACC-3] [ACC-6]
    package = signer.package(DIGITS, "digits", *ON_GPU)
    only = signer.package(DIGITS, "only", *ON_GPU, "--no-fallback")
    for agent, why in (
        (agents().start(env={"VK_ICD_FILENAMES": str(tmp_path / "none.json")}), "not on the GPU: "),
        (agents(edge_accelerators="cpu").start(env=ENVIRONMENT), "not on the GPU: edge_accelerators does not allow it"),
    ):
        agent.client.load(package, "digits")
        assert why in engines(agent)["digits"]
        with pytest.raises(grpc.RpcError) as refused:
            agent.client.load(only, "only")
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert agent.stop() == 0


def test_doctor_names_the_gpu(faulty: Path) -> None:  # [ACC-7]
    (faulty / "fault").write_text("")
    driver = {**ENVIRONMENT, "VK_ICD_FILENAMES": str(faulty / "icd.json"), "GPU_FAULT": str(faulty / "fault")}
    assert "gpu: SwiftShader" in doctor(driver)
    (faulty / "fault").write_text("abort")
    assert "gpu: SwiftShader Device (Subzero): signal 6 ends its trial" in doctor(driver)
    assert "models that ask for it run on the CPU" in doctor(driver)
    assert "gpu" not in doctor({"VK_ICD_FILENAMES": "/nonexistent"})


def doctor(environment: dict[str, str]) -> str:
    return subprocess.run(
        [*client_command(), "doctor", "--socket", "/nonexistent"],
        env={**os.environ, **environment},
        text=True,
        check=False,
        stdout=subprocess.PIPE,
    ).stdout
