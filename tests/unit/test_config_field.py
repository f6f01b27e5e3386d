"""Configurations as they are found in the field: `--check-config` takes them all, with warnings at most. [X-3]"""

import re
from pathlib import Path

import pytest

from edge import cli, config_rules

FOLDER = Path(__file__).resolve().parents[1] / "data" / "configurations"
FILES = sorted(FOLDER.glob("*.json"))
# What is warned of, by a word; the others are taken without one.
WARNINGS = {
    "04": ["equals the buffer size"],
    "06": ["nothing uses it"] * 5,
    "07": ["captures are kept in"] * 2,
    "09": ["provider_path is not used", "telemetry_libsystemd_path is not used"],
    "10": ["db_module", "local_data", "deployment_lib", "poll_interval", "dlr_backend"],
    "11": ["provider_path is not used", "Custom providers"],
    "12": ["does not contain 'sagemaker'", "equals the buffer size"],
    "13": ["comment is not a known key", "data_format is not a known key"],
    "14": ["nothing uses it"],
    "05": ["local_data_root_path"],
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_configuration_of_the_field(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setattr(config_rules, "STATE_FOLDER", f"{tmp_path}/state")
    text = re.sub(r'": "/', f'": "{tmp_path}/', file.read_bytes().decode())  # what is absolute is below this folder
    (work / "config.json").write_bytes(text.encode())
    assert cli.main(["--check-config", "-c", "config.json"]) == 0
    shown = capsys.readouterr()
    warned = shown.err.splitlines()
    assert all(line.startswith("warning: ") for line in warned)
    expected = WARNINGS.get(file.stem[:2], [])
    assert len(warned) == len(expected), warned
    assert all(any(word in line for line in warned) for word in expected), warned
    assert re.search(r"edge_spool_path +\"/", shown.out)


def test_the_corpus_is_whole() -> None:
    assert len(FILES) == 15
