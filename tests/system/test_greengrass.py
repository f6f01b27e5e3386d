"""The Greengrass component: its recipe, its keys, and the agent that its script starts."""

import importlib.util
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge.config import parse_config
from edge.errors import ConfigError
from edge.greengrass import COMPONENT, KEYS, SOCKET_KEY, configuration
from tests.system.conftest import run_tool
from tests.system.harness import ROOT, AgentProcess, agent_command
from tests.system.managed import Site, adder

# The documented keys, with their defaults.
DOCUMENTED = {
    "DeviceFleetName": "",
    "BucketName": "",
    "CaptureDataBatchSize": "10",
    "CaptureDataBufferSize": "30",
    "CaptureDataDestination": "Cloud",
    "CaptureDataPeriodicUpload": "false",
    "CaptureDataPeriodicUploadPeriodSeconds": "8",
    "CaptureDataPushPeriodSeconds": "4",
    "CaptureDataBase64EmbedLimit": "3072",
    "FolderPrefix": "sme-capture",
    "CaptureDataDiskPath": "",
    "LocalDataRootPath": "",
    "DbEnable": "false",
    "DeploymentEnable": "false",
    "DeploymentPollInterval": "1440",
    "DLRBackendOptions": "",
    "SagemakerEdgeLogVerbose": "false",
    "UnixSocketName": "/tmp/aws.greengrass.SageMakerEdgeManager.sock",
}


@pytest.fixture(scope="module")
def recipes() -> Any:
    """packaging/greengrass/recipe.py."""
    spec = importlib.util.spec_from_file_location("recipe", ROOT / "packaging" / "greengrass" / "recipe.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def defaults(recipe: dict[str, Any]) -> dict[str, str]:
    return dict(recipe["ComponentConfiguration"]["DefaultConfiguration"])


def written(**given: str) -> Any:
    values = configuration(given, thing="press-17", region="eu-west-1", work="/component/work")
    return parse_config(json.dumps(values).encode())


def test_every_documented_key_has_its_default_as_text(recipes: Any) -> None:
    recipe = yaml.safe_load(recipes.agent_recipe("1.20261128.0", "s3://bucket/folder"))
    assert recipe["ComponentName"] == COMPONENT
    found = defaults(recipe)
    assert all(isinstance(value, str) for value in found.values())
    assert {name: found[name] for name in DOCUMENTED} == DOCUMENTED
    assert list(found) == [key.name for key in KEYS]
    for manifest in recipe["Manifests"]:
        script = manifest["Lifecycle"]["run"]["Script"]
        assert all(f"'{name}={{configuration:/{name}}}'" in script for name in found)
        (artifact,) = manifest["Artifacts"]
        assert artifact["Uri"].startswith(f"s3://bucket/folder/{COMPONENT}/1.20261128.0/")
    assert [manifest["Platform"]["architecture"] for manifest in recipe["Manifests"]] == ["amd64", "aarch64"]


def test_nucleus_lite_can_read_it(recipes: Any) -> None:
    """Its reader takes the text and what it parses from it in 16 KiB (GGL_COMPONENT_RECIPE_MAX_LEN)."""
    assert len(recipes.agent_recipe("1.20261128.0", "s3://bucket/a/long/folder")) < 6000


def test_keys_become_settings() -> None:
    loaded = written(
        DeviceFleetName="plant", BucketName="sagemaker-b", CaptureDataBufferSize="5", SagemakerEdgeLogVerbose="true",
        Settings='{"edge_delegate_paths": ["/lib/a.so", "/lib/b.so"], "edge_queue_calls": "3"}', DbEnable="true",
        FolderPrefix=" ",
    )  # fmt: skip
    config = loaded.config
    assert (config.core_device_name, config.core_iot_thing_name, config.core_region) == ("press-17",) * 2 + (
        "eu-west-1",
    )
    assert (config.core_capture_data_destination, config.core_folder_prefix) == ("Cloud", "sme-capture")
    assert (config.core_capture_data_buffer_size, config.core_capture_data_batch_size) == (5, 5)
    assert config.edge_delegate_paths == ("/lib/a.so", "/lib/b.so")
    assert (config.edge_queue_calls, config.log_verbose, config.edge_spool_path) == (3, True, "/component/work/spool")
    assert loaded.warnings == ()
    disk = written(DeviceFleetName="plant", CaptureDataDestination="Disk").config
    assert (disk.core_capture_data_disk_path, disk.edge_spool_path) == (
        "/component/work/capture",
        "/component/work/capture/.spool",
    )
    elsewhere = written(DeviceFleetName="plant", CaptureDataDestination="Disk", CaptureDataDiskPath="/data").config
    assert elsewhere.edge_spool_path == "/data/.spool"


@pytest.mark.parametrize(
    ("destination", "settings", "spool"),
    [
        ("Cloud", {"sagemaker_edge_core_capture_data_destination": "Disk"}, "/component/work/capture/.spool"),
        ("Disk", {"sagemaker_edge_core_capture_data_destination": "Cloud"}, "/component/work/spool"),
        ("Cloud", {"edge_spool_path": "/data/spool"}, "/data/spool"),
    ],
)
def test_settings_say_where_captures_wait(destination: str, settings: dict[str, str], spool: str) -> None:
    given = {"CaptureDataDestination": destination, "Settings": json.dumps(settings)}
    assert written(DeviceFleetName="plant", BucketName="sagemaker-b", **given).config.edge_spool_path == spool


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'BucketNam' is not a key"):
        configuration({"BucketNam": "x"}, thing="t", region="r", work="/w")
    for text, told in (
        ("[1]", "Settings must be a JSON object, not"),
        ('{"edge_queue_calls": 3,}', r"Settings is not JSON: line 1, column \d+: a comma after the last entry"),
        ('{"edge_queue_calls": 3, "edge_queue_calls": 4}', "Settings has the key 'edge_queue_calls' twice"),
    ):
        with pytest.raises(ConfigError, match=told):
            configuration({"Settings": text}, thing="t", region="r", work="/w")
    for words, said in (
        (["DeviceFleetName"], "'DeviceFleetName' is not KEY=VALUE"),
        (["DeviceFleetName=", "CaptureDataBatchSize=many"], "core_device_fleet_name"),
    ):
        refused = run_tool("greengrass", "--work", str(tmp_path), "--thing", "t", *words, check=False)
        assert refused.returncode == 2
        assert said in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_script_starts_an_agent(recipes: Any, signer: Any, digits: Path, tmp_path: Path) -> None:
    """As Greengrass does: variables are put into the text, and a shell runs it."""
    recipe = yaml.safe_load(recipes.agent_recipe("1.0.0", "s3://b"))
    artifacts, work = tmp_path / "artifacts", tmp_path / "work"
    artifacts.mkdir(), work.mkdir()
    program = artifacts / recipes.BINARY
    program.write_text(f'#!/bin/sh\nexec {shlex.join(agent_command())} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    agent = AgentProcess(work, {})
    values = defaults(recipe) | {
        "DeviceFleetName": "plant",
        "CaptureDataDestination": "Disk",
        "CaptureDataPushPeriodSeconds": "1",
        "RootCertsPath": str(signer.roots),
        SOCKET_KEY: agent.socket,
    }
    script = recipe["Manifests"][0]["Lifecycle"]["run"]["Script"]
    for name, value in {
        "artifacts:path": str(artifacts), "work:path": str(work), "iot:thingName": "press-17",
        **{f"configuration:/{name}": value for name, value in values.items()},
    }.items():  # fmt: skip
        script = script.replace("{" + name + "}", value)
    assert re.search(r"\{\w+:", script) is None
    with agent.log_path.open("wb") as log:
        agent.process = subprocess.Popen(["sh", "-c", script], stdout=log, stderr=log, env={**os.environ})
    agent.wait_serving()
    try:
        agent.client.load(digits, "digits")
        agent.client.capture(model_name="digits", capture_id="a")
        agent.client.wait_captured("a")
        assert len(list((work / "capture" / "sme-capture" / "plant" / "digits").rglob("*press-17*.jsonl"))) == 1
    finally:
        agent.signal(signal.SIGTERM)
        assert agent.wait() == 0, agent.log


def test_a_model_s_component_unpacks_what_applications_load(
    recipes: Any, signer: Any, package_of: Callable[[str], Path], agent: AgentProcess, tmp_path: Path
) -> None:
    artifacts, work = tmp_path / "artifacts", tmp_path / "work"
    artifacts.mkdir(), work.mkdir()
    signer.package(package_of("add_one") / "add_one.tflite", "add-one", out=artifacts / "add-1.0.tar.gz")
    recipe = yaml.safe_load(recipes.model_recipe("com.example.add", "1.0.0", "add-1.0.tar.gz", "s3://b"))
    assert recipe["ComponentDependencies"] == {COMPONENT: {"VersionRequirement": ">=1.0.0", "DependencyType": "HARD"}}
    script = recipe["Manifests"][0]["Lifecycle"]["install"]["Script"]
    script = script.replace("{artifacts:path}", str(artifacts)).replace("{work:path}", str(work))
    (work / "of-the-version-before").write_text("")
    subprocess.run(["sh", "-c", script], check=True)
    assert agent.client.load(work, "add").name == "add"
    agent.client.unload("add")


def test_a_model_s_component_declares_it(recipes: Any, signer: Any, agents: Any, tmp_path: Path) -> None:  # [M-2]
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    site = Site.made(agents, tmp_path)
    site.agent.start()
    program = artifacts / recipes.BINARY
    program.write_text(f'#!/bin/sh\nexec {shlex.join(agent_command())} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    package = adder(signer, "1.0", 1, tmp_path)
    with tarfile.open(artifacts / "add-1.0.tar.gz", "w:gz") as archive:
        archive.add(package, "adder")
    recipe = yaml.safe_load(recipes.model_recipe("com.example.add", "1.0.0", "add-1.0.tar.gz", "s3://b", "add"))
    assert recipe["ComponentDependencies"] == {COMPONENT: {"VersionRequirement": ">=1.0.0", "DependencyType": "HARD"}}
    script = recipe["Manifests"][0]["Lifecycle"]["run"]["Script"]
    for name, value in {
        "artifacts:path": str(artifacts),
        f"{COMPONENT}:artifacts:path": str(artifacts),
        f"{COMPONENT}:configuration:/{SOCKET_KEY}": site.agent.socket,
    }.items():
        script = script.replace("{" + name + "}", value)
    assert re.search(r"\{[\w.]+:", script) is None
    for _ in range(2):  # Greengrass runs it at each start of its own
        subprocess.run(["sh", "-c", script], check=True)
        assert site.added("add") == 1
        assert site.managed("add").why == "declared"
    (artifacts / "add-1.0.tar.gz").write_bytes(b"no package")
    assert subprocess.run(["sh", "-c", script], check=False, capture_output=True).returncode == 1
    assert site.added("add") == 1
