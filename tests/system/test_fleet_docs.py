"""The commands of docs/fleet.md, as they are written."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

from tests.system.fleet import archive
from tests.system.harness import ROOT, client_command


def test_set_up_in_ten_commands(signer: Any, tmp_path: Path) -> None:
    for version in ("1.0", "1.1"):
        made = archive(signer, version, 1, tmp_path)
        made.rename(tmp_path / f"digits-{version}.tar.gz")
    block, *_ = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs/fleet.md").read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for line in block.splitlines() if line.startswith("sagemaker-edge-agent")]
    assert len(lines) == 10
    block = block.replace("=digits/", "=adder/").replace("sagemaker-edge-agent ", shlex.join(client_command()) + " ")
    done = subprocess.run(
        ["bash", "-e", "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all is well\n")
