"""`models`: which model serves under a name from every start on. A declaration is a file; the agent is asked to bring it about."""

import fcntl
import os
import shutil
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge import durable
from edge.client import show
from edge.client.commands import agent_of
from edge.client.connection import OPERATIONS, Agent
from edge.client.outcome import CommandError, Exit, InputError, RefusedError, UnreachableError
from edge.client.status import as_json
from edge.deploy import declaration, folder
from edge.deploy.declaration import ALIAS, Declaration
from edge.rpc._generated import operations_pb2 as ops
from edge.text import printable, shown

POLL_SECONDS = 0.2
LOCK_SECONDS = 60.0  # without --wait, for other commands on the same folder
MAX_ALIAS_CHARACTERS = 255 - len(declaration.SUFFIX + durable.TEMPORARY)  # as long as a file's name can be
_COPIES = (".package", ".tar.gz")  # of a package beside its declaration, by what it is


def list_models(options: Namespace) -> Exit:
    """Every alias."""
    with agent_of(options) as agent:
        managed = list(_status(agent).managed)
    if options.json:
        show.as_json({"models": [as_json(one) for one in managed]})
    else:
        print(show.managed(managed, time.time()) if managed else "no models are loaded or declared")
    return Exit.OK


def set_model(options: Namespace) -> Exit:
    """Declares a package and has it serve; where that fails, the declaration is what it was before."""
    alias = _checked(options.alias)
    end = time.monotonic() + options.wait if options.wait is not None else None
    with agent_of(options) as agent, _changing(agent, end) as models:
        place = folder.path_of(models, alias)
        package = options.package if options.package.startswith("file:") else str(Path(options.package).absolute())
        before = _read(place)
        copies: list[Path] = []
        try:
            if options.copy:
                copies = [_copy(Path(package), place)]
                package = str(copies[0])
            wanted = Declaration(package, options.allow_changed_tensors, options.allow_gap)
            _write(place, declaration.to_bytes(wanted))
            one = _apply(agent, alias, end, retry=True)
            if one.refused:
                raise RefusedError("REFUSED", one.refused)
        except CommandError as error:
            _restore(agent, alias, place, before)
            raise type(error)(*_explained(error, alias, before)) from None
        finally:
            for path in copies:
                _remove(path)
    _say(options, one, f"{alias}: {one.version} serves, and will after every start")
    return Exit.OK


def _explained(error: CommandError, alias: str, before: bytes | None) -> tuple[str, ...]:
    """The words of an error of the same class, with what became of the declaration."""
    stays = f"{alias} is declared as before" if before is not None else f"{alias} is not declared"
    if isinstance(error, RefusedError):
        return error.code, f"{str(error).removeprefix(error.code + ': ')}; {stays}"
    return (f"{error}; {stays}",)


def apply_models(options: Namespace) -> Exit:
    """Has the agent read the declarations again."""
    with agent_of(options) as agent:
        request = ops.ApplyModelsRequest(names=options.alias)
        done = list(agent.call(OPERATIONS + "ApplyModels", request, ops.ApplyModelsResponse).models)
    refused = [one for one in done if one.refused]
    if options.json:
        show.as_json({"models": [as_json(one) for one in done]}, "; ".join(map(show.refusal, refused)))
    else:
        print(show.managed(done, time.time()) if done else "nothing is declared")
    return Exit.REFUSED if refused else Exit.OK


def rollback_model(options: Namespace) -> Exit:
    """Has the version before serve again."""
    with agent_of(options) as agent:
        request = ops.RollbackModelRequest(name=options.alias)
        one = agent.call(OPERATIONS + "RollbackModel", request, ops.ManagedModel)
    _say(options, one, f"{one.name}: {one.version} serves again; {one.refused}")
    return Exit.OK


def forget_model(options: Namespace) -> Exit:
    """Removes a declaration."""
    alias = _checked(options.alias)
    with agent_of(options) as agent, _changing(agent, None) as models:
        place = folder.path_of(models, alias)
        is_there = place.is_symlink() or _read(place) is not None
        if not is_there and all(one.name != alias or one.why != "declared" for one in _status(agent).managed):
            raise RefusedError("NOT_FOUND", f"{alias} is not declared: there is no {place}")
        _write(place, None)
        one = _apply(agent, alias, None, retry=False)
        if one.refused:
            raise RefusedError("REFUSED", f"{one.refused}; the declaration of {alias} is removed")
    _say(options, one, f"{alias} is no longer declared, and is unloaded")
    return Exit.OK


# --- the agent ---------------------------------------------------------------------


def _status(agent: Agent) -> ops.GetStatusResponse:
    return agent.call(OPERATIONS + "GetStatus", ops.GetStatusRequest(), ops.GetStatusResponse)


def _folder(agent: Agent, end: float | None) -> Path:
    """The agent's folder of declarations; until `end`, an agent that is still starting is waited for."""
    while True:
        try:
            found = _status(agent).models_path
            break
        except UnreachableError:
            if end is None or time.monotonic() >= end:
                raise
            time.sleep(POLL_SECONDS)
    if not found:
        raise RefusedError("UNIMPLEMENTED", "this agent is older than declared models")
    return Path(found)


@contextmanager
def _changing(agent: Agent, end: float | None) -> Iterator[Path]:
    """The folder of declarations, for one command at a time; what is written there the agent can read, whatever the umask."""
    models = _folder(agent, end)
    before = os.umask(0o777 & ~durable.FOLDER_MODE)
    try:
        try:
            models.mkdir(durable.FOLDER_MODE, exist_ok=True)
            fd = os.open(models, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _not_written(models, error) from None
        try:
            _lock(fd, models, end or time.monotonic() + LOCK_SECONDS)
            yield models
        finally:
            os.close(fd)
    finally:
        os.umask(before)


def _lock(fd: int, models: Path, end: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise RefusedError("ABORTED", f"another command still changes {models}; nothing is changed") from None
            time.sleep(POLL_SECONDS)


def _apply(agent: Agent, alias: str, end: float | None, *, retry: bool) -> ops.ManagedModel:
    if end is not None:
        agent.timeout = max(1.0, end - time.monotonic())
    request = ops.ApplyModelsRequest(names=[alias], retry=retry)
    (one,) = agent.call(OPERATIONS + "ApplyModels", request, ops.ApplyModelsResponse).models
    return one


def _restore(agent: Agent, alias: str, place: Path, before: bytes | None) -> None:
    """Put a declaration back as it was, and have the agent take note."""
    if _read(place) == before:
        return
    _write(place, before)
    try:
        _apply(agent, alias, None, retry=False)
    except CommandError:
        return  # the failure before is the one to tell of; at its next start the agent reads what is there


def _say(options: Namespace, one: ops.ManagedModel, text: str) -> None:
    if options.json:
        show.as_json(as_json(one))
    else:
        print(printable(text, show.PATH_CHARACTERS))


# --- files ---------------------------------------------------------------------------


def _checked(alias: str) -> str:
    if len(alias) > MAX_ALIAS_CHARACTERS or not ALIAS.fullmatch(alias):
        raise InputError(
            f"{shown(alias)} is no alias; expected at most {MAX_ALIAS_CHARACTERS} letters, digits and '-', beginning and ending with a letter or digit"
        )
    return alias


def _read(place: Path) -> bytes | None:
    try:
        return place.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{place}: {error.strerror}") from None


def _write(place: Path, data: bytes | None) -> None:
    try:
        folder.write(place, data)
    except OSError as error:
        raise _not_written(place, error) from None


def _not_written(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be written: {durable.why(error)}; ask as root, or as its owner")


def _copy(source: Path, place: Path) -> Path:
    """A copy of a package beside its declaration, where the agent can read it."""
    is_folder = source.is_dir()
    target = place.with_name(place.name.removesuffix(declaration.SUFFIX) + _COPIES[not is_folder])
    if source.resolve().is_relative_to(target.resolve()):
        raise InputError(f"{source} is where its copy would be; leave out --copy, or move it elsewhere")
    try:
        _remove(target)
        if is_folder:
            shutil.copytree(source, target, symlinks=True, copy_function=shutil.copyfile)
            for path in (target, *(path for path in target.rglob("*") if path.is_dir())):
                path.chmod(durable.FOLDER_MODE)
        else:
            shutil.copyfile(source, target)
    except (OSError, shutil.Error) as error:
        _remove(target)
        raise InputError(f"{source} cannot be copied to {target}: {error}") from None
    for path in (target, *target.rglob("*")):
        if path.is_file() and not path.is_symlink():
            path.chmod(durable.FILE_MODE)
    return target


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
