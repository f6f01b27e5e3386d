"""Shell completion as the packages install it, in a real bash."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from edge.client import SUMMARIES

ROOT = Path(__file__).resolve().parents[2]
GENERATE = ROOT / "packaging" / "completion" / "generate.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with `bash` and `zsh`, made with nothing but Python's own library."""
    folder = tmp_path_factory.mktemp("completion")
    subprocess.run([sys.executable, "-I", "-S", GENERATE, folder], check=True)
    return folder


def completed(made: Path, line: str) -> list[str]:
    words = shlex.split(line) + [""] * line.endswith(" ")
    script = (
        f"source {made}/bash; COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; "
        "_sagemaker_edge_agent; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split()


def test_bash(made: Path) -> None:
    assert completed(made, "sagemaker-edge-agent ") == list(SUMMARIES)
    assert completed(made, "sagemaker-edge-agent lo") == ["load"]
    assert completed(made, "sagemaker-edge-agent --check") == ["--check-config"]
    assert completed(made, "sagemaker-edge-agent -c ") == []  # a file
    assert completed(made, "sagemaker-edge-agent predict digits --t") == ["--timeout", "--top"]
    assert completed(made, "sagemaker-edge-agent -a s predict digits ") == []  # a file
    assert completed(made, "sagemaker-edge-agent verify p --tr") == ["--trust"]


def test_zsh_knows_every_command(made: Path) -> None:
    text = (made / "zsh").read_text()
    assert text.startswith("#compdef sagemaker-edge-agent sagemaker_edge_agent_client_example\n")
    for word, summary in SUMMARIES.items():
        assert f"'{word}:{summary}'" in text
        assert f"  {word}) _arguments " in text
    assert "'--trust[folder of trusted roots, *.pem (/etc/sagemaker-edge-agent/trust)]:DIR:_files'" in text
    assert "'-d[accepted for compatibility; does nothing]'" in text
