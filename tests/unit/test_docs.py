"""The documents' examples are what the program takes, and the behaviours that tests cite are in docs/spec."""

import json
import re
from pathlib import Path

from edge.config import parse_config
from edge.package.adapter import read_adapters
from edge.package.manifest import parse_manifest
from edge.package.selftest import parse_selftest
from edge.rpc._generated import open_inference_pb2
from edge.rpc.oip.servicer import NOT_OFFERED

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "docs" / "spec"
DEFINED = set(re.findall(r"\*\*\[?([A-Z]+(?:-\d+)?)\]?\*\*", "".join(path.read_text() for path in SPEC.glob("*.md"))))


def json_blocks(document: Path) -> list[str]:
    return re.findall(r"^```json\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)


def test_configuration_of_the_operators_guide() -> None:
    (block,) = json_blocks(ROOT / "docs" / "operate.md")
    assert parse_config(block.encode()).warnings == ()


def test_configuration_of_the_readme() -> None:
    (block,) = re.findall(r"<<END\n(.*?)^END$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert parse_config(block.replace("$PWD", "/home/me").encode()).warnings == ()


def test_manifest_of_the_specification() -> None:
    (block,) = json_blocks(SPEC / "packages.md")
    assert parse_manifest(block.encode()).model_name == "digits"


def test_adapter_of_the_specification() -> None:
    block, _ = json_blocks(SPEC / "package-format.md")
    for side, entries in json.loads(block).items():
        assert read_adapters(entries, side)


def test_selftest_of_the_specification() -> None:
    _, block = json_blocks(SPEC / "package-format.md")
    (case,) = parse_selftest(block.encode(), 8 * 8 * 4 + 10 * 4).cases
    assert case.outputs[0].absolute == 1e-4


def test_record_of_the_specification_is_json() -> None:
    (block,) = json_blocks(SPEC / "capture.md")
    assert json.loads(block)["eventVersion"] == "0"


def texts(*folders: str) -> dict[str, str]:
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md")]
    return {str(path): path.read_text() for path in paths if "_generated" not in path.parts}


def test_cited_behaviours_are_in_the_specification() -> None:
    sections = "|".join({behaviour.partition("-")[0] for behaviour in DEFINED})
    cited = re.compile(rf"\b(?:{sections})-\d{{1,2}}\b|(?<=# \[)[A-Z]+(?:-\d+)?(?=\])")
    for name, text in texts("edge", "tests", "docs").items():
        assert set(cited.findall(text)) <= DEFINED, name


def test_pages_of_decisions_that_are_named_exist() -> None:
    for name, text in texts("edge", "tests", "docs", "packaging").items():
        for page in re.findall(r"\badr/(\d{4}-[a-z0-9-]+\.md)", text):
            assert (ROOT / "docs" / "adr" / page).exists(), f"{name}: {page}"


def test_every_behaviour_is_cited_by_a_test() -> None:
    cited = re.findall(r"\[([A-Z]+(?:-\d+)?)\]", "".join(texts("tests").values()))
    assert DEFINED - set(cited) == set()


def test_every_call_of_the_protocol_is_in_its_table_with_tests_that_exist() -> None:  # [O-1]
    page = (ROOT / "docs" / "spec" / "open-inference.md").read_text()
    table = page.partition("## Compliance")[2]
    service = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for call in [*(method.name for method in service.methods), *NOT_OFFERED]:
        assert re.search(rf"^\| .*\b{call}\b.* \|", table, re.MULTILINE), call
    written = "".join(texts("tests").values())
    for test in re.findall(r"`(test_\w+)`", page):
        assert f"def {test}(" in written, test


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "adr"
    row = r"^\| \d+ \| \[(.*)\]\((\d{4}-.*\.md)\)(?:; superseded by (\d+))? \| \d{4}-\d\d-\d\d \|$"
    listed = {name: (title, newer) for title, name, newer in re.findall(row, (folder / "README.md").read_text(), re.M)}
    pages = {}
    for path in folder.glob("0*.md"):
        text = path.read_text()
        newer = re.search(r"^Status: superseded by \[ADR (\d+)\]", text, re.M)
        pages[path.name] = (text.splitlines()[0].partition(". ")[2], newer[1] if newer else "")
    assert listed == pages


def test_what_is_defended_is_shown() -> None:
    """Each row of SECURITY.md names tests that are there."""
    table = (ROOT / "SECURITY.md").read_text().split("## What it does not")[0].split("## What the agent defends")[1]
    rows = [line.split(" | ")[-1].removesuffix(" |") for line in table.splitlines() if line.startswith("| ")]
    assert rows.pop(0) == "Shown by"
    assert len(rows) > 10
    for row in rows:
        for name in row.split(", "):
            assert name.startswith("tests/"), row
            assert (ROOT / name).exists(), name
