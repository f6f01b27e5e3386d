"""The README's application and commands, run as they stand there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.system.harness import ROOT, AgentProcess, client_command

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_the_application_in_few_lines(agent: AgentProcess, digits: Path, tmp_path: Path) -> None:
    """As it stands, twice, in a folder of its own; tests/newcomer installs its libraries as the page says."""
    (application,) = blocks("python")
    assert len([line for line in application.splitlines() if line.strip()]) <= 24
    stubs = next(line for block in blocks("sh") for line in block.splitlines() if "grpc_tools.protoc" in line)
    words = shlex.split(stubs.replace("$AGENT", str(ROOT)))
    subprocess.run([sys.executable, *words[1:]], cwd=tmp_path, check=True)
    (tmp_path / "application.py").write_text(application)
    pictures = ROOT / "demo" / "data" / "held_out.npz"

    def run(package: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "application.py", agent.socket, str(package), str(pictures)],
            cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    refused = run(tmp_path / "none")
    assert refused.returncode == 1
    assert refused.stderr.startswith("NOT_FOUND: ")
    for _ in range(2):
        done = run(digits)
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(r"It is a \d\n", done.stdout)
    subprocess.run([*client_command(), "unload", "-a", agent.socket, "digits"], check=True, capture_output=True)


def test_its_commands_are_the_programs() -> None:
    told = re.findall(r"agent\.py ([a-z-]+)", "\n".join(blocks("sh")))
    assert {"demo-ca", "package", "load", "predict", "status", "doctor"} <= set(told)
    for command in set(told) - {"-a"}:
        subprocess.run([*client_command(), command, "--help"], check=True, capture_output=True)


def test_links_lead_somewhere() -> None:
    for document in [
        ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/migrate.md", "docs/operate.md")
    ]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"
