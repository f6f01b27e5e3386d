"""Declared models over many runs of an agent: what is kept, what proves itself, what is taken back (M-6, W-6, W-7)."""

import datetime
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from edge.deploy import declaration, folder
from edge.deploy.declaration import Declaration
from edge.deploy.deployments import Deployments
from edge.deploy.managed import Managed
from edge.deploy.proof import COMMIT_PREDICTS, COMMIT_SECONDS
from edge.deploy.state import Standing
from edge.deploy.store import MIB, Store
from edge.engine.engines import Engines
from edge.errors import EdgeError, ModelNotFoundError, StoreError
from edge.package.manifest import Manifest, format_manifest
from edge.package.open import Acceptance, Package, claim_of_system, open_package, signed_paths
from edge.serving.loading import ModelDefaults
from edge.serving.loads import Load
from edge.serving.registry import Registry
from tests.data.make_models import add_one
from tests.fakes import packages, signing_pki
from tests.fakes.clock import FakeClock
from tests.fakes.signing_pki import NOW, Holder
from tests.unit.test_loads import Call


class Device:
    """A device with one declared model, "m": runs of the agent on it end cleanly or not."""

    def __init__(self, home: Path, store_mib: int = 100) -> None:
        self.home = home
        self.clock = FakeClock(NOW.timestamp())
        self.models = home / "models.d"
        self.models.mkdir()
        self.elsewhere: dict[str, Declaration] = {}
        self._store_mib = store_mib
        self._made = 0

    def start(self) -> None:
        """A run begins."""
        self.make()
        self.deployments.prepare()
        self.deployments.start(lambda name: None)

    def make(self, budget_bytes: int = 0) -> None:
        """The parts of a run, with so much memory for models, or all that there is."""
        self.registry = Registry(Engines(), self._open, ModelDefaults(1, 1, 4, budget_bytes, ()), self.clock)
        self.store = Store(self.home / "store", self._store_mib * MIB, self._accept, self._signed)
        self.deployments = Deployments(
            self.registry, self.store, self.models, self.clock, further=lambda: self.elsewhere
        )

    @property
    def ends(self) -> list[Standing]:
        """The deployments that have ended, the oldest first."""
        return self.deployments._kept._ended

    def end(self, *, cleanly: bool = False) -> None:
        """It ends."""
        if cleanly:
            self.deployments.stop()
        self.store.close()
        for model in self.registry.models():
            self.registry.unload(model.name)

    def restart(self, *, cleanly: bool = False) -> None:
        self.end(cleanly=cleanly)
        self.start()

    def package(
        self,
        version: str,
        signer: Holder = packages.SIGNER,
        spare: int = 0,
        files_besides: Mapping[str, bytes] = MappingProxyType({}),
    ) -> Path:
        """A package whose model adds the number that its version is, with so many bytes besides."""
        self._made += 1
        manifest = format_manifest(Manifest("adder", version, "m.tflite"))
        files = {
            "m.tflite": add_one(amount=float(version)),
            **({"spare": bytes(spare)} if spare else {}),
            **files_besides,
        }
        files = packages.files_of(files, manifest=manifest, signer=signer)
        return packages.write_folder(self.home / f"{version}-{self._made}", files)

    def declare(self, package: Path) -> Managed:
        """`models set`."""
        folder.write(folder.path_of(self.models, "m"), declaration.to_bytes(Declaration(str(package))))
        (one,) = self.deployments.apply(["m"], Call(), retry=True)
        return one

    def predict(self, times: int = 1, name: str = "m") -> float:
        """What the model that serves adds."""
        model = self.registry.get(name)
        for _ in range(times):
            with model.scheduler.session(Call()) as session:
                (y,) = session.run([np.zeros((1, 4), np.float32).tobytes()], ((1, 4),))
                added = float(np.frombuffer(y, np.float32)[0])
        return added

    @property
    def state(self) -> tuple[str, str, str]:
        """Versions: on trial, current, previous."""
        return self.state_of("m")

    def state_of(self, name: str) -> tuple[str, str, str]:
        """The same of any name."""
        one = self.deployments.get(name)
        assert one is not None
        state = one.state
        a, b, c = (one.version if one else "" for one in (state.trying, state.current, state.previous))
        return a, b, c

    @property
    def managed(self) -> Managed:
        one = self.deployments.get("m")
        assert one is not None
        return one

    def _open(self, url: str, load: Load) -> Package:
        version = self.deployments.acceptance(url)
        return self._verified(url, load.go_on, Acceptance(version.id, version.accepted) if version else None)

    def _accept(self, url: str, go_on: Callable[[], None]) -> Package:
        return self._verified(url, go_on, None)

    def _signed(self, url: str) -> frozenset[str]:
        trusted = packages.trust(self.home)
        return signed_paths(url, trust_dir=trusted, clock=self.clock, build_date=packages.BUILD_DATE)

    def _verified(self, url: str, go_on: Callable[[], None], accepted: Acceptance | None) -> Package:
        return open_package(
            url,
            trust_dir=packages.trust(self.home),
            clock=self.clock,
            build_date=packages.BUILD_DATE,
            claim=claim_of_system,
            go_on=go_on,
            accepted=accepted,
        )


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path)
    made.start()
    yield made
    made.end()


def proven(device: Device, version: str) -> None:
    """A version that serves and has proved itself."""
    assert device.declare(device.package(version)).refused == ""
    device.predict(COMMIT_PREDICTS)
    device.deployments.look()


def damage(package: Path) -> None:
    """Alter a package's model."""
    model = package / "m.tflite"
    model.write_bytes(model.read_bytes()[:-1] + b"x")


# --- M-6 -----------------------------------------------------------------------


def test_an_expired_signer_serves_on_and_signs_nothing_new(device: Device) -> None:  # [M-6]
    proven(device, "1")
    new = device.package("2")
    device.clock.set((NOW + datetime.timedelta(days=400)).timestamp())
    device.restart()
    assert device.predict() == 1
    assert "expired" in device.declare(new).refused
    assert device.predict() == 1


def test_an_expired_signer_goes_back_to_what_was_accepted(device: Device) -> None:  # [M-6]
    proven(device, "1")
    proven(device, "2")
    device.clock.set((NOW + datetime.timedelta(days=400)).timestamp())
    device.deployments.rollback("m", Call())
    assert device.predict() == 1
    device.restart()
    assert device.predict() == 1


def test_a_root_that_was_taken_away_ends_what_it_signed(device: Device) -> None:  # [M-6] [S-3]
    proven(device, "1")
    device.end()
    (root,) = packages.trust(device.home).iterdir()
    root.unlink()
    other = signing_pki.root("another", number=7)
    (packages.trust(device.home) / "other.pem").write_bytes(other.pem)
    (packages.trust(device.home) / "other.pem").chmod(0o444)
    device.start()
    assert "not trusted" in device.managed.refused
    with pytest.raises(ModelNotFoundError):
        device.predict()


def test_a_store_that_was_altered_is_noticed(device: Device) -> None:  # [M-6]
    proven(device, "1")
    proven(device, "2")
    device.end()
    current = device.managed.state.current
    assert current is not None
    damage(device.store.path(current))
    shutil.rmtree(current.package)
    device.start()
    assert "altered" in device.managed.refused
    assert device.predict() == 1  # the one before


def test_the_store_is_bounded(tmp_path: Path) -> None:  # [M-6]
    device = Device(tmp_path, store_mib=1)
    device.start()
    try:
        proven(device, "1")
        refused = device.declare(device.package("2", spare=1 << 20)).refused
        assert "no room in the store: 1 MiB are allowed (edge_package_store_max_mib)" in refused
        assert device.predict() == 1
        assert len([path for path in device.store._there().iterdir() if path.is_dir()]) == 1
    finally:
        device.end()


def test_a_store_belongs_to_one_agent(device: Device) -> None:  # [M-6]
    proven(device, "1")
    other = Store(device.home / "store", MIB, device._accept, device._signed)
    with pytest.raises(StoreError, match="another agent's"):
        other.claim()


def test_what_is_not_used_any_more_is_removed(device: Device) -> None:  # [M-6]
    for version in ("1", "2", "3", "4"):
        proven(device, version)
    assert device.state == ("", "4", "3")
    assert len([path for path in device.store._there().iterdir() if path.is_dir()]) == 2
    (device.store._there() / ("1" * 64 + ".tmp")).mkdir()
    (device.store._there() / ("0" * 64)).mkdir()
    (device.store._there() / "state.json.tmp").write_text("")
    device.restart()
    assert sorted(path.name for path in device.store._there().iterdir() if not path.is_dir()) == ["lock", "state.json"]
    assert len([path for path in device.store._there().iterdir() if path.is_dir()]) == 2


def test_a_state_that_is_none_is_set_aside_and_nothing_is_lost(device: Device) -> None:  # [M-3] [M-6]
    proven(device, "1")
    device.end()
    (device.store._there() / "state.json").write_text('{"format": 1, "models": {"m": 3}}')
    device.start()
    assert device.predict() == 1
    assert (device.store._there() / "state.json.unreadable").exists()


# --- W-6 -----------------------------------------------------------------------


def test_a_version_proves_itself_by_predicts(device: Device) -> None:  # [W-6]
    device.declare(device.package("1"))
    device.predict(COMMIT_PREDICTS - 1)
    device.deployments.look()
    assert device.state == ("1", "", "")
    device.predict()
    device.deployments.look()
    assert device.state == ("", "1", "")
    proven(device, "2")
    assert device.state == ("", "2", "1")


def test_a_version_proves_itself_by_time(device: Device) -> None:  # [W-6]
    device.declare(device.package("1"))
    device.clock.advance(COMMIT_SECONDS - 1)
    device.deployments.look()
    assert device.state == ("1", "", "")
    device.clock.advance(1)
    device.deployments.look()
    assert device.state == ("", "1", "")


def test_a_predict_that_ends_with_internal_takes_the_version_back(device: Device) -> None:  # [W-6]
    proven(device, "1")
    two = device.package("2")
    device.declare(two)
    device.registry.get("m").remarks.count_failed()
    device.deployments.look()
    for thread in threading.enumerate():
        if thread.name == "take back m":
            thread.join()
    assert device.predict() == 1
    assert "INTERNAL" in device.managed.refused
    device.restart()
    assert (device.predict(), device.state) == (1, ("", "1", ""))
    assert "was taken back: a Predict ended with INTERNAL" in device.managed.refused
    assert device.declare(two).refused == ""  # whoever names it again has his way
    assert device.predict() == 2


def test_internal_without_a_version_before_starts_the_trial_anew(device: Device) -> None:  # [W-6]
    device.declare(device.package("1"))
    device.predict(COMMIT_PREDICTS)
    device.registry.get("m").remarks.count_failed()
    device.deployments.look()
    assert device.state == ("1", "", "")
    device.predict(COMMIT_PREDICTS)
    device.deployments.look()
    assert device.state == ("", "1", "")


# --- W-7 -----------------------------------------------------------------------


def test_two_runs_that_end_badly_take_a_version_back(device: Device) -> None:  # [W-7]
    proven(device, "1")
    device.declare(device.package("2"))
    device.restart()
    assert (device.predict(), device.state) == (2, ("2", "1", ""))
    device.restart()
    assert (device.predict(), device.state) == (1, ("", "1", ""))
    assert "ended 2 times before it had proved itself" in device.managed.refused
    device.restart()
    assert device.predict() == 1


def test_runs_that_end_cleanly_count_for_nothing(device: Device) -> None:  # [W-7]
    proven(device, "1")
    device.declare(device.package("2"))
    for _ in range(4):
        device.restart(cleanly=True)
        assert (device.predict(), device.state) == (2, ("2", "1", ""))


def test_the_only_version_goes_on(device: Device) -> None:  # [W-7]
    device.declare(device.package("1"))
    for _ in range(4):
        device.restart()
        assert device.predict() == 1


def test_a_new_version_after_one_on_trial_can_go_back_to_what_served(device: Device) -> None:  # [W-7]
    device.declare(device.package("1"))
    device.declare(device.package("2"))
    assert device.state == ("2", "1", "")
    device.deployments.rollback("m", Call())
    assert device.predict() == 1
    with pytest.raises(EdgeError, match="no version to go back to"):
        device.deployments.rollback("m", Call())


# --- whose the store is, and what cannot be read -----------------------------------


def test_a_second_agent_leaves_the_store_of_the_first_alone(device: Device, tmp_path: Path) -> None:  # [M-6]
    proven(device, "1")
    before = {path.name: path.stat().st_mtime_ns for path in (device.home / "store").iterdir()}
    (tmp_path / "second").mkdir()
    second = Device(tmp_path / "second")
    package = second.package("2")
    folder.write(folder.path_of(second.models, "m"), declaration.to_bytes(Declaration(str(package))))
    (second.home / "store").symlink_to(device.home / "store")
    second.start()
    assert "another agent's" in second.managed.refused
    assert before == {path.name: path.stat().st_mtime_ns for path in (device.home / "store").iterdir()}
    device.store.close()
    (one,) = second.deployments.apply(["m"], Call())
    assert (one.refused, second.predict(), second.state) == ("", 2, ("2", "1", ""))  # it goes on from what was there
    second.end()


def test_a_folder_that_cannot_be_read_leaves_what_served(device: Device) -> None:  # [M-3]
    proven(device, "1")
    device.models.rename(device.home / "elsewhere")
    device.models.write_text("")
    device.restart()
    assert "cannot be read" in device.managed.refused
    assert device.predict() == 1
