"""Packages in archives: whoever wrote them, and however hostile."""

import gzip
import os
import subprocess
import tarfile
import zlib
from pathlib import Path

import pytest

from edge.errors import ManifestError, PackageError, SignatureError
from edge.package import tar
from edge.package.limits import PackageLimits
from edge.package.manifest import MANIFEST_FILE, SIGNATURE_FILE
from tests.fakes.packages import (
    MODEL,
    Entry,
    entries_of,
    entry,
    files_of,
    load,
    open_files,
    tar_of,
    trust,
    write_archive,
    write_folder,
)

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
FILES = files_of({"digits.tflite": MODEL, "sub/labels.txt": b"zero\none\n"})


def check(path: Path, trusted: Path) -> None:
    with load(path, trusted) as package:
        assert Path(f"/proc/self/fd/{package.model_fd}").read_bytes() == MODEL


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("top", ["", "./", "digits-1.0/", "./digits-1.0/"])
def test_archives_of_any_writer(tmp_path: Path, form: int, top: str) -> None:
    entries = [entry(top.rstrip("/"), kind=tarfile.DIRTYPE)] if top else []
    entries += [entry(top + "sub", kind=tarfile.DIRTYPE), *entries_of(FILES, top)]
    check(write_archive(tmp_path / "p.tar.gz", entries, form), trust(tmp_path))


@pytest.mark.parametrize("arguments", [["-C", "p", "."], ["p"], ["--format=gnu", "p"], ["--format=pax", "p"]])
def test_archives_of_the_tar_program(tmp_path: Path, arguments: list[str]) -> None:
    write_folder(tmp_path / "p", FILES)
    subprocess.run(["tar", "-czf", "p.tar.gz", *arguments], cwd=tmp_path, check=True)
    check(tmp_path / "p.tar.gz", trust(tmp_path))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names(tmp_path: Path, form: int) -> None:
    files = files_of({"digits.tflite": MODEL, "/".join(["folder" * 5] * 6) + "/x": b"1", "größe": b"2"})
    check(write_archive(tmp_path / "p.tar.gz", entries_of(files), form), trust(tmp_path))


def test_head_at_the_end(tmp_path: Path) -> None:
    check(write_archive(tmp_path / "p.tar.gz", reversed(entries_of(FILES, "p/"))), trust(tmp_path))


def _replace(name: str, member: Entry) -> list[Entry]:
    return [member if one[0].name == name else one for one in entries_of(FILES)]


BAD: dict[str, tuple[list[Entry], str]] = {
    "symbolic link": (_replace("digits.tflite", entry("digits.tflite", kind=tarfile.SYMTYPE, link="/x")), "symbolic"),
    "hard link": ([*entries_of(FILES), entry("more", kind=tarfile.LNKTYPE, link="digits.tflite")], "a hard link"),
    "character device": ([*entries_of(FILES), entry("null", kind=tarfile.CHRTYPE)], "a character device"),
    "block device": ([*entries_of(FILES), entry("disk", kind=tarfile.BLKTYPE)], "a block device"),
    "pipe": ([*entries_of(FILES), entry("pipe", kind=tarfile.FIFOTYPE)], "a pipe"),
    "sparse": ([*entries_of(FILES), entry("hole", kind=tarfile.GNUTYPE_SPARSE)], "a sparse file"),
    "unknown type": ([*entries_of(FILES), entry("odd", kind=b"Z")], "unknown type"),
    "way out": ([*entries_of(FILES), entry("../out", b"x")], "leaves the package"),
    "way out and back": ([*entries_of(FILES), entry("sub/../../out", b"x")], "leaves the package"),
    "absolute": ([*entries_of(FILES), entry("/etc/passwd", b"x")], "is absolute"),
    "beside the folder": ([*entries_of(FILES, "p/"), entry("q/more", b"x")], "outside the package's folder"),
    "twice": ([*entries_of(FILES), entry("digits.tflite", b"x")], "holds 'digits.tflite' twice"),
    "signature twice": ([*entries_of(FILES), entry(SIGNATURE_FILE, b"x")], "twice"),
    "manifest twice": ([*entries_of(FILES), entry(MANIFEST_FILE, b"x")], "twice"),
    "many": ([*entries_of(FILES), *(entry(f"d{i}", kind=tarfile.DIRTYPE) for i in range(60))], "more than 50"),
    "large": ([*entries_of(FILES), entry("large", bytes((1 << 20) + 1))], "unpacks to more|larger than"),
}


@pytest.mark.parametrize("why", BAD)
def test_members_that_are_refused(tmp_path: Path, why: str) -> None:  # [L-4] [L-9] [L-11]
    entries, word = BAD[why]
    path, trusted = write_archive(tmp_path / "p.tar.gz", entries), trust(tmp_path)
    before = open_files()
    with pytest.raises(PackageError, match=word):
        load(path, trusted)
    assert open_files() == before


@pytest.mark.parametrize("name", ["digits.tflite", "sub/labels.txt", MANIFEST_FILE])
def test_altered_members(tmp_path: Path, name: str) -> None:  # [S-5]
    path = write_archive(tmp_path / "p.tar.gz", entries_of(FILES | {name: FILES[name] + b" "}))
    with pytest.raises(SignatureError, match=f"{Path(name).name}' was altered"):
        load(path, trust(tmp_path))


def test_missing_and_added_members(tmp_path: Path) -> None:  # [S-5]
    for name, word in (
        ("sub/labels.txt", "is missing"),
        (MANIFEST_FILE, "no manifest"),
        (SIGNATURE_FILE, "not signed"),
    ):
        files = {key: data for key, data in FILES.items() if key != name}
        with pytest.raises(PackageError, match=word):
            load(write_archive(tmp_path / "p.tar.gz", entries_of(files)), trust(tmp_path))
    with pytest.raises(SignatureError, match="'more' is not signed"):
        load(write_archive(tmp_path / "p.tar.gz", entries_of(FILES | {"more": b""})), trust(tmp_path))


def test_a_manifest_too_deep_is_none(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no manifest"):
        load(write_archive(tmp_path / "p.tar.gz", entries_of(FILES, "a/b/")), trust(tmp_path))


@pytest.mark.parametrize("part", [2, 10, 100, 1000, -1, -5, -9])
def test_cut_short(tmp_path: Path, part: int) -> None:
    path = write_archive(tmp_path / "p.tar.gz", entries_of(FILES))
    path.write_bytes(path.read_bytes()[:part])
    with pytest.raises(PackageError):
        load(path, trust(tmp_path))


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # a certificate's, where that byte was flipped
def test_every_flipped_byte_of_the_compressed_data(tmp_path: Path) -> None:  # [S-5]
    files = files_of({"digits.tflite": os.urandom(64)})
    path, trusted = write_archive(tmp_path / "p.tar.gz", entries_of(files)), trust(tmp_path)
    load(path, trusted).close()
    good = path.read_bytes()
    for position in range(10, len(good), 11):  # gzip's own header holds a time and a system, which mean nothing
        bad = bytearray(good)
        bad[position] ^= 1 << position % 8
        if unpacks_to(bad, gzip.decompress(good)):
            continue  # one of the bits that fill up the last byte before the checksum
        path.write_bytes(bad)
        with pytest.raises(PackageError):
            load(path, trusted)


def unpacks_to(packed: bytes, content: bytes) -> bool:
    """Whether a gzip file is sound and holds just that."""
    try:
        return gzip.decompress(packed) == content
    except (OSError, EOFError, zlib.error):
        return False


@pytest.mark.parametrize(
    "after", [b"more", bytes(600) + b"x", gzip.compress(b"x" * 600)], ids=["text", "zeros", "gzip"]
)
def test_data_after_the_end(tmp_path: Path, after: bytes) -> None:
    path = write_archive(tmp_path / "p.tar.gz", entries_of(FILES))
    packed = path.read_bytes()
    path.write_bytes(packed + after if not after.startswith(b"\0") else gzip.compress(gzip.decompress(packed) + after))
    with pytest.raises(PackageError):
        load(path, trust(tmp_path))


def test_a_bomb_is_stopped_by_its_ratio(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "p.tar.gz", [entry("zeros", bytes(3 << 20)), *entries_of(FILES)])
    limits = PackageLimits(max_unpack_ratio=10, free_unpacked_bytes=1 << 20)
    with pytest.raises(PackageError, match="unpacks to more than 1048576 bytes"):
        load(path, trust(tmp_path), limits=limits)


def test_a_bomb_of_headers(tmp_path: Path) -> None:
    """A header of any size would be held in memory as a whole."""
    for kind in (b"x", b"L", b"g"):
        block = tar._block(b"h", 100 << 20, kind)
        path = tmp_path / "p.tar.gz"
        path.write_bytes(gzip.compress(block + bytes(1 << 20)))
        with pytest.raises(PackageError, match="header of 104857600 bytes"):
            load(path, trust(tmp_path))


@pytest.mark.parametrize(
    ("records", "word"),
    [
        (b"9 path=x", "cannot be read"),
        (b"99 path=x\n", "cannot be read"),
        (b"0 path=x\n", "cannot be read"),
        (b"x path=x\n", "cannot be read"),
        (b"7 path\n", "cannot be read"),
        (b"9 size=-\n", "not a number"),
        (b"9 size=9\n", "cut short|not a tar"),
        (b"11 path=\xff\xfe\n", "not UTF-8"),
        (b"22 GNU.sparse.major=1\n", "sparse"),
    ],
)
def test_pax_headers_that_are_refused(tmp_path: Path, records: bytes, word: str) -> None:
    header = tar._block(b"h", len(records), b"x") + records + tar.padding(len(records))
    path = tmp_path / "p.tar.gz"
    path.write_bytes(gzip.compress(header + tar.file_header("a", 0) + b"\1" * 600))
    with pytest.raises(PackageError, match=word):
        load(path, trust(tmp_path))


def test_one_path_for_all_members(tmp_path: Path) -> None:
    record = tar._pax_record("path", "p")
    header = tar._block(b"h", len(record), b"g") + record + tar.padding(len(record))
    path = tmp_path / "p.tar.gz"
    path.write_bytes(gzip.compress(header + tar_of(entries_of(FILES))))
    with pytest.raises(PackageError, match="all members one path"):
        load(path, trust(tmp_path))


def test_a_comment_for_all_members_is_harmless(tmp_path: Path) -> None:
    record = tar._pax_record("comment", "by git archive")
    header = tar._block(b"h", len(record), b"g") + record + tar.padding(len(record))
    path = tmp_path / "p.tar.gz"
    path.write_bytes(gzip.compress(header + tar_of(entries_of(FILES))))
    check(path, trust(tmp_path))


@pytest.mark.parametrize("path", ["a", "sub/a", "a" * 100, "a" * 101, "/".join(["long" * 20] * 4), "größe" * 30])
def test_what_we_write_the_standard_library_reads(tmp_path: Path, path: str) -> None:
    file = tmp_path / "a.tar"
    file.write_bytes(tar.file_header(path, 5) + b"12345" + tar.padding(5) + tar.END)
    with tarfile.open(file) as archive:
        (member,) = archive.getmembers()
        assert (member.name, member.size, member.mtime, member.mode) == (path, 5, 0, 0o644)
        data = archive.extractfile(member)
        assert data is not None
        assert data.read() == b"12345"
