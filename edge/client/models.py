"""`models`: which model serves under a name from every start on. A declaration is a file; the agent is asked to bring it about."""

import secrets
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from edge.client import model_files, show
from edge.client.commands import agent_of
from edge.client.connection import OPERATIONS, Agent
from edge.client.outcome import CommandError, Exit, RefusedError, UnreachableError
from edge.client.status import as_json
from edge.deploy import declaration, folder
from edge.deploy.declaration import Declaration, Together
from edge.rpc._generated import operations_pb2 as ops
from edge.text import printable

LOCK_SECONDS = 60.0  # without --wait, for other commands on the same folder


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
    """Declares packages and has them serve, several all or none; where that fails, the declarations are what they were before."""
    packages = model_files.pairs(options.pairs)
    if options.root is not None:
        from edge.client.image import set_in_image

        return set_in_image(options, packages, together_of(packages))
    end = time.monotonic() + options.wait if options.wait is not None else None
    with agent_of(options) as agent, _changing(agent, end) as models:
        places = {alias: folder.path_of(models, alias) for alias in packages}
        before = {alias: model_files.read(place) for alias, place in places.items()}
        copies: list[Path] = []
        try:
            for alias, declared in _wanted(options, packages, places, copies).items():
                model_files.write(places[alias], declaration.to_bytes(declared))
            done = _apply(agent, packages, end, retry=True)
            if refused := _reasons(done):
                raise RefusedError("REFUSED", refused)
        except CommandError as error:
            _restore(agent, places, before)
            raise type(error)(*_explained(error, before)) from None
        finally:
            for path in copies:
                model_files.remove(path)
    _say(options, done, [f"{one.name}: {one.version} serves, and will after every start" for one in done])
    return Exit.OK


def together_of(packages: Mapping[str, str]) -> Together | None:
    """The deployment of several models that one command sets (W-9): its name is unlike any before."""
    if len(packages) == 1:
        return None
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return Together(f"set-{now}-{secrets.token_hex(3)}", tuple(sorted(packages)))


def _wanted(
    options: Namespace, packages: Mapping[str, str], places: Mapping[str, Path], copies: list[Path]
) -> dict[str, Declaration]:
    """The declarations to be written; copies are made where that was asked for."""
    together = together_of(packages)
    found = {}
    for alias, given in packages.items():
        package = given if given.startswith("file:") else str(Path(given).absolute())
        if options.copy:
            copies.append(model_files.copy(Path(given), places[alias]))
            package = str(copies[-1])
        capture = model_files.policy(places[alias])
        found[alias] = Declaration(package, options.allow_changed_tensors, options.allow_gap, together, capture=capture)
    return found


def _reasons(done: Sequence[ops.ManagedModel]) -> str:
    """Why what is declared does not serve; of several models that of the first that failed itself."""
    refused = [one for one in done if one.refused]
    if len(done) == 1 or not refused:
        return "".join(one.refused for one in refused)
    first = min(refused, key=lambda one: one.refused.startswith("it switches together with "))
    return f"none is switched; {first.name}: {first.refused}"


def _explained(error: CommandError, before: Mapping[str, bytes | None]) -> tuple[str, ...]:
    """The words of an error of the same class, with what became of the declarations."""
    stays = "; ".join(
        f"{alias} is declared as before" if data is not None else f"{alias} is not declared"
        for alias, data in before.items()
    )
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
    _say(options, [one], [f"{one.name}: {one.version} serves again; {one.refused}"])
    return Exit.OK


def forget_model(options: Namespace) -> Exit:
    """Removes a declaration."""
    alias = model_files.checked(options.alias)
    with agent_of(options) as agent, _changing(agent, None) as models:
        place = folder.path_of(models, alias)
        is_there = place.is_symlink() or model_files.read(place) is not None
        if not is_there and all(one.name != alias or one.why != "declared" for one in _status(agent).managed):
            raise RefusedError("NOT_FOUND", f"{alias} is not declared: there is no {place}")
        model_files.write(place, None)
        (one,) = _apply(agent, [alias], None, retry=False)
        if one.refused:
            raise RefusedError("REFUSED", f"{one.refused}; the declaration of {alias} is removed")
    _say(options, [one], [f"{alias} is no longer declared, and is unloaded"])
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
            time.sleep(model_files.POLL_SECONDS)
    if not found:
        raise RefusedError("UNIMPLEMENTED", "this agent is older than declared models")
    return Path(found)


@contextmanager
def _changing(agent: Agent, end: float | None) -> Iterator[Path]:
    """The agent's folder of declarations, for one command at a time."""
    models = _folder(agent, end)
    with model_files.changing(models, end or time.monotonic() + LOCK_SECONDS):
        yield models


def _apply(
    agent: Agent, aliases: Sequence[str] | Mapping[str, str], end: float | None, *, retry: bool
) -> list[ops.ManagedModel]:
    if end is not None:
        agent.timeout = max(1.0, end - time.monotonic())
    request = ops.ApplyModelsRequest(names=list(aliases), retry=retry)
    done = agent.call(OPERATIONS + "ApplyModels", request, ops.ApplyModelsResponse).models
    return [one for one in done if one.name in aliases]


def _restore(agent: Agent, places: Mapping[str, Path], before: Mapping[str, bytes | None]) -> None:
    """Put declarations back as they were, and have the agent take note."""
    changed = [alias for alias, place in places.items() if model_files.read(place) != before[alias]]
    for alias in changed:
        model_files.write(places[alias], before[alias])
    if changed:
        try:
            _apply(agent, changed, None, retry=False)
        except CommandError:
            return  # the failure before is the one to tell of; at its next start the agent reads what is there


def _say(options: Namespace, done: Sequence[ops.ManagedModel], lines: Sequence[str]) -> None:
    if options.json:
        show.as_json(as_json(done[0]) if len(done) == 1 else {"models": [as_json(one) for one in done]})
    else:
        for line in lines:
            print(printable(line, show.PATH_CHARACTERS))
