"""An operator's repository in a bucket of stores that others wrote; boards read it there, or behind nginx."""

import datetime
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edge.clock import SystemClock
from edge.cloud.build import build_bucket
from edge.fleet import doctor
from edge.fleet.bucket_files import BucketFiles
from edge.fleet.files import ChangedError, FleetRepositoryError
from edge.fleet.keys import Keys
from edge.fleet.repository import FleetRepository
from tests.fakes import fleet
from tests.fakes.clock import FakeClock
from tests.fakes.fleet import DAY, FLEET, FleetDevice, connect
from tests.fakes.stores import BUCKET, REGION, StoreProcess, start_moto, start_rclone
from tests.system.conftest import Signer, run_tool
from tests.system.fleet import archive, nginx
from tests.system.harness import ROOT

PREFIX = "models/repo"


def start_moto_as_documented(folder: Path) -> StoreProcess:
    """moto whose role has the rights that docs/fleet.md gives to operators."""
    blocks = re.findall(r"^```json\n(.*?)^```$", (ROOT / "docs/fleet.md").read_text(), re.DOTALL | re.MULTILINE)
    policy = next(block for block in blocks if "s3:ListBucket" in block)
    return start_moto(folder, json.loads(policy.replace("BUCKET", BUCKET)))


@pytest.fixture(scope="module", params=[start_rclone, start_moto_as_documented], ids=["rclone", "moto"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    made: StoreProcess = request.param(tmp_path_factory.mktemp("store"))
    yield made
    made.close()


def only(start: Any) -> Any:
    """Of one store: rclone keeps files that nginx can serve, moto keeps to conditions and rights."""
    return pytest.mark.parametrize("store", [start], ids=[start.__name__], indirect=True)


@pytest.fixture
def surroundings(store: StoreProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**store.environment(), "AWS_REGION": REGION, "AWS_ENDPOINT_URL_S3": store.url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SAGEMAKER_EDGE_FLEET_PASSPHRASE", "secret")


class Failing(BucketFiles):
    """A bucket that takes `left` more objects."""

    left = 1000

    def _put(self, *words: Any) -> None:
        if self.left == 0:
            raise OSError(None, "the line is cut")
        self.left -= 1
        super()._put(*words)


class Operator(fleet.Operator):
    """One whose repository is in a bucket."""

    url = ""

    def files(self, prefix: str) -> Failing:
        clock = SystemClock()
        return Failing(*build_bucket(BUCKET, clock, region=REGION, endpoint=self.url), prefix, clock)

    def open(self, left: int = 1000) -> FleetRepository:
        now = datetime.datetime.fromtimestamp(self.clock.now(), datetime.UTC)
        files = self.files(str(self.folder.relative_to("/")))
        files.left = left
        return FleetRepository(files, Keys(self.keys, None), now)


def operator_of(store: StoreProcess, folder: Path, prefix: str) -> Operator:
    made = Operator(Path("/", prefix), folder / "keys", FakeClock(fleet.NOW.timestamp()))
    made.url = store.url
    made.act(lambda repository: repository.init())
    made.act(lambda repository: repository.add_fleet(FLEET))
    return made


def archive_of(folder: Path, version: str) -> Path:
    path = folder / f"{version}.tar.gz"
    path.write_bytes(version.encode() * 5000)
    return path


class Device(FleetDevice):
    """A device that reads the bucket without credentials of its own, as an operator's doctor does."""

    def look(self, operator: Operator) -> dict[str, str]:
        from edge.fleet.files import Reading

        repository = operator.open()
        try:
            self.fleet.round(Reading(repository.files), "s3://models")
        finally:
            repository.files.close()
        return self.runs


@only(start_rclone)
def test_from_a_shell_to_a_board(
    store: StoreProcess, surroundings: None, signer: Signer, tmp_path: Path
) -> None:  # [F-17]
    """The commands of a set-up, on a bucket in place of a folder; a board reads the same objects behind nginx."""
    where = f"s3://{BUCKET}/{PREFIX}"
    keys = ["--keys", str(tmp_path / "keys")]

    def fleet_(word: str, *words: str, code: int = 0) -> Any:
        done = run_tool("fleet", word, where, *words, "--json", check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    assert fleet_("init", *keys)["root"] == str(tmp_path / "keys/1.root.json")
    fleet_("add-fleet", FLEET, *keys)
    packages = [str(archive(signer, version, 0, tmp_path)) for version in ("1.0", "1.1")]
    fleet_("publish", *packages, *keys)
    fleet_("deploy", FLEET, "digits=adder/1.0", "--name", "n-1", *keys)
    fleet_("deploy", FLEET, "digits=adder/1.1", "--percent", "10", "--name", "n-2", *keys)
    report = {"models": {"digits": {"status": "failed", "reason": "the self-test differs"}}}
    for key, value in (
        (f"heartbeats/{FLEET}/press-1.json", {"at": 5}),
        (f"reports/{FLEET}/n-2/ok/press-1.json", {}),
        (f"reports/{FLEET}/n-2/failed/press-2.json", report),
    ):
        put(store, key, json.dumps(value).encode())
    refused = fleet_("promote", FLEET, "--if-failed-below", "2", "--reports", f"s3://{BUCKET}", *keys, code=1)
    assert (
        "n-2 failed on 1 device, 50.0 % of those that reported: 1 x digits: the self-test differs" in refused["error"]
    )
    told = fleet_("status", "--reports", f"s3://{BUCKET}")["told"][FLEET]
    assert (told["ok"], told["failed"]) == (["press-1"], {"press-2": {"digits": "the self-test differs"}})
    fleet_("take-back", FLEET, "--name", "n-3", *keys)
    assert fleet_("doctor")["problems"] == []
    data = store.log.parent / "data" / BUCKET / PREFIX
    with nginx(data, tmp_path / "nginx") as url:
        device = FleetDevice(tmp_path / "device", fleet.Operator(data, tmp_path / "keys", FakeClock(now())))
        source = connect(url, device.clock)
        device.fleet.round(source, url)
        source.close()
        assert device.runs == {"digits": "adder/1.0"}


def now() -> float:
    return SystemClock().now()


def put(store: StoreProcess, key: str, data: bytes) -> None:
    client = store.boto()
    client.put_object(Bucket=BUCKET, Key=key, Body=data)
    client.close()


def test_prune(store: StoreProcess, surroundings: None, tmp_path: Path) -> None:  # [F-17]
    operator = operator_of(store, tmp_path, "repo/prune")
    repository = operator.open()
    assert doctor.unused(repository, 0.0) == []
    gone = doctor.unused(repository, now() + DAY)
    assert "metadata/1.snapshot.json" in gone
    for path in gone:
        repository.files.remove(path)
    repository.files.close()
    assert not {f"repo/prune/{path}" for path in gone} & set(store.objects())
    assert list(doctor.problems(operator.open(), operator.clock.now())) == []


def test_two_operators_at_once(store: StoreProcess, surroundings: None, tmp_path: Path) -> None:  # [F-17]
    """Whoever comes second is refused, and writes nothing over the first one's."""
    operator = operator_of(store, tmp_path, "repo/two")
    first, second = operator.open(), operator.open()
    try:
        for repository, version in ((first, "1.0"), (second, "2.0")):
            repository.publish(archive_of(tmp_path, version), "digits", version)
        first.write()
        with pytest.raises(ChangedError, match="changed by another command meanwhile"):
            second.write()
    finally:
        first.files.close()
        second.files.close()
    assert set(operator.open().packages()) == {"packages/digits/1.0.tar.gz"}
    assert list(doctor.problems(operator.open(), operator.clock.now())) == []


def test_conditions(store: StoreProcess, surroundings: None, tmp_path: Path) -> None:  # [F-17]
    """What the look before writing does not see, a store with conditions does; and an answer that was lost does no harm."""
    operator = Operator(Path("/x"), tmp_path, FakeClock(0))
    operator.url = store.url
    mine, theirs = operator.files("repo/conditions"), operator.files("repo/conditions")
    mine.create("metadata/1.x.json", b"mine")
    mine.create("metadata/1.x.json", b"mine")
    mine.put("metadata/timestamp.json", b"1")
    assert mine.read("metadata/timestamp.json") == theirs.read("metadata/timestamp.json") == b"1"
    theirs.replace("metadata/timestamp.json", b"2")
    try:
        if store.token:  # moto's
            with pytest.raises(ChangedError):
                theirs.create("metadata/1.x.json", b"theirs")
            with pytest.raises(ChangedError):
                mine.replace("metadata/timestamp.json", b"3")
            assert mine.read("metadata/timestamp.json") == b"2"
            outside = operator.files("elsewhere")
            with pytest.raises(FleetRepositoryError, match="403 AccessDenied"):
                outside.put("metadata/1.x.json", b"mine")
            outside.close()
    finally:
        mine.close()
        theirs.close()


@only(start_moto_as_documented)
def test_many_at_once(surroundings: None, store: StoreProcess, tmp_path: Path) -> None:  # [F-17]
    """Each publishes until it is not refused; nothing gets lost, and boards find a whole at every moment."""
    operator = operator_of(store, tmp_path, "repo/many")
    packages = [archive_of(tmp_path, f"1.{n}") for n in range(4)]

    def publish(archive_: Path) -> None:
        while True:
            repository = operator.open()
            try:
                repository.publish(archive_, "digits", archive_.name.removesuffix(".tar.gz"))
                repository.write()
            except ChangedError:
                continue
            finally:
                repository.files.close()
            return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(publish, packages))
    repository = operator.open()
    assert len(repository.packages()) == 4
    repository.files.close()


def test_a_publish_that_breaks_off(store: StoreProcess, surroundings: None, tmp_path: Path) -> None:  # [F-17]
    """After every one of its objects: boards stay with what was, and the same command goes through later."""
    operator = operator_of(store, tmp_path, "repo/half")
    operator.act(lambda repository: repository.publish(archive_of(tmp_path, "1.0"), "digits", "1.0"))
    operator.deploy("n-1", "1.0")
    (tmp_path / "root.json").write_bytes(operator.open().data("root", 1))
    device = Device(tmp_path / "device", operator, root=tmp_path / "root.json")
    assert device.look(operator) == {"digits": "digits/1.0"}
    for n, left in enumerate(range(4)):
        version = f"1.{n + 1}"
        made = archive_of(tmp_path, version)
        repository = operator.open(left)
        repository.publish(made, "digits", version)
        with pytest.raises(FleetRepositoryError, match="the line is cut"):
            repository.write()
        repository.files.close()
        assert device.look(operator) == {"digits": f"digits/1.{n}"}
        operator.act(lambda repository, made=made, version=version: repository.publish(made, "digits", version))
        operator.deploy(f"n-{n + 2}", version)
        device.clock.advance(DAY)
        assert device.look(operator) == {"digits": f"digits/{version}"}


def test_a_bucket_that_cannot_be_reached(tmp_path: Path) -> None:
    done = run_tool("fleet", "doctor", "s3://no_such/x", "--endpoint", "http://127.0.0.1:9", "--json", check=False)
    assert "set sagemaker_edge_provider_aws_*" in done.stdout or "cannot be reached" in done.stdout


@only(start_rclone)
def test_a_large_package(store: StoreProcess, surroundings: None, tmp_path: Path) -> None:  # [F-17]
    """It goes in parts; what does not get through leaves none behind."""
    made = tmp_path / "large.tar.gz"
    with made.open("wb") as file:
        file.truncate((16 << 20) + 1)
    operator = Operator(Path("/x"), tmp_path, FakeClock(0))
    operator.url = store.url
    files = operator.files("large")
    files.put("targets/packages/digits/1.tar.gz", made)
    files.close()
    assert len(store.objects()["large/targets/packages/digits/1.tar.gz"]) == made.stat().st_size
