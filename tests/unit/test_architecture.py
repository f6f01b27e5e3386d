"""The rules of the tree: what may import what, and how long a file may be."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EDGE = ROOT / "edge"
# Rules decide; they touch no socket, file, clock or wire.
PURE = [
    "tensors.py",
    "errors.py",
    "text.py",
    "setting.py",
    "settings.py",
    "capture_policy.py",
    "package/manifest.py",
    "package/signing.py",
    "package/bundle.py",
    "package/certificates.py",
    "strict_json.py",
    "package/tar.py",
    "serving/binding.py",
    "package/adapter.py",
    "package/selftest.py",
    "serving/agreement.py",
    "engine/model_file.py",
    "shm/checks.py",
    "capture/layout.py",
    "capture/record.py",
    "capture/statistics.py",
    "capture/triggers.py",
    "cloud/retry.py",
    "fleet/document.py",
    "fleet/state.py",
    "fleet/times.py",
    "fleet/rollout.py",
    "fleet/standing.py",
    "cloud/aws/sigv4.py",
    "histogram.py",
    "metrics/table.py",
    "metrics/exposition.py",
]
# The rooms of edge/, and which others each may look into. The modules beside them are for all.
MAY_IMPORT = {
    "host": set[str](),
    "package": {"host"},
    "engine": {"host"},
    "shm": {"host"},
    "capture": {"host"},
    "cloud": {"capture"},
    "serving": {"host", "package", "engine", "shm"},
    "deploy": {"host", "package", "serving"},
    "fleet": {"host", "cloud", "package", "deploy", "serving"},
    "rpc": {"host", "engine", "shm", "serving", "capture", "deploy"},
    "metrics": {"host", "serving", "capture", "cloud", "deploy"},
    "client": {"package", "engine", "serving", "rpc", "capture", "cloud", "deploy", "fleet"},
}
BANNED_IN_RULES = {"socket", "grpc", "time", "os", "pathlib", "subprocess", "threading", "http", "ssl", "tempfile"}
MAX_LINES = 400
SOURCES = sorted(
    path
    for folder in ("edge", "tests", "bench", "demo", "proto", "packaging", "yocto")
    for path in (ROOT / folder).rglob("*.py")
    if "_generated" not in path.parts
)


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def modules() -> dict[str, set[str]]:
    """The modules of edge/ by name, each with those that it imports, anywhere in it and for types only included."""
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in EDGE.rglob("*.py")}
    paths = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    graph: dict[str, set[str]] = {}
    for name, path in paths.items():
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                graph[name] |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        graph[name] &= set(paths)
    return graph


def room_of(module: str) -> str:
    """The folder below edge/ that a module stands in; empty for those at the top."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or parts[-1] in MAY_IMPORT else ""


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_arrows_between_rooms_go_one_way(room: str) -> None:
    for module, imported in modules().items():
        if room_of(module) == room:
            others = {room_of(other) for other in imported} - {room, ""}
            assert others <= MAY_IMPORT[room], module


def test_the_decision_draws_the_same_arrows() -> None:
    table = (ROOT / "docs" / "adr" / "0025-rooms.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*)\|$", table, re.MULTILINE)
    assert {room: set(re.findall(r"`(\w+)`", arrows)) for room, arrows in rows} == MAY_IMPORT


def test_only_the_entries_look_into_rooms() -> None:
    for module, imported in modules().items():
        if not room_of(module) and module not in ("edge.app", "edge.cli"):
            assert not {other for other in imported if room_of(other)}, module


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = modules()
    for start in graph:
        reached, ahead = set[str](), list(graph[start])
        while ahead:
            module = ahead.pop()
            if module not in reached:
                reached.add(module)
                ahead += graph[module]
        assert start not in reached, start


@pytest.mark.parametrize("name", PURE)
def test_rules_are_pure(name: str) -> None:
    banned = {module for module in imports(EDGE / name) if module.split(".")[0] in BANNED_IN_RULES}
    assert not banned


def test_only_one_module_imports_an_interpreter() -> None:
    for path in EDGE.rglob("*.py"):
        text = path.read_text()
        if path != EDGE / "engine" / "tflite.py":
            assert "import tflite_runtime" not in text and "import ai_edge_litert" not in text, path


def test_only_app_wires_the_parts() -> None:
    for path in EDGE.rglob("*.py"):
        if path not in (EDGE / "app.py", EDGE / "cli.py"):
            assert "edge.app" not in imports(path), path


def test_wall_clock_and_sleep_stand_in_one_module() -> None:
    for path in EDGE.rglob("*.py"):
        if path == EDGE / "clock.py" or "client" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time":
                pytest.fail(f"{path}: time.{node.attr}")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_can_be_seen_whole(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_the_entry_is_small() -> None:
    assert len((ROOT / "agent.py").read_text().splitlines()) <= 40


def test_an_agent_without_models_loads_no_numpy() -> None:
    look = "import edge.app, sys; print('numpy' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said == "False\n"
