"""The demo from another folder, and what it says when it cannot."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from demo import run
from tests.system.harness import ROOT, from_source

pytestmark = pytest.mark.skipif(not from_source(), reason="the demo runs the source tree")


def demo(folder: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "demo.run", "--out", str(folder / "out"), *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_from_another_folder(tmp_path: Path) -> None:
    done = demo(tmp_path, COLUMNS="80", PYTHONIOENCODING="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "20 of 20 read right" in done.stdout
    assert "all captures SUCCESS" in done.stdout
    assert "exit code 0" in done.stdout
    assert done.stdout.count("✓") == 20
    assert all(len(line) <= 80 for line in done.stdout.splitlines()[5:40])
    report = tmp_path / done.stdout.splitlines()[-1].strip()
    assert report == tmp_path / "out" / "report.html"
    page = report.read_text("utf-8")
    assert page.count('alt="input of ') == 20 + 12  # the newest, and the least certain of them
    assert len(re.findall(r"</i><b>[0-9]</b>", page)) == 20 + 12


def test_captures_of_an_agent_that_runs_are_left_alone(tmp_path: Path, agents: Any) -> None:
    agent = agents(core_capture_data_disk_path=str(tmp_path / "out" / "captures"), roots=tmp_path)
    kept = tmp_path / "out" / "captures" / "kept"
    kept.parent.mkdir(parents=True)
    kept.touch()
    agent.start()
    done = demo(tmp_path)
    agent.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "an agent that captures to" in done.stdout
    assert kept.exists()
    shutil.rmtree(re.findall(r"this demo works in (\S+)", done.stdout)[0])


def test_in_a_terminal_without_unicode(tmp_path: Path) -> None:
    done = demo(tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stdout + done.stderr


def test_agent_that_does_not_start_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os, sys\nif '-a' in sys.orig_argv:\n    os._exit(9)\n")
    done = demo(tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 1
    assert done.stderr == "\nThe demo failed: the agent ended with 9 instead of starting\n"


def test_failure_later_shows_the_log_and_stops_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "tests" / "data" / "complex64.tflite", tmp_path / "digits.tflite")  # a model that no agent takes
    monkeypatch.setattr(run, "DATA", tmp_path)
    before = set(psutil.Process().children(recursive=True))
    assert run.main(["--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert told.startswith("\nThe demo failed: FAILED_PRECONDITION: ")
    assert "The agent's last words" in told
    assert set(psutil.Process().children(recursive=True)) <= before
