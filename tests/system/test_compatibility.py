"""Applications in the field: stubs from other definitions of the same wire, and the samples' order of calls (docs/spec/api.md)."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from grpc_tools import protoc

from tests.system.field_messages import FORMS, definition
from tests.system.harness import AgentProcess, Client

HERE = Path(__file__).parent


@pytest.mark.parametrize("form", FORMS)
def test_an_application_in_the_field(
    agent: AgentProcess, client: Client, package_of: Callable[[str], Path], tmp_path: Path, form: str
) -> None:  # [T] [P-11] [C-1]
    (tmp_path / "field.proto").write_text(definition(form))
    words = ["protoc", f"-I{tmp_path}", f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}"]
    assert protoc.main([*words, str(tmp_path / "field.proto")]) == 0
    done = subprocess.run(
        [sys.executable, HERE / "foreign_client.py", tmp_path, agent.socket, package_of("add_one")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr + agent.log
    *capture_ids, last = done.stdout.split("\n")[:-1]
    assert last == ("bytes b'x'" if form == "bytes" else "str x")
    for capture_id in capture_ids:
        client.wait_captured(capture_id)
