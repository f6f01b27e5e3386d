"""`captures export`: captures as files that other programs take: .npz, .csv, .parquet, or a folder of pictures by class."""

import contextlib
import importlib
import os
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from edge.client import show as words
from edge.client.captures.bucket import source_of
from edge.client.captures.files import new_file
from edge.client.captures.pictures import picture_entry, picture_of, png
from edge.client.captures.reading import Refusal
from edge.client.captures.records import RecordError
from edge.client.captures.rows import HEAD, CsvWriter, file_word, row
from edge.client.captures.selection import Chosen, Refusals, selection_of
from edge.client.outcome import Exit, InputError
from edge.text import counted, printable, shown

INDEX = "index.csv"  # beside the pictures: a line each
FORMATS = ("npz", "csv", "parquet", "images")


class Writer(Protocol):
    """Takes captures one by one."""

    def add(self, chosen: Chosen) -> None:
        """Write one.

        Raises:
            RecordError: it does not go together with those before; nothing of it is written.
        """
        ...

    def finish(self) -> None:
        """Write what comes last."""
        ...


def export(options: Namespace) -> Exit:
    """Writes what passes the filters; a file is there once it is whole."""
    target = Path(options.out)
    wanted = options.format or _format_of(target)
    refusals = Refusals(quiet=bool(options.json))
    chosen = selection_of(options).of(source_of(options), refusals)
    if wanted == "images":
        count = _pictures(target, chosen, refusals)
    else:
        make = _WRITERS[wanted]()  # what it needs is looked for before anything is read
        with new_file(target, force=options.force) as file, contextlib.closing(make(file, target.parent)) as writer:
            count = _written(writer, _of_one_model(chosen), refusals)
            if not count:
                raise InputError("no capture passes the filters; nothing is written")
            writer.finish()
    if options.json:
        words.as_json({"file": str(target), "format": wanted, "captures": count} | refusals.as_json(), refusals.fault)
    else:
        print(f"{target}: {counted(count, 'capture')}")
    return refusals.end()


def _format_of(target: Path) -> str:
    suffix = target.suffix.lower().removeprefix(".")
    if suffix in FORMATS[:3]:
        return suffix
    if suffix:
        raise InputError(
            f"{target}: expected a name that ends in .npz, .csv or .parquet, a folder for pictures, or --format"
        )
    return "images"


def _of_one_model(found: Iterator[Chosen]) -> Iterator[Chosen]:
    """Raises:
    InputError: captures of several models have no columns in common.
    """
    model = None
    for chosen in found:
        name = chosen.capture.model_name
        if model not in (None, name):
            raise InputError(
                f"captures of several models, {shown(str(model))} and {shown(name)}; choose one by --model"
            )
        model = name
        yield chosen


def _written(writer: Writer, found: Iterable[Chosen], refusals: Refusals) -> int:
    count = 0
    for chosen in found:
        try:
            writer.add(chosen)
        except RecordError as error:
            refusals.add(Refusal(chosen.capture.origin, 0, f"capture {chosen.capture.capture_id}: {error}"))
        else:
            count += 1
    return count


class PictureFolder:
    """`CLASS/TIME-ID.png` for each capture, and `index.csv`."""

    def __init__(self, folder: Path, index: BinaryIO) -> None:
        self._folder = folder
        self._index = CsvWriter(index, ["file", *HEAD])
        self._count = 0

    def add(self, chosen: Chosen) -> None:
        """As `Writer`."""
        entry = picture_entry(chosen.capture)
        if entry is None:
            raise RecordError("it has no input that is a picture")
        data = png(picture_of(entry.array()))
        self._count += 1
        time = chosen.capture.time.strftime("%Y%m%dT%H%M%SZ")
        folder = self._folder / file_word(chosen.label or "none")
        folder.mkdir(exist_ok=True)
        path = folder / f"{time}-{file_word(chosen.capture.capture_id)}.png"
        if path.exists():
            path = path.with_name(f"{path.stem[:100]}-{self._count}.png")
        path.write_bytes(data)
        self._index.write([str(path.relative_to(self._folder)), *row(chosen)])

    def finish(self) -> None:
        """As `Writer`."""


def _pictures(target: Path, found: Iterator[Chosen], refusals: Refusals) -> int:
    """A folder that appears once it is whole; one that has something in it is never touched."""
    try:
        if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
            raise InputError(f"{target} exists and is no empty folder; name another")
        made = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:100]}."))
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror}") from None
    try:
        with (made / INDEX).open("xb") as index:
            count = _written(PictureFolder(made, index), found, refusals)
        if not count:
            raise InputError("no capture with a picture passes the filters; nothing is written")
        made.chmod(0o777 & ~_umask())
        made.rename(target)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return count


def _umask() -> int:
    """The process's own, which can only be read by setting it; a command has one thread here."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _csv() -> Callable[[BinaryIO, Path], Any]:
    from edge.client.captures.rows import TableWriter

    return lambda file, _: TableWriter(file)


def _npz() -> Callable[[BinaryIO, Path], Any]:
    from edge.client.captures.npz import NpzWriter

    return NpzWriter


def _parquet() -> Callable[[BinaryIO, Path], Any]:
    try:
        # By map: Nuitka looks up a call that it sees, and stops over a module that is nowhere.
        arrow, parquet = map(importlib.import_module, ("pyarrow", "pyarrow.parquet"))
    except ImportError as error:
        raise InputError(
            "Parquet needs Python's pyarrow, which is not part of this program: run it from source in an environment with "
            f"pyarrow (pip install pyarrow), or write .npz or .csv ({printable(str(error))})"
        ) from None
    from edge.client.captures.parquet import ParquetWriter

    return lambda file, _: ParquetWriter(file, arrow, parquet)


_WRITERS = {"csv": _csv, "npz": _npz, "parquet": _parquet}
