"""What whoever holds the repository, the network or a key can do to a device, and what it cannot (F-1 to F-10)."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, MetaFile, TargetFile

from edge.cloud.aws import answer
from edge.errors import FleetError
from edge.fleet.files import FleetRepositoryError
from edge.fleet.keys import Keys
from edge.fleet.metadata import MetadataError
from edge.fleet.repository import FleetRepository
from edge.fleet.source import SourceError
from tests.fakes.clock import FakeClock
from tests.fakes.fleet import DAY, FLEET, NOW, FleetDevice, FleetServer, Operator, endless, gives


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with three packages, the first of them deployed."""
    home = tmp_path_factory.mktemp("fleet")
    operator = Operator.made(home, FakeClock(NOW.timestamp()))
    for version in ("1.0", "1.1", "1.2"):
        operator.publish(version)
    operator.deploy("n-1", "1.0")
    return home


@pytest.fixture
def operator(template: Path, tmp_path: Path) -> Operator:
    for name in ("repo", "keys"):
        shutil.copytree(template / name, tmp_path / name)
    return Operator(tmp_path / "repo", tmp_path / "keys", FakeClock(NOW.timestamp() + 60))


@pytest.fixture
def device(operator: Operator, tmp_path: Path) -> FleetDevice:
    return FleetDevice(tmp_path / "device", operator)


@pytest.fixture
def server(operator: Operator) -> Iterator[FleetServer]:
    made = FleetServer(operator.folder)
    made.start()
    yield made
    made.close()


def copy(folder: Path, name: str) -> Path:
    target = folder.parent / name
    shutil.copytree(folder, target)
    return target


def refused(what: Callable[[], object], text: str, kind: type[Exception] = MetadataError) -> None:
    with pytest.raises(kind, match=text):
        what()


def test_rollback_of_the_whole_repository(operator: Operator, device: FleetDevice) -> None:  # [F-5]
    old = copy(operator.folder, "old")
    operator.deploy("n-2", "1.1")
    device.poll()
    refused(lambda: device.poll(old), "BadVersionNumber")
    device.start()
    refused(lambda: device.poll(old), "BadVersionNumber")
    assert device.runs == {"digits": "digits/1.1"}


def test_mix_and_match(operator: Operator, device: FleetDevice, server: FleetServer) -> None:
    device.poll(server)
    before = (operator.folder / f"metadata/2.{FLEET}.json").read_bytes()
    operator.deploy("n-2", "1.1")
    server.bent = {rf"3\.{FLEET}\.json": gives(before)}
    refused(lambda: device.poll(server), "hash|length", FleetError)
    assert device.runs == {"digits": "digits/1.0"}
    server.bent = {}
    assert device.poll(server)
    assert device.runs == {"digits": "digits/1.1"}


def test_freeze_with_a_clock_that_is_right(operator: Operator, device: FleetDevice) -> None:  # [F-6]
    device.poll()
    frozen = copy(operator.folder, "frozen")
    operator.deploy("n-2", "1.1")
    device.clock.advance(13 * DAY)
    device.start()
    device.poll(frozen)
    assert device.runs == {"digits": "digits/1.0"}
    device.clock.advance(2 * DAY)
    refused(lambda: device.poll(frozen), "expired", FleetError)
    device.start()
    refused(lambda: device.poll(frozen), "Expired")
    assert device.runs == {"digits": "digits/1.0"}


def test_freeze_with_a_clock_that_is_wrong(operator: Operator, tmp_path: Path) -> None:  # [F-6]
    clock = operator.clock
    device = FleetDevice(tmp_path / "device", operator)
    clock.is_synchronised = False
    clock.set(100.0)
    device.poll()
    assert device.fleet.judged.by.startswith("the agent's build date")
    device.start()
    device.poll()
    assert device.fleet.judged.by.startswith("the repository's newest date")
    assert device.fleet.judged.at == pytest.approx(NOW.timestamp(), abs=120)
    late = FleetDevice(tmp_path / "late", operator, build_date=int(NOW.timestamp() + 20 * DAY))
    refused(late.poll, "Expired")


def test_a_clock_far_ahead_is_not_remembered(operator: Operator, device: FleetDevice) -> None:  # [F-6]
    device.poll()
    device.clock.advance(7300 * DAY)
    device.start()
    refused(device.poll, "Expired")
    device.clock.set(NOW.timestamp() + 120)
    assert device.poll()


ENDLESS = ("timestamp", "snapshot", "targets", FLEET, "models", "2.root")


@pytest.mark.parametrize("what", ENDLESS)
def test_endless_data(device: FleetDevice, server: FleetServer, what: str) -> None:  # [F-4]
    server.bent = {rf"{what}\.json": endless}
    with pytest.raises(FleetError):
        device.poll(server)
    server.bent = {}
    assert device.poll(server)
    assert device.runs == {"digits": "digits/1.0"}


def test_an_endless_package_is_read_as_far_as_its_length(
    device: FleetDevice, server: FleetServer
) -> None:  # [F-4] [F-7]
    server.bent = {r"1\.0\.tar\.gz": endless}
    refused(lambda: device.poll(server), "SHA-256", FleetError)
    assert device.litter == set()


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff" * 100, b'{"signed": {}, "signatures": []}'])
def test_garbage(device: FleetDevice, server: FleetServer, data: bytes) -> None:
    for name in ("timestamp", r"\d\.snapshot", r"\d\.targets", FLEET, "models"):
        server.bent = {rf"{name}\.json": gives(data)}
        with pytest.raises(FleetError):
            device.poll(server)
    server.bent = {}
    assert device.poll(server)


def test_a_line_that_breaks_is_gone_on_from(device: FleetDevice, server: FleetServer) -> None:  # [F-7]
    server.bent = {r"1\.0\.tar\.gz": lambda handler, name: handler.send_file(server.root / name, 20_000)}
    sizes = []
    for _ in range(3):
        with pytest.raises(SourceError):
            device.poll(server)
        sizes.append(sum(path.stat().st_size for path in (device.home / "fleet/packages").glob("*.part")))
        device.start()  # as after a power cut
    assert sizes == [20_000, 40_000, 60_000]
    device.poll(server)
    assert device.runs == {"digits": "digits/1.0"}
    ranges = [headers["range"] for _, headers in server.asked if "range" in headers]
    assert ranges == ["bytes=20000-", "bytes=40000-", "bytes=60000-"]


def test_a_server_that_does_not_know_ranges(device: FleetDevice, server: FleetServer) -> None:  # [F-7]
    server.bent = {r"1\.0\.tar\.gz": lambda handler, name: handler.send_file(server.root / name, 20_000)}
    with pytest.raises(SourceError):
        device.poll(server)
    (whole,) = server.root.glob("targets/packages/digits/*1.0.tar.gz")
    server.bent = {r"1\.0\.tar\.gz": gives(whole.read_bytes())}
    device.poll(server)
    assert device.runs == {"digits": "digits/1.0"}


def test_slow_data(device: FleetDevice, server: FleetServer, monkeypatch: pytest.MonkeyPatch) -> None:  # [F-4]
    """A byte now and then, for ever: each comes in time, all of them never would."""
    monkeypatch.setattr(answer, "RATE_SECONDS", 0.2)

    def trickle(handler: Any, name: str) -> None:
        handler.send_response_only(200)
        handler.send_header("Content-Length", "16000")
        handler.end_headers()
        while not handler.server.owner.closing.wait(0.05):
            handler.wfile.write(b"A")

    for what in (r"timestamp\.json", r"1\.0\.tar\.gz"):
        server.bent = {what: trickle}
        refused(lambda: device.poll(server), "too slowly", SourceError)
    server.bent = {}
    refused(lambda: device.poll(server), "SHA-256", FleetError)  # what had come of it was none of it
    device.poll(server)
    assert device.runs == {"digits": "digits/1.0"}


def test_a_changed_byte(device: FleetDevice, server: FleetServer) -> None:  # [F-7]
    (whole,) = server.root.glob("targets/packages/digits/*1.0.tar.gz")
    data = bytearray(whole.read_bytes())
    data[20_000] ^= 1
    server.bent = {r"1\.0\.tar\.gz": gives(bytes(data))}
    refused(lambda: device.poll(server), "SHA-256", FleetError)
    assert device.litter == set()
    assert device.runs == {}


def test_keys_are_rotated_while_a_device_is_away(operator: Operator, device: FleetDevice) -> None:
    device.poll()
    for role in ("timestamp", "snapshot", "root", "root", "root", "targets", "packages", FLEET):
        operator.act(lambda repository, role=role: repository.rotate(role, None))  # type: ignore[misc]
    operator.deploy("n-2", "1.1")
    assert device.poll()
    assert device.runs == {"digits": "digits/1.1"}


def test_a_root_signed_by_one_key_of_two(operator: Operator, device: FleetDevice) -> None:
    device.poll()
    root = operator.open().latest("root")
    root.signed.version += 1
    root.signatures.clear()
    (one, *_) = Keys(operator.keys, None).signers(root.signed.roles["root"].keyids)
    root.sign(one)
    (operator.folder / "metadata/2.root.json").write_bytes(root.to_bytes())
    device.start()
    refused(device.poll, "Unsigned|signed by")


def test_another_fleets_operator(operator: Operator, device: FleetDevice) -> None:
    """Neither this fleet's document nor a package is theirs to sign."""
    operator.act(lambda repository: repository.add_fleet("plant-south"))
    device.poll()
    repository = operator.open()
    south = repository.latest("plant-south")
    for path, data in ((f"fleets/{FLEET}/models.json", b"{}"), ("packages/digits/6.6.tar.gz", b"evil")):
        south.signed.targets[path] = TargetFile.from_data(path, data, ["sha256"])
    repository._sign("plant-south", south)
    repository._online()
    repository.write()
    operator.publish("1.3")  # so that there is something new
    device.poll()
    assert device.runs == {"digits": "digits/1.0"}
    forged = Metadata.from_bytes(operator.open().data(FLEET))
    forged.signed.version += 1
    forged.signatures.clear()
    (key,) = Keys(operator.keys, None).signers(
        operator.open().latest("targets").signed.delegations.roles["plant-south"].keyids
    )
    forged.sign(key)
    forged.to_file(str(operator.folder / f"metadata/{forged.signed.version}.{FLEET}.json"))
    with pytest.raises(FleetRepositoryError, match="is not signed with"):
        operator.timestamp()
    unlike = operator.open()
    unlike._verified = unlike.data  # type: ignore[method-assign] # the online key's holder is in league
    unlike.timestamp()
    unlike.write()
    refused(device.poll, "Unsigned|signed by")
    assert device.runs == {"digits": "digits/1.0"}


def evil(operator: Operator, name: str) -> Operator:
    """A copy of the repository in the hands of whoever stole its online key."""
    return Operator(copy(operator.folder, name), operator.keys, operator.clock)


def resign(operator: Operator, change: Callable[[FleetRepository], None]) -> None:
    operator.act(change)


def test_a_stolen_online_key_takes_no_known_device_back(
    operator: Operator, device: FleetDevice, tmp_path: Path
) -> None:
    device.poll()
    operator.deploy("n-2", "1.1")
    device.poll()
    thief = evil(operator, "evil")

    def older(repository: FleetRepository) -> None:
        snapshot = repository.latest("snapshot")
        snapshot.signed.meta[f"{FLEET}.json"] = MetaFile(2)
        repository._sign("snapshot", snapshot)
        timestamp = repository.latest("timestamp")
        timestamp.signed.snapshot_meta = repository._meta("snapshot")
        repository._sign("timestamp", timestamp)

    thief.act(older)
    refused(lambda: device.poll(thief.folder), "BadVersionNumber")
    assert device.runs == {"digits": "digits/1.1"}
    newborn = FleetDevice(tmp_path / "newborn", operator)
    newborn.poll(thief.folder)
    assert newborn.runs == {"digits": "digits/1.0"}, "a device that knows nothing yet can be shown what once was valid"


def test_fast_forward_and_its_recovery(operator: Operator, device: FleetDevice) -> None:
    device.poll()
    thief = evil(operator, "evil")

    def forward(repository: FleetRepository) -> None:
        for role in ("snapshot", "timestamp"):
            metadata = repository.latest(role)
            metadata.signed.version = 2**40
            if role == "timestamp":
                metadata.signed.snapshot_meta = repository._meta("snapshot")
            repository._sign(role, metadata)

    thief.act(forward)
    device.poll(thief.folder)
    operator.deploy("n-2", "1.1")
    refused(device.poll, "BadVersionNumber")
    for role in ("timestamp", "snapshot"):
        operator.act(lambda repository, role=role: repository.rotate(role, None))  # type: ignore[misc]
    assert device.poll(), "root names a new online key: recovered without a visit"
    assert device.runs == {"digits": "digits/1.1"}


def test_an_emptied_timestamp_lets_no_old_repository_in(operator: Operator, device: FleetDevice) -> None:  # [F-5]
    """What ngclient leaves after a power cut: files without what was written into them."""
    old = copy(operator.folder, "old")
    operator.deploy("n-2", "1.1")
    device.poll()
    device.start()
    refused(lambda: device.poll(old), "BadVersionNumber")
    snapshot = device.home / "fleet/tuf/snapshot.json"
    assert snapshot.stat().st_size > 0
