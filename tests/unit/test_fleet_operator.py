"""The operator's commands on a repository: what they ask for, refuse, and write, and in which order."""

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edge.client import fleet_lock
from edge.client.main import main
from edge.fleet import times
from edge.fleet.files import FolderFiles
from edge.fleet.keys import KeyFileError, Keys
from edge.fleet.repository import FleetRepository
from tests.fakes import packages as signed
from tests.fakes.clock import FakeClock
from tests.fakes.fleet import DAY, FLEET, NOW, FleetDevice, Operator


class Shell:
    """`fleet` commands, by their words; what they printed as JSON."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.repo, self.keys = folder / "repo", folder / "keys"
        self._capsys = capsys

    def __call__(self, word: str, *words: str, code: int = 0, keys: bool = True) -> Any:
        more = ["--keys", str(self.keys)] if keys else []
        got = main(["fleet", word, str(self.repo), *words, *more, "--json"])
        said = json.loads(self._capsys.readouterr().out)
        assert got == code, said
        return said

    def text(self, word: str, *words: str) -> str:
        assert main(["fleet", word, str(self.repo), *words]) == 0
        return self._capsys.readouterr().out


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("SAGEMAKER_EDGE_FLEET_PASSPHRASE", "secret")
    made = Shell(tmp_path, capsys)
    made("init")
    made("add-fleet", FLEET)
    return made


def package(folder: Path, version: str) -> str:
    """A signed archive."""
    from edge.package.manifest import Manifest, format_manifest

    files = signed.files_of(manifest=format_manifest(Manifest("digits", version, "digits.tflite")))
    path = folder / f"digits-{version}.tar.gz"
    entries = [signed.entry(f"digits/{name}", data) for name, data in files.items()]
    import gzip

    path.write_bytes(gzip.compress(signed.tar_of(entries)))
    return str(path)


def test_the_whole_way(shell: Shell, tmp_path: Path) -> None:
    shell("publish", package(tmp_path, "1.0"), package(tmp_path, "1.1"))
    done = shell("deploy", FLEET, "digits=digits/1.0", "--name", "n-1")
    assert [path.partition("/")[0] for path in done["files"]] == ["targets", "metadata", "metadata", "metadata"]
    assert done["files"][-2:] == ["metadata/4.snapshot.json", "metadata/timestamp.json"]
    shell("deploy", FLEET, "digits=digits/1.1", "--percent", "10", "--device", "press-*", "--arch", "aarch64")
    text = shell.text("status")
    assert "digits: digits/1.1 (10 %, press-*, aarch64), else digits/1.0" in text
    shell("promote", FLEET)
    shell("take-back", FLEET)
    assert shell("status", keys=False)["fleets"][FLEET]["models"] == {
        "digits": [{"package": "packages/digits/1.0.tar.gz"}]
    }
    assert shell("doctor", keys=False)["problems"] == []
    shell("deploy", FLEET, "--without", "digits")
    assert shell("status", keys=False)["fleets"][FLEET]["models"] == {}


def test_a_dry_run_writes_nothing(shell: Shell, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in shell.repo.rglob("*") if path.is_file()}
    assert shell("publish", package(tmp_path, "1.0"), "--dry-run")["files"]
    assert shell("timestamp", "--dry-run")["files"] == ["metadata/timestamp.json"]
    assert {path: path.read_bytes() for path in shell.repo.rglob("*") if path.is_file()} == before


def test_keys_are_encrypted(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in shell.keys.glob("*.pem"):
        assert b"ENCRYPTED" in path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("SAGEMAKER_EDGE_FLEET_PASSPHRASE", "other")
    assert "its passphrase is another" in shell("timestamp", code=1)["error"]
    monkeypatch.delenv("SAGEMAKER_EDGE_FLEET_PASSPHRASE")
    assert "give its passphrase" in shell("timestamp", code=1)["error"]
    assert "are to be encrypted" in shell("add-fleet", "other", code=2)["error"]
    secret = tmp_path / "passphrase"
    secret.write_text("secret\n")
    shell("timestamp", "--passphrase-file", str(secret))
    for empty in ("", "\n", "\r\nsecret\n"):
        secret.write_text(empty)
        said = shell("add-fleet", "other", "--passphrase-file", str(secret), code=2)["error"]
        assert "is empty; expected the passphrase there" in said
    assert not (shell.keys / "fleet-other.pem").exists()


def test_only_the_roles_own_key_is_needed(shell: Shell, tmp_path: Path) -> None:
    """An operator has one key; whoever has the online one takes over."""
    operators = tmp_path / "operators"
    operators.mkdir()
    shell("publish", package(tmp_path, "1.0"))
    for suffix in (".pem", ".pub"):
        (shell.keys / f"fleet-{FLEET}{suffix}").rename(operators / f"fleet-{FLEET}{suffix}")
    everything, shell.keys = shell.keys, operators
    done = shell("deploy", FLEET, "digits=digits/1.0")
    assert done["unsigned"] == ["snapshot", "timestamp"]
    assert "of the 1 keys of packages must sign" in shell("publish", package(tmp_path, "1.1"), code=1)["error"]
    assert (
        "of the 1 keys of timestamp" in shell("timestamp", code=1)["error"]
        or "snapshot" in shell("timestamp", code=1)["error"]
    )
    shell.keys = everything
    assert "metadata/4.snapshot.json" in shell("timestamp")["files"]
    assert shell("doctor", keys=False)["problems"] == []


def test_a_fleet_whose_operator_made_the_key(shell: Shell, tmp_path: Path) -> None:
    theirs = Keys(tmp_path / "theirs", None)
    theirs.make("south")
    shell("add-fleet", "plant-south", "--public", str(tmp_path / "theirs/south.pub"))
    shell("publish", package(tmp_path, "1.0"))
    ours, shell.keys = shell.keys, tmp_path / "theirs"
    shell("deploy", "plant-south", "digits=digits/1.0")
    shell.keys = ours
    shell("timestamp")
    assert shell("doctor", keys=False)["problems"] == []


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("init",), 1, "a repository is made once"),
        (("add-fleet", FLEET), 1, f"there is a fleet {FLEET} already"),
        (("add-fleet", "targets"), 1, "'targets' is no fleet's name"),
        (("add-fleet", "a/b"), 1, "'a/b' is no fleet's name"),
        (("deploy", "nobody", "digits=digits/1.0"), 1, "there is no fleet 'nobody'; there are: plant-north"),
        (("deploy", FLEET, "digits=digits/9.9"), 1, "packages/digits/9.9.tar.gz is not published; published: none"),
        (("deploy", FLEET, "digits"), 2, "expected ALIAS=NAME/VERSION"),
        (("deploy", FLEET), 2, "deploy needs"),
        (("deploy", FLEET, "--without", "digits"), 1, "has no alias digits"),
        (("promote", FLEET), 1, "nothing was deployed to plant-north yet"),
        (("take-back", FLEET), 1, "nothing was deployed"),
        (("publish", "nothing.tar.gz"), 2, "nothing.tar.gz is not a .tar.gz"),
        (("rotate", "nobody"), 1, "there is no role 'nobody'"),
        (("renew", "nobody"), 1, "there is no role 'nobody'"),
    ],
)
def test_refusals(shell: Shell, words: tuple[str, ...], code: int, text: str) -> None:
    assert text in shell(*words, code=code)["error"]


def test_a_version_is_published_once(shell: Shell, tmp_path: Path) -> None:
    first = package(tmp_path, "1.0")
    shell("publish", first)
    shell("publish", first)
    other = tmp_path / "other"
    other.mkdir()
    with (other / "digits-1.0.tar.gz").open("wb") as file:
        file.write(Path(package(other, "1.0")).read_bytes())
    if (other / "digits-1.0.tar.gz").read_bytes() != Path(first).read_bytes():
        assert "published with other bytes" in shell("publish", str(other / "digits-1.0.tar.gz"), code=1)["error"]


def test_what_ends_is_told_and_renewed(tmp_path: Path) -> None:
    from edge.fleet import doctor

    clock = FakeClock(NOW.timestamp())
    operator = Operator.made(tmp_path, clock)
    assert list(doctor.problems(operator.open(), clock.now())) == []
    clock.advance(12 * DAY)
    assert list(doctor.ending(operator.open(), clock.now())) == [
        "timestamp ends in 2 days; sign it again (fleet timestamp)"
    ]
    operator.timestamp()
    assert list(doctor.problems(operator.open(), clock.now())) == []
    clock.advance(340 * DAY)
    told = list(doctor.problems(operator.open(), clock.now()))
    assert any(line.startswith("packages ends in 13 days; sign it again (fleet renew packages)") for line in told)
    assert any(line.startswith("a device that comes now: Expired") for line in told)
    for role in ("targets", "packages", FLEET):
        operator.act(lambda repository, role=role: repository.renew(role))  # type: ignore[misc]
    assert list(doctor.problems(operator.open(), clock.now())) == []


def test_prune(tmp_path: Path) -> None:
    from edge.fleet import doctor

    clock = FakeClock(NOW.timestamp())
    operator = Operator.made(tmp_path, clock)
    for n in range(3):
        operator.publish(f"1.{n}")
        operator.deploy(f"n-{n}", f"1.{n}")
    assert doctor.unused(operator.open(), 0.0) == []
    gone = doctor.unused(operator.open(), 1e12)
    assert set(gone) >= {"metadata/1.snapshot.json", "metadata/1.targets.json"}
    assert not [path for path in gone if path.endswith("root.json")]
    for path in gone:
        (operator.folder / path).unlink()
    assert list(doctor.problems(operator.open(), clock.now())) == []
    device = FleetDevice(tmp_path / "device", operator)
    assert device.poll()
    assert device.runs == {"digits": "digits/1.2"}


def test_prune_keeps_what_is_in_force(tmp_path: Path) -> None:
    """A fleet's operator has signed, the online key's holder has yet to: devices still come for what was before."""
    from edge.fleet import doctor

    operator = Operator.made(tmp_path, FakeClock(NOW.timestamp()))
    operator.publish("1.0")
    operator.publish("1.1")
    operator.deploy("n-1", "1.0")
    everything, operator.keys = operator.keys, tmp_path / "operators"
    operator.keys.mkdir()
    for suffix in (".pem", ".pub"):
        (everything / f"fleet-{FLEET}{suffix}").rename(operator.keys / f"fleet-{FLEET}{suffix}")
    operator.deploy("n-2", "1.1")
    for path in doctor.unused(operator.open(), 1e12):
        (operator.folder / path).unlink()
    device = FleetDevice(tmp_path / "device", operator)
    assert device.poll()
    assert device.runs == {"digits": "digits/1.0"}
    operator.keys = everything
    operator.timestamp()
    assert device.poll()
    assert device.runs == {"digits": "digits/1.1"}


def test_commands_change_a_repository_one_after_another(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(n: int) -> None:
        archive = tmp_path / f"{n}.tar.gz"
        archive.write_bytes(b"%d" % n)
        with fleet_lock.alone(shell.repo, new=False):
            repository = FleetRepository(FolderFiles(shell.repo), Keys(shell.keys, b"secret"), NOW)
            repository.publish(archive, "digits", f"1.{n}")
            repository.write()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(publish, range(4)))
    assert shell("status", keys=False)["packages"] == [f"packages/digits/1.{n}.tar.gz" for n in range(4)]
    monkeypatch.setattr(fleet_lock, "WAIT_SECONDS", 0)
    with fleet_lock.alone(shell.repo, new=False):
        assert f"another command is changing {shell.repo}" in shell("timestamp", code=1)["error"]
        assert "another command" in shell("prune", "--older-than", "1", code=1, keys=False)["error"]
        shell("timestamp", "--dry-run")
        shell("status", keys=False)
    shell("timestamp")
    missing, shell.repo = shell.repo, tmp_path / "missing"
    assert "`fleet init` makes a repository" in shell("timestamp", code=1)["error"]
    assert not shell.repo.exists()
    assert (missing / fleet_lock.LOCK).stat().st_size == 0


def test_only_what_its_role_has_signed_is_signed_over(shell: Shell, tmp_path: Path) -> None:
    """Files come by copying, from other operators: half of one, or anything else, would stop every board."""
    shell("publish", package(tmp_path, "1.0"))
    shell("deploy", FLEET, "digits=digits/1.0")
    metadata = shell.repo / "metadata"
    before = (metadata / "timestamp.json").read_bytes()
    good = {name: (metadata / name).read_bytes() for name in ("2.packages.json", "1.root.json", "2.targets.json")}
    fleet = f"{FLEET}.json"
    other = FleetRepository(FolderFiles(tmp_path / "other"), Keys(tmp_path / "other-keys", None), NOW)
    other.init()
    other.write()
    other.renew("root")
    stranger = other.data("root", 2)
    for name, data, text in (
        ("3.packages.json", good["2.packages.json"][:100], "3.packages.json is damaged"),
        ("999999.packages.json", b"junk", "999999.packages.json is damaged"),
        ("3.packages.json", good["2.packages.json"], "3.packages.json is version 2 by its content"),
        ("3.targets.json", good["2.targets.json"][:-30], "3.targets.json is damaged"),
        ("2.root.json", good["1.root.json"], "2.root.json is version 1 by its content"),
        ("2.root.json", stranger, "2.root.json is not signed with"),
        (
            f"3.{fleet}",
            good["2.packages.json"].replace(b'"version":2', b'"version":3'),
            f"3.{fleet} is not signed with",
        ),
    ):
        (metadata / name).write_bytes(data)
        assert f"{metadata / text}" in shell("timestamp", code=1)["error"]
        (metadata / name).unlink()
    assert (metadata / "timestamp.json").read_bytes() == before
    shell("timestamp")
    assert shell("doctor", keys=False)["problems"] == []


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp", "packages", FLEET])
def test_a_new_key_is_signed_over(shell: Shell, role: str) -> None:
    shell("rotate", role)
    shell("timestamp")
    assert shell("doctor", keys=False)["problems"] == []


def test_keys_that_are_lost(shell: Shell, tmp_path: Path) -> None:
    """Both of targets, with their public halves: two of root put others in their place."""
    ids = [Keys(shell.keys, None).public(f"targets-{n}").keyid for n in (1, 2)]
    for path in list(shell.keys.glob("targets-*")):
        path.unlink()
    said = shell("rotate", "targets", "--old", "targets-1", code=1)["error"]
    assert f"the key 'targets-1' is none of targets's, whose ids begin with {ids[0][:8]}, {ids[1][:8]}" in said
    assert "2 of the 2 keys of targets must sign" in shell("rotate", "targets", "--old", ids[0], code=1)["error"]
    for path in list(shell.keys.glob("targets-*")):
        path.unlink()
    done = shell("rotate", "targets", "--old", ids[0][:8], "--old", ids[1])
    assert done["keys"] == ["targets-2", "targets-3"]
    assert "2 keys cannot come where 1 go" in shell("rotate", "root", "--new", "a", "--new", "b", code=1)["error"]
    shell("add-fleet", "plant-south")
    assert shell("doctor", keys=False)["problems"] == []


def test_half_a_key_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, real = Keys(tmp_path / "keys", b"secret"), os.fsync
    for failing in (1, 2, 3):  # .pem, .pub, the folder
        left = [failing]

        def full(fd: int, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(fd)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(KeyFileError, match="keys: No space left"):
            keys.make("online")
        monkeypatch.undo()
        assert list(keys.folder.iterdir()) == []
    made = keys.make("online")
    with pytest.raises(KeyFileError, match=r"online.pem exists already"):
        keys.make("online")
    (keys.folder / "online.pem").unlink()
    with pytest.raises(KeyFileError, match=r"online.pub exists already"):
        keys.make("online")
    assert [path.name for path in keys.folder.iterdir()] == ["online.pub"]
    assert keys.public("online") == made


def test_a_clock_that_looks_wrong_signs_nothing(shell: Shell) -> None:
    repository = FleetRepository(FolderFiles(shell.repo), Keys(shell.keys, b"secret"), NOW.replace(year=2020))
    repository.timestamp()
    repository.write()
    said = shell("timestamp", code=1)["error"]
    assert "days after the last timestamp; set it, or say --trust-clock" in said
    shell("timestamp", "--trust-clock")
    shell("timestamp")
    assert times.doubt(100.0, build_date=101, issued=0) == "is before this program was built"
    assert times.doubt(101 + 90 * DAY, build_date=101, issued=101) == ""
