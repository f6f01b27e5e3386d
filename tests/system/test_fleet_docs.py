"""The commands of docs/fleet.md, as they are written."""

import json
import os
import re
import shlex
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge.fleet.reports import heartbeat_key, report_key
from tests.fakes.stores import BUCKET, start_rclone
from tests.system.conftest import run_tool
from tests.system.fleet import archive
from tests.system.harness import ROOT, client_command


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", (ROOT / "docs/fleet.md").read_text(), re.DOTALL | re.MULTILINE)


def test_set_up_in_ten_commands(signer: Any, tmp_path: Path) -> None:
    for version in ("1.0", "1.1"):
        made = archive(signer, version, 1, tmp_path)
        made.rename(tmp_path / f"digits-{version}.tar.gz")
    block, *_ = blocks("sh")
    lines = [line for line in block.splitlines() if line.startswith("sagemaker-edge-agent")]
    assert len(lines) == 10
    block = block.replace("=digits/", "=adder/").replace("sagemaker-edge-agent ", shlex.join(client_command()) + " ")
    done = subprocess.run(
        ["bash", "-e", "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all is well\n")


def test_a_board_may_write_its_own(tmp_path: Path) -> None:  # [F-13]
    policy = next(block for block in blocks("json") if "ThingName" in block)
    write, read = json.loads(policy.replace("${credentials-iot:ThingName}", "press-1"))["Statement"]
    keys = [heartbeat_key("f", "{}"), *(report_key("f", "n-1", "{}", failed=failed) for failed in (True, False))]
    for device, may in (("press-1", True), ("press-2", False), ("xpress-1", False)):
        for key in keys:
            resource = "arn:aws:s3:::BUCKET/" + key.format(device)
            assert any(fnmatchcase(resource, pattern) for pattern in write["Resource"]) is may
    assert (write["Action"], read["Action"]) == ("s3:PutObject", "s3:GetObject")


def test_the_daily_workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # [F-17]
    """It is what a forge reads, and its commands go through with the online key alone."""
    (block,) = blocks("yaml")
    workflow = yaml.safe_load(block)
    assert workflow[True]["schedule"] == [{"cron": "17 4 * * *"}]  # YAML's "on" is a truth
    (job,) = workflow["jobs"].values()
    runs = [step for step in job["steps"] if "sagemaker-edge-agent fleet" in step.get("run", "")]
    assert [step["run"].split()[2] for step in runs] == ["timestamp", "doctor"]
    store = start_rclone(tmp_path)
    try:
        for name, value in {**store.environment(), "AWS_ENDPOINT_URL_S3": store.url, **job["env"]}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SAGEMAKER_EDGE_FLEET_PASSPHRASE", "secret")
        repository = f"s3://{BUCKET}/repo"
        run_tool("fleet", "init", repository, "--keys", str(tmp_path / "all"))
        (tmp_path / "keys").mkdir()
        for name in ("online.pem", "online.pub"):
            (tmp_path / "all" / name).rename(tmp_path / "keys" / name)
        before = store.objects()["repo/metadata/timestamp.json"]
        for step in runs:
            secret = dict.fromkeys(step.get("env", {}), "secret")
            words = step["run"].replace("s3://models/repo", repository)
            words = words.replace("sagemaker-edge-agent ", shlex.join(client_command()) + " ")
            environment = {**os.environ, "PYTHONPATH": str(ROOT), **secret}
            done = subprocess.run(
                ["bash", "-e", "-c", words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
        assert store.objects()["repo/metadata/timestamp.json"] != before
    finally:
        store.close()
