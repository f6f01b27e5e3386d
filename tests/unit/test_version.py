"""The version and the build date (S-6)."""

import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from edge import version
from edge.clock import SystemClock
from edge.selfexec import self_command


def test_from_source_it_comes_from_git() -> None:
    text, built = version.version()
    assert re.fullmatch(r"1\.\d{8}\.([0-9a-f]{7}|unknown)", text)
    assert 1_700_000_000 < built <= SystemClock().now() + 86_400


def test_a_build_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    build = types.SimpleNamespace(VERSION="1.20300101.abcdef0", BUILD_DATE=1_893_456_000)
    monkeypatch.setitem(sys.modules, "edge._build", build)  # type: ignore[misc]
    assert version.version() == ("1.20300101.abcdef0", 1_893_456_000)
    assert version.python_version() == "1.20300101+gabcdef0"


def test_without_git_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version.subprocess, "run", lambda *a, **k: (_ for _ in ()).throw(FileNotFoundError()))
    assert version.version()[0].endswith(".unknown")
    assert re.fullmatch(r"1\.\d{8}\+unknown", version.python_version())


def test_a_repository_around_the_tree_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # [S-6]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(
        [
            "git",
            "-C",
            str(tmp_path),
            "-c",
            "user.name=n",
            "-c",
            "user.email=e@x.example",
            "commit",
            "-qm",
            "x",
            "--allow-empty",
            "--date=2050-01-01T00:00:00Z",
        ],
        check=True,
        env={**os.environ, "GIT_COMMITTER_DATE": "2050-01-01T00:00:00Z"},
    )
    module = tmp_path / "vendor" / "edge" / "version.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    monkeypatch.setattr(version, "__file__", str(module))
    text, built = version._from_source()
    assert text.endswith(".unknown")
    assert built == int(module.stat().st_mtime)


def test_the_program_can_start_itself_again() -> None:
    assert self_command()[-1].endswith("agent.py")


def test_the_clock() -> None:
    clock = SystemClock()
    assert clock.monotonic() <= clock.monotonic()
    assert isinstance(clock.synchronised(), bool)
