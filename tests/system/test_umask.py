"""The umask that makes the socket's mode must not reach files and folders that other threads make [X-1]."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import ROOT, AgentProcess, from_source

# The agent; it tells of each change of its umask, and of the threads that run then.
WATCHED = f"""
import os, sys, threading
sys.path.insert(0, {str(ROOT)!r})
set_umask = os.umask
def umask(mask):
    print("umask", oct(mask), sorted(one.name for one in threading.enumerate()), file=sys.stderr, flush=True)
    return set_umask(mask)
os.umask = umask
from edge.cli import main
sys.exit(main())
"""
MAKE_FILES = ("captures", "uploader", "housekeeping", "declared models")


@pytest.mark.skipif(not from_source(), reason="a binary is not started by another program's code")
def test_no_thread_makes_files_while_the_socket_is_made(agents: Any, tmp_path: Path) -> None:
    """A folder that the capture worker made just then had no search bit: a user's captures never got further."""
    config = json.loads(agents().config_path.read_text())
    (tmp_path / "watched.py").write_text(WATCHED)
    agent = AgentProcess(tmp_path, config, command=[sys.executable, str(tmp_path / "watched.py")]).start()
    try:
        told = [line for line in agent.log.splitlines() if line.startswith("umask ")]
        assert told, agent.log
        assert not [line for line in told for name in MAKE_FILES if repr(name) in line]
        assert Path(agent.socket).stat().st_mode & 0o777 == 0o660
    finally:
        agent.stop()
