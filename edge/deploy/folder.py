"""models.d, the folder of declarations: read as a whole by the agent, written to by the command line."""

import os
from pathlib import Path

from edge import durable
from edge.deploy import declaration
from edge.deploy.declaration import ALIAS, MAX_DECLARATION_BYTES, MAX_DECLARATIONS, SUFFIX, Declaration
from edge.errors import DeclarationError
from edge.text import printable

Declarations = dict[str, Declaration | DeclarationError]


def read(folder: Path) -> Declarations | None:
    """Each alias with its declaration, or with what is wrong with it; None where there is no such folder.

    A file whose name makes no alias is named in a way that prints, and that no model can have.

    Raises:
        DeclarationError: the folder cannot be read.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(SUFFIX))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DeclarationError(f"the folder of declarations {folder} cannot be read: {durable.why(error)}") from error
    names = [name for name in names if not name.startswith(".")]
    if len(names) > MAX_DECLARATIONS:
        raise DeclarationError(f"{folder} has {len(names)} declarations; at most {MAX_DECLARATIONS} are read")
    return dict(_named(folder, name) for name in names)


def _named(folder: Path, name: str) -> tuple[str, Declaration | DeclarationError]:
    alias = name.removesuffix(SUFFIX)
    if ALIAS.fullmatch(alias):
        return alias, _read(folder / name)
    words = "has a name that is not allowed; expected letters, digits and '-' before .json, first and last no '-'"
    return printable(alias), DeclarationError(f"the declaration {printable(name)} in {folder} {words}")


def _read(path: Path) -> Declaration | DeclarationError:
    try:
        with durable.reader(path) as file:
            return declaration.parse(file.read(MAX_DECLARATION_BYTES + 1))
    except OSError as error:
        return DeclarationError(f"the declaration {path} cannot be read: {durable.why(error)}")
    except DeclarationError as error:
        return DeclarationError(f"the declaration {path} {error}")


def path_of(folder: Path, name: str) -> Path:
    """The file that declares a name."""
    return folder / (name + SUFFIX)


def write(path: Path, data: bytes | None) -> None:
    """Replace a declaration as a whole, or remove it where `data` is None; it outlives a power cut.

    Raises:
        OSError: it is as it was.
    """
    if data is not None:
        durable.write_file(path, data)
    else:
        path.unlink(missing_ok=True)
        durable.fsync_folder(path.parent)
