"""`models set --root DIR`: declarations and their packages in the file system of an image, so that its first start serves them.

No agent runs there. The package is judged now, by the roots and the configuration that the image has, and the acceptance goes
with it: its certificate may have expired when the device is first switched on. What it takes a device for, the trial and the
self-test, is done at the first start.
"""

import os
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from edge import durable
from edge.client import model_files, show
from edge.client.outcome import Exit, InputError, RefusedError
from edge.clock import SystemClock
from edge.config import INSTALLED_CONFIG, Config, load_config
from edge.config_rules import STATE_FOLDER
from edge.deploy import declaration, folder
from edge.deploy.declaration import Declaration, Together
from edge.deploy.state import AliasState, State
from edge.deploy.store import MIB, Store
from edge.errors import ConfigError, EdgeError
from edge.package.judge import Judge
from edge.text import printable
from edge.version import version

AGENTS_USER = (
    "sagemaker-edge-agent"  # of the unit; StateDirectory= gives it what it owns at the first start, if need be
)
LOCK_SECONDS = 60.0


def set_in_image(options: Namespace, packages: Mapping[str, str], together: Together | None) -> Exit:
    """Declares packages in an image; where one is refused, nothing of it is changed."""
    image = Image(options.root)
    models = image.inside(image.config.edge_models_path)
    try:
        with model_files.changing(_made(models), time.monotonic() + LOCK_SECONDS):
            lines = _set(image, models, options, packages, together)
    except EdgeError as error:
        raise RefusedError("REFUSED", f"{error}; {options.root} is as it was") from None
    except OSError as error:
        raise InputError(f"{error.filename or options.root} cannot be written: {durable.why(error)}") from None
    if options.json:
        show.as_json({"models": lines})
    else:
        for alias, one in lines.items():
            print(printable(f"{alias}: {one} serves from the first start on", show.PATH_CHARACTERS))
    return Exit.OK


def _set(
    image: "Image", models: Path, options: Namespace, packages: Mapping[str, str], together: Together | None
) -> dict[str, str]:
    """What was accepted, by alias."""
    store, lines = image.store(), {}
    store.claim()
    try:
        kept = store.read_state()
        declared = {}
        try:
            for alias, given in packages.items():
                source = Path(given).absolute()
                place = folder.path_of(models, alias)
                # Where `--copy` would have put it: from there it is gone, as after that, and the store has it.
                beside = model_files.copy_beside(place, source)
                url = "/" + str(beside.relative_to(image.root))
                id = store.identify(str(source))
                found = replace(store.accept(str(source), id, lambda: None), package=url)
                one = kept.models.setdefault(alias, AliasState())
                one.lift(id)
                one.try_out(found, together.name if together is not None else "")
                one.waiting = one.trying is not None  # no run has tried it
                declared[alias] = Declaration(
                    url,
                    options.allow_changed_tensors,
                    options.allow_gap,
                    together,
                    capture=model_files.policy(place),
                )
                lines[alias] = str(found)
        except (EdgeError, OSError):
            _tidy(store, store.read_state())
            raise
        store.write_state(kept)
        for alias, wanted in declared.items():
            model_files.write(folder.path_of(models, alias), declaration.to_bytes(wanted))
        _tidy(store, kept)
        image.give(store)
    finally:
        store.close()
    return lines


def _tidy(store: Store, kept: State) -> None:
    store.tidy({one.id for alias in kept.models.values() for one in alias.versions()})


def _made(models: Path) -> Path:
    with model_files.whatever_umask(), suppress(FileExistsError):
        models.mkdir(durable.FOLDER_MODE, parents=True)
    return models


class Image:
    """The file system of an image, below `root`."""

    def __init__(self, root: Path) -> None:
        """Reads its configuration.

        Raises:
            InputError: there is none, or it is faulty.
        """
        self.root = Path(os.path.realpath(root))
        try:
            loaded = load_config(self.inside(INSTALLED_CONFIG))
        except ConfigError as error:
            raise InputError(f"the image's {error}") from None
        found = loaded.config
        if loaded.sources["edge_package_store_path"] != "file":  # the first that this user could write, on this machine
            found = replace(found, edge_package_store_path=STATE_FOLDER + "/packages")
        if loaded.sources["edge_models_path"] != "file":
            found = replace(found, edge_models_path=str(Path(INSTALLED_CONFIG).parent / "models.d"))
        self.config: Config = found

    def inside(self, path: str) -> Path:
        """Where an absolute path of the image is.

        Raises:
            InputError: a link leads out of the image.
        """
        found = self.root / path.lstrip("/")
        real = Path(os.path.realpath(found))
        if not real.is_relative_to(self.root):
            raise InputError(f"{found} leads out of {self.root}, to {real}; make the link a relative one")
        return real

    def store(self) -> Store:
        """Its package store."""
        judge = Judge(self.inside(self.config.core_root_certs_path), SystemClock(), version()[1])
        place = self.inside(self.config.edge_package_store_path)
        return Store(place, self.config.edge_package_store_max_mib * MIB, judge.accept, judge.signed_paths)

    def give(self, store: Store) -> None:
        """Have the agent's user own the store, as far as the image knows that user and this one may give it away."""
        owner = self._owner()
        if owner is None or store.folder is None or os.geteuid() != 0:
            if os.geteuid() != 0:
                print(f"note: not root; {store.folder} must belong to the agent's user", file=sys.stderr)
            return
        state_folder = self.inside(STATE_FOLDER)
        above = [state_folder] if store.folder.is_relative_to(state_folder) else []
        for path in (*above, store.folder, *store.folder.rglob("*")):
            os.chown(path, *owner, follow_symlinks=False)

    def _owner(self) -> tuple[int, int] | None:
        """The agent's user and group, by the image's own list."""
        with suppress(OSError, ValueError):
            for line in self.inside("/etc/passwd").read_text().splitlines():
                name, _, uid, gid, *_ = line.split(":")
                if name == AGENTS_USER:
                    return int(uid), int(gid)
        return None
