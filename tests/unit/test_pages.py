"""Code that only a start needed leaves the process's memory, and nothing else does."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge.host import pages
from edge.host.kernel_files import lines_of
from edge.host.pages import Mapping

TOP = Path(__file__).resolve().parents[2]
SMAPS = """\
55d0e0a00000-55d0e0a28000 r--p 00000000 fe:00 1 /usr/lib/program (deleted)
Size:                160 kB
Rss:                 120 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
55d0e0a28000-55d0e0a30000 rw-p 00000000 00:00 0
Rss:                  32 kB
Anonymous:            32 kB
"""


def test_reads_what_smaps_says() -> None:
    assert list(pages.mappings(SMAPS.splitlines())) == [
        Mapping(0x55D0E0A00000, 0x55D0E0A28000, "r--p", "/usr/lib/program (deleted)", 120 << 10, 0),
        Mapping(0x55D0E0A28000, 0x55D0E0A30000, "rw-p", "", 32 << 10, 32 << 10),
    ]


def test_names_are_anybodys(tmp_path: Path) -> None:
    """A client may lend a file whose name looks like lines of smaps; only a newline is escaped there."""
    smaps = tmp_path / "smaps"
    for name in (b"\xff", b"a\x0cb kB", b"a\r7f0000001000-7f0000002000 r-xp 0 0 0 /lib", "a\x85Rss: 1 kB".encode()):
        smaps.write_bytes(
            b"1000-2000 rw-s 00000000 00:01 5 /dev/shm/" + name + b"\nRss:     4 kB\nAnonymous:     0 kB\n"
        )
        (mapping,) = pages.mappings(lines_of(smaps))
        assert mapping[:3] == (0x1000, 0x2000, "rw-s") and mapping[4:] == (4096, 0)
        assert mapping.file.encode(errors="surrogateescape") == b"/dev/shm/" + name
        assert pages.release(smaps) == 0


def test_pages_that_are_swapped_out_are_changed_as_well() -> None:
    swapped = ["1000-9000 r--p 00000000 fe:00 1 /lib/a.so", "Rss:   4 kB", "Anonymous:   0 kB", "Swap:   8 kB"]
    assert next(pages.mappings(swapped)).changed == 8192


CODE = Mapping(0, 1, "r-xp", "/lib/a.so", 4096, 0)


@pytest.mark.parametrize(
    "other",
    [
        CODE._replace(mode="rw-p"),
        CODE._replace(mode="r--s"),
        CODE._replace(mode="---p"),
        CODE._replace(mode="r--p", changed=4096),  # relocated
        CODE._replace(mode="r--p", resident=0),  # so that nobody knows whether a page is changed
        CODE._replace(mode="r--p", file="/a/model.tflite"),
        CODE._replace(file="[vdso]"),
        CODE._replace(file=""),
    ],
    ids=str,
)
def test_is_code_alone(other: Mapping) -> None:
    constants = CODE._replace(mode="r--p")
    assert pages.code([CODE, other, constants]) == [CODE, constants]


def test_a_process_goes_on_without_what_it_was_released_from() -> None:
    script = """
import ssl
from edge.host import pages
def resident():
    return sum(one.resident for one in pages.code(list(pages.mappings(open("/proc/self/smaps").read().splitlines()))))
before = resident()
released = pages.release()
assert 0 < resident() < before, (before, released)

ssl.create_default_context()
print("as before")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=TOP, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("as before\n", "")


def test_where_nothing_can_be_read_nothing_is_released(tmp_path: Path) -> None:
    assert pages.release(tmp_path / "none") == 0
