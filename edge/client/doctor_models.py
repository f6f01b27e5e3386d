"""`doctor` on models that stay: the declarations, and the packages in the store that serve them (M-1, M-6)."""

import stat
from collections.abc import Iterator
from pathlib import Path

from edge import durable
from edge.client import show
from edge.client.findings import Finding, fail, ok, warn
from edge.clock import Clock, SystemClock
from edge.config import Config
from edge.deploy import folder, state
from edge.deploy.declaration import Declaration, deployment_of, not_with
from edge.deploy.state import State, StateFault, Version
from edge.deploy.store import MIB, SET_ASIDE, STATE_FILE
from edge.errors import DeclarationError, EdgeError, MemoryLimitError
from edge.version import version

DECLARED, STORE = "declared models", "package store"
NEARLY_FULL = 0.9
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_models(config: Config, agent: int) -> Iterator[Finding]:
    """Declarations are whole and locked, and every package that one needs is in the store of the user `agent`, unaltered."""
    models, store = Path(config.edge_models_path), Path(config.edge_package_store_path or "/nowhere")
    try:
        found = folder.read(models)
    except DeclarationError as error:
        yield fail(DECLARED, str(error), f"make {models} a folder that the agent's user can read")
        return
    try:
        kept = _state(store)
    except StateFault as fault:
        yield fail(STORE, f"{store / STATE_FILE} {fault}", f"restart the agent: it sets the file aside as *{SET_ASIDE}")
        return
    except OSError as error:
        yield warn(STORE, f"{store} cannot be examined: {durable.why(error)}", "run doctor as root")
        kept = None
    if not found and (kept is None or not kept.models):
        return
    yield from _declarations(models, found or {}, kept)
    if kept is not None:
        yield from _store(store, agent, config.edge_package_store_max_mib * MIB)
        yield from _packages(store, kept, Path(config.core_root_certs_path), SystemClock())


def _state(store: Path) -> State:
    try:
        with durable.reader(store / STATE_FILE) as file:
            return state.parse(file.read(state.MAX_STATE_BYTES + 1))
    except FileNotFoundError:
        return State()


def _declarations(models: Path, found: folder.Declarations, kept: State | None) -> Iterator[Finding]:
    for place in (models, *(folder.path_of(models, name) for name in found)):
        try:
            mode = place.lstat().st_mode
        except OSError:
            continue
        if mode & _OTHERS_WRITE and not stat.S_ISLNK(mode):
            text = f"{place} has mode {stat.S_IMODE(mode):04o}: others can decide which models serve"
            yield warn(DECLARED, text, f"chmod go-w {place}")
    for name, declared in found.items():
        if isinstance(declared, DeclarationError):
            yield fail(
                DECLARED, str(declared), f"correct or remove it: models set {name} PACKAGE, models forget {name}"
            )
            continue
        together = deployment_of(declared)
        missing = not_with(together, found) if together is not None else ()
        if together is not None and missing and not _is_kept(name, declared, kept):
            text = f"{name}: the deployment {together.name} is not whole: {missing[0]} is not declared as of it"
            yield warn(DECLARED, text, "repeat the command that set its models")
        elif _is_kept(name, declared, kept) or _is_there(declared):
            yield ok(DECLARED, f"{name}: {declared.package}")
        else:
            text = f"{name}: there is no package at {declared.package}, and the store has none of it"
            yield fail(DECLARED, text, f"models set {name} PACKAGE")


def _is_kept(name: str, declared: Declaration, kept: State | None) -> bool:
    """Whether the store has what is declared; where it cannot be read that is taken for true."""
    if kept is None:
        return True
    alias = kept.models.get(name)
    return alias is not None and any(one.package == declared.package for one in alias.versions())


def _is_there(declared: Declaration) -> bool:
    from edge.package.open import local_path

    try:
        return Path(local_path(declared.package)).exists()
    except (EdgeError, OSError):
        return False


def _store(store: Path, agent: int, most: int) -> Iterator[Finding]:
    if not store.is_dir():
        return
    files = [path for path in store.rglob("*") if not path.is_symlink()]
    strange = next((path for path in (store, *files) if path.lstat().st_uid != agent), None)
    writable = next((path for path in (store, *files) if path.lstat().st_mode & _OTHERS_WRITE), None)
    used = sum(path.lstat().st_size for path in files if path.is_file())
    if strange is not None:
        yield fail(STORE, f"{strange} does not belong to the agent's user", f"chown -R {agent} {store}")
    if writable is not None:
        yield warn(STORE, f"others may write to {writable}", f"chmod -R go-w {store}")
    if (store / (STATE_FILE + SET_ASIDE)).exists():
        text = f"a state that could not be read was set aside in {store}; no package is removed while it is there"
        yield warn(STORE, text, f"when the models serve: rm {store / (STATE_FILE + SET_ASIDE)}")
    room = f"{show.size(used)} of {show.size(most)} in {store}"
    if used > NEARLY_FULL * most:
        yield warn(STORE, f"{room}: it is full, or nearly so", "raise edge_package_store_max_mib, or forget models")
    else:
        yield ok(STORE, room)


def _packages(store: Path, kept: State, trusted: Path, clock: Clock) -> Iterator[Finding]:
    """Each package that the store has to have, verified as at a load."""
    wanted = {one.id: (name, one) for name, alias in kept.models.items() for one in alias.versions()}
    for id, (name, one) in wanted.items():
        again = f"models set {name} {one.package}"
        if not (store / id).is_dir():
            yield fail(STORE, f"{name}: {one} is missing, {store / id}", again)
            continue
        try:
            _verify(store / id, one, trusted, clock)
        except MemoryLimitError as error:
            yield warn(STORE, f"{name}: {one} cannot be verified now: {error}", "run doctor when there is memory")
        except EdgeError as error:
            yield fail(STORE, f"{name}: {one} in {store / id}: {error}", again)
        except OSError as error:
            yield warn(STORE, f"{name}: {one} cannot be verified: {durable.why(error)}", "run doctor as root")
        else:
            yield ok(STORE, f"{name}: {one} is whole")


def _verify(path: Path, one: Version, trusted: Path, clock: Clock) -> None:
    from edge.package.open import Acceptance, open_package

    accepted = Acceptance(one.id, one.accepted)
    open_package(str(path), trust_dir=trusted, clock=clock, build_date=version()[1], accepted=accepted).close()
