"""What the compiler is told and what it can take (packaging/nuitka/flags.txt)."""

import ast
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
OPTION = "--nofollow-import-to="


def left_out() -> set[str]:
    lines = (TOP / "packaging/nuitka/flags.txt").read_text().splitlines()
    return {line.removeprefix(OPTION) for line in lines if line.startswith(OPTION)}


def imported() -> dict[str, str]:
    """Every module that edge/ imports, with a file that does."""
    found: dict[str, str] = {}
    for path in (TOP / "edge").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found.update((alias.name, path.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found[node.module] = path.name
                found.update((f"{node.module}.{alias.name}", path.name) for alias in node.names)
    return found


def test_nothing_that_is_imported_is_left_out() -> None:
    names = left_out()
    wrong = {
        module: file
        for module, file in imported().items()
        if any(module == name or module.startswith(f"{name}.") for name in names)
    }
    assert not wrong


def test_no_memoryview_is_made_in_an_assignment_of_several_names() -> None:
    """Nuitka 4.3.3 fails on it ("Problem cloning node"), and no binary can be built."""
    wrong = [
        f"{path.relative_to(TOP)}:{node.lineno}"
        for path in (TOP / "edge").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
        for call in ast.walk(node.value)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "memoryview"
    ]
    assert not wrong
