"""A device of a fleet whose own side is at fault: its clock, disk, trusted roots, root of trust, models.d (F-5 to F-12)."""

import contextlib
import errno
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import FleetError
from edge.fleet import declared, times
from edge.fleet.membership import Outcome
from edge.fleet.source import Folder, SourceError, read
from edge.fleet.state import FleetState, parse, to_bytes
from tests.fakes.clock import FakeClock
from tests.fakes.fleet import DAY, NOW, FleetDevice, Operator

YEARS = 3650 * DAY


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    made = Operator.made(tmp_path, FakeClock(NOW.timestamp()))
    for version in ("1.0", "1.1", "1.2"):
        made.publish(version)
    made.deploy("n-1", "1.0")
    return made


@pytest.fixture
def device(operator: Operator, tmp_path: Path) -> FleetDevice:
    return FleetDevice(tmp_path / "device", operator)


def proved(device: FleetDevice) -> None:
    device.serving.commit()
    device.fleet.look()


@contextlib.contextmanager
def at(operator: Operator, seconds: float) -> Iterator[None]:
    """The operator's clock is set so."""
    clock, operator.clock = operator.clock, FakeClock(seconds)
    try:
        yield
    finally:
        operator.clock = clock


@pytest.mark.parametrize("restart", [False, True])
def test_a_date_from_the_future_goes_with_its_key(
    operator: Operator, device: FleetDevice, restart: bool
) -> None:  # [F-6]
    """A wrong clock at the operator's, or a thief of the online key: a new key in root sets it right, without a visit."""
    device.clock.is_synchronised = False
    device.poll()
    with at(operator, NOW.timestamp() + 2 * YEARS):
        operator.timestamp()
    device.poll()
    assert device.fleet.state.issued > NOW.timestamp() + YEARS
    operator.timestamp()
    with pytest.raises(FleetError, match=r"Expired.*root|root.*expired"):
        device.poll()
    operator.deploy("n-2", "1.1")
    operator.act(lambda repository: repository.rotate("timestamp", None))
    operator.act(lambda repository: repository.rotate("snapshot", None))
    if restart:
        device.start()
    assert device.poll()
    assert device.runs == {"digits": "digits/1.1"}
    assert device.fleet.state.issued == pytest.approx(NOW.timestamp(), abs=120)
    assert device.fleet.judged.by.startswith("the agent's build date")


def test_a_date_stands_while_root_names_its_keys(operator: Operator, device: FleetDevice) -> None:  # [F-6]
    device.clock.is_synchronised = False
    device.poll()
    first = device.fleet.state.issued
    assert device.fleet.state.issued_by
    for role in ("targets", "root", "packages"):
        operator.act(lambda repository, role=role: repository.rotate(role, None))  # type: ignore[misc]
    device.start()
    device.poll()
    assert device.fleet.judged.at >= first
    assert device.fleet.judged.by.startswith("the repository's newest date")
    assert times.stands(["a", "b"], ["b", "c"], 1)
    assert not times.stands(["a", "b"], ["b", "c"], 2)
    assert times.stands([], ["b"], 1), "of a state that an earlier release wrote"


def test_a_state_of_an_earlier_release() -> None:
    state = FleetState(issued=5, bad={"a": "no"})
    state.untold.append(Outcome("n-1", {"digits": "p"}, {"digits": "no"}))
    assert parse(to_bytes(state)) == state
    import json

    old = json.loads(to_bytes(state))
    for key in ("issued_by", "untrusted", "untold"):
        del old[key]
    assert parse(json.dumps(old).encode()) == FleetState(issued=5, bad={"a": "no"})


def test_a_report_that_cannot_be_kept_holds_up_nothing(operator: Operator, device: FleetDevice) -> None:  # [F-12]
    def full(outcome: Outcome) -> None:
        raise FleetError("a report cannot be kept: No space left on device")

    device.on_outcome = full
    device.poll()
    proved(device)
    assert device.fleet.state.proved
    operator.deploy("n-2", "1.1")
    device.poll()
    assert device.runs == {"digits": "digits/1.1"}
    device.start()
    device.on_outcome = device.ended.append
    proved(device)
    assert [one.deployment for one in device.ended] == ["n-1", "n-2"]
    device.start()
    device.fleet.look()
    assert len(device.ended) == 2, "told once"


def test_a_state_that_cannot_be_written_declares_nothing(
    operator: Operator, device: FleetDevice, monkeypatch: pytest.MonkeyPatch
) -> None:  # [F-5]
    device.poll()
    proved(device)
    operator.deploy("n-2", "1.1")
    real = declared.durable.write_file

    def full(path: Path, data: bytes) -> None:
        if path.name == "state.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    monkeypatch.setattr(declared.durable, "write_file", full)
    with pytest.raises(FleetError, match="state cannot be written: No space left"):
        device.poll()
    assert device.runs == {"digits": "digits/1.0"}
    monkeypatch.undo()
    assert device.poll()
    assert device.runs == {"digits": "digits/1.1"}


def test_an_alias_that_is_no_longer_pinned(operator: Operator, device: FleetDevice) -> None:  # [F-11]
    device.serving.pin("digits")
    device.poll()
    assert not device.poll()
    device.serving.pin("digits", pinned=False)
    assert device.poll(), "without news of the fleet, and without a restart"
    assert device.runs == {"digits": "digits/1.0"}
    assert not device.poll()


@pytest.mark.parametrize("clock", [False, True], ids=["roots", "clock"])
def test_a_signer_is_judged_again_when_trust_changes(
    operator: Operator, tmp_path: Path, clock: bool
) -> None:  # [F-10] [S-3]
    roots = tmp_path / "roots"
    device = FleetDevice(tmp_path / "device", operator, roots=roots)
    device.clock.is_synchronised = False
    device.serving.judge, device.serving.untrusted = (lambda alias, path: "no root certificate is trusted"), True
    device.poll()
    assert device.runs == {}
    assert not device.poll(), "nothing has changed"
    device.serving.judge = lambda alias, path: ""
    device.start()
    assert device.poll()
    assert device.runs == {}, "nor after a restart"
    if clock:
        device.clock.is_synchronised = True
    else:
        roots.mkdir()
        (roots / "root.pem").write_text("")
    assert device.poll()
    assert device.runs == {"digits": "digits/1.0"}
    assert device.fleet.state.bad == {}


def test_a_clock_that_is_not_set_yet_has_no_signer_judged_again(
    operator: Operator, device: FleetDevice
) -> None:  # [F-10]
    """Each start begins so: what an untrusted signer has made is not fetched twice a day for that."""
    device.serving.judge, device.serving.untrusted = (lambda alias, path: "no root certificate is trusted"), True
    device.poll()
    device.serving.judge = lambda alias, path: ""
    for synchronised in (False, True):
        device.clock.is_synchronised = synchronised
        device.start()
        device.poll()
        assert device.runs == {}


def test_want_of_memory_fetches_nothing_twice(operator: Operator, device: FleetDevice) -> None:  # [F-7] [F-10]
    device.serving.judge, device.serving.passing = (lambda alias, path: "no memory"), True
    with pytest.raises(FleetError, match="no memory"):
        device.poll()
    (package,) = operator.folder.glob("targets/packages/digits/*.1.0.tar.gz")
    package.unlink()
    device.serving.judge = lambda alias, path: ""
    device.poll()
    assert device.runs == {"digits": "digits/1.0"}
    assert device.litter == set()


def test_a_root_of_trust_that_others_could_change(operator: Operator, tmp_path: Path) -> None:  # [F-16]
    place = tmp_path / "etc" / "root.json"
    place.parent.mkdir(mode=0o755)
    place.write_bytes(operator.root.read_bytes())
    device = FleetDevice(tmp_path / "device", operator, root=place)
    place.chmod(0o666)
    with pytest.raises(FleetError, match=r"root\.json has mode 0666.*run: chmod go-w"):
        device.poll()
    place.chmod(0o644)
    place.parent.chmod(0o777)
    with pytest.raises(FleetError, match=r"etc has mode 0777"):
        device.poll()
    place.parent.chmod(0o755)
    place.write_bytes(b" " * (65 << 10))
    with pytest.raises(FleetError, match="is larger than 65536 bytes"):
        device.poll()
    place.write_bytes(operator.root.read_bytes())
    assert device.poll()


def test_a_file_that_grows_while_it_is_read(tmp_path: Path) -> None:  # [F-4]
    (tmp_path / "big").write_bytes(b"a" * 100)
    source = Folder(tmp_path)
    assert read(source, "big", 100) == b"a" * 100
    with pytest.raises(SourceError, match="has 100 bytes; at most 99 are read"):
        read(source, "big", 99)

    def grown() -> None:
        with source.open("big", most=100) as got:
            with (tmp_path / "big").open("ab") as more:
                more.write(b"b" * 1000)
            b"".join(got.chunks())

    with pytest.raises(SourceError, match="has grown; at most 100 bytes are read"):
        grown()


def test_a_full_disk_is_not_blamed_on_the_stick(operator: Operator, device: FleetDevice) -> None:  # [F-8]
    """The process's bound on files stands in for the disk's."""
    device.poll()
    operator.publish("9.0", bytes(100_000))
    operator.deploy("n-2", "9.0")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, before[1]))
    try:
        with pytest.raises(FleetError, match="the package cannot be kept: File too large"):
            device.poll()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert device.runs == {"digits": "digits/1.0"}
    device.poll()
    assert device.runs == {"digits": "digits/9.0"}
