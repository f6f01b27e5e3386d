"""A library whose glibc floor the build lowers: it asks for less, and still loads (docs/adr/0041-litert-in-the-binaries.md)."""

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from edge.engine import litert
from tests.fakes.engines import litert_is_there

sys.path.insert(0, str(Path(__file__).parents[2] / "packaging" / "nuitka"))

from lower_floor import Library

pytestmark = pytest.mark.skipif(not litert_is_there(), reason="no LiteRT library is installed for this platform")
LOAD = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).LiteRtCreateEnvironment; print('loaded')"


def test_versions_above_the_floor_are_asked_for_no_more(tmp_path: Path) -> None:
    library = Library(Path(litert.library()[0]).read_bytes())
    floors = {"GLIBC": (2, 17), "GLIBCXX": (3, 4, 20)}
    freed = library.drop_versions(floors)
    assert freed and all("@GLIBC" in name for name in freed)
    versions = [tuple(map(int, name.split("_")[-1].split("."))) for name in freed]
    assert all(version > (floors["GLIBCXX"] if version[0] == 3 else floors["GLIBC"]) for version in versions)
    lowered = tmp_path / "lowered.so"
    lowered.write_bytes(library.data)
    assert Library(lowered.read_bytes()).drop_versions(floors) == []
    done = subprocess.run([sys.executable, "-c", LOAD, lowered], capture_output=True, text=True, check=False)
    assert done.stdout == "loaded\n", done.stderr


def test_nothing_above_the_floor_nothing_changed() -> None:
    data = Path(litert.library()[0]).read_bytes()
    library = Library(data)
    assert library.drop_versions({"GLIBC": (99,), "GLIBCXX": (99,)}) == []
    assert library.data == data


def test_another_kind_of_file_is_refused() -> None:
    with pytest.raises(SystemExit, match="ELF"):
        Library(b"\x7fELF\x01\x01" + struct.pack("<Q", 0))
