"""A registry with the real engine, and packages to load into it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge.engine.engines import Engines
from edge.package.manifest import Manifest, format_manifest
from edge.package.open import Package, open_package
from edge.serving.aliases import ModelState
from edge.serving.loading import ModelDefaults
from edge.serving.loads import Load
from edge.serving.registry import Registry
from tests.fakes import packages
from tests.fakes.clock import FakeClock
from tests.fakes.signing_pki import NOW
from tests.unit.test_loads import DATA, Call

ADD_ONE = (DATA / "add_one.tflite").read_bytes()


class Bench:
    """A registry, packages to load into it, and what it said of their health."""

    def __init__(self, folder: Path, budget_bytes: int = 0, delegates: tuple[str, ...] = ()) -> None:
        self._folder = folder
        self.clock = FakeClock(NOW.timestamp())
        self.health: list[tuple[str, bool]] = []
        self.before: Callable[[str, Load], None] = lambda url, load: None
        self.registry = Registry(
            Engines(),
            self._open,
            ModelDefaults(1, 1, 4, budget_bytes, delegates),
            self.clock,
            lambda name, serving: self.health.append((name, serving)),
        )
        self.load, self.swap, self.get = self.registry.load, self.registry.swap, self.registry.get

    def _open(self, url: str, load: Load) -> Package:
        self.before(url, load)
        return open_package(
            url,
            trust_dir=packages.trust(self._folder),
            clock=self.clock,
            build_date=packages.BUILD_DATE,
            claim=load.claim_memory,
            go_on=load.go_on,
        )

    def package(
        self, version: str, model: bytes = ADD_ONE, *, selftest: Mapping[str, bytes] | None = None, **more: Any
    ) -> str:
        """The url of a package of that version, whose manifest says `more`, with the files of a self-test."""
        manifest = format_manifest(Manifest("digits", version, "digits.tflite", **more))
        files = packages.files_of({"digits.tflite": model, **(selftest or {})}, manifest=manifest)
        return str(packages.write_folder(self._folder / version, files))

    def versions(self) -> list[str]:
        """What serves."""
        return [model.manifest.model_version for model in self.registry.models()]

    def settle(self) -> None:
        """Until what was replaced is gone."""
        load = Load(self.registry._loads, Call())
        assert self.registry._loads.wait(
            load, lambda: all(state is ModelState.READY for _, state, _ in self.registry.states())
        )

    def close(self) -> None:
        """Unload everything."""
        self.settle()
        for model in self.registry.models():
            self.registry.unload(model.name)
