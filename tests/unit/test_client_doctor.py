"""Doctor: every trouble it knows is provoked, and each finding that is not OK says what to do."""

import datetime
import grp
import json
import os
import pwd
import socket
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge.client import doctor
from edge.client.doctor import Finding, Level
from edge.config import Config, parse_config
from edge.engine import tflite
from edge.engine.engines import Engines
from edge.settings import full_key
from tests.fakes.disk import file_system
from tests.fakes.engines import litert_is_there

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


def root(folder: Path, start_days: int, end_days: int, mode: int = 0o444) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(NOW + datetime.timedelta(start_days))
        .not_valid_after(NOW + datetime.timedelta(end_days))
        .sign(key, hashes.SHA256())
    )
    file = folder / "root.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    file.chmod(mode)
    return file


def config(tmp_path: Path, **more: object) -> Config:
    values = {
        "core_device_name": "d",
        "core_device_fleet_name": "f",
        "core_root_certs_path": str(tmp_path),
        "core_capture_data_disk_path": str(tmp_path / "captures"),
    } | more
    return parse_config(json.dumps({full_key(k): v for k, v in values.items()}).encode()).config


def levels(findings: list[Finding]) -> list[Level]:
    assert all(bool(f.fix) == (f.level is not Level.OK) for f in findings), "a fix for all that is not OK"
    return [f.level for f in findings]


@pytest.mark.parametrize(
    ("start", "end", "mode", "expected"),
    [
        (-1, 400, 0o444, [Level.OK]),
        (-1, 400, 0o644, [Level.FAIL]),  # [S-4]
        (-1, 400, 0o555, [Level.FAIL]),  # [S-4]
        (-9, -1, 0o444, [Level.FAIL]),
        (-9, 20, 0o444, [Level.WARN]),
        (5, 400, 0o444, [Level.WARN]),
    ],
)
def test_trusted_root(tmp_path: Path, start: int, end: int, mode: int, expected: list[Level]) -> None:
    root(tmp_path, start, end, mode)
    assert levels(list(doctor.check_trust(tmp_path, NOW.timestamp(), os.geteuid()))) == expected


def test_folder_of_roots_that_others_may_write_to(tmp_path: Path) -> None:
    root(tmp_path, -1, 400)
    tmp_path.chmod(0o775)
    assert levels(list(doctor.check_trust(tmp_path, NOW.timestamp(), os.geteuid()))) == [Level.FAIL, Level.OK]


def test_no_roots_no_folder_and_no_certificate(tmp_path: Path) -> None:
    assert levels(list(doctor.check_trust(tmp_path, 0, os.geteuid()))) == [Level.FAIL]
    assert levels(list(doctor.check_trust(tmp_path / "none", 0, os.geteuid()))) == [Level.FAIL]
    (tmp_path / "a.pem").write_text("hello")
    (finding,) = doctor.check_trust(tmp_path, 0, os.geteuid())
    assert finding.level is Level.WARN
    assert "is not a certificate in PEM, and is ignored" in finding.text


def test_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"sagemaker_edge_core_device_name": "-", "sagemaker_edge_core_capture_data_buffer_size": 0}')
    nothing, findings = doctor.check_config(str(file))
    assert nothing is None
    assert len(findings) >= 3
    assert set(levels(findings)) == {Level.FAIL}
    _, findings = doctor.check_config(str(tmp_path / "none.json"))
    assert levels(findings) == [Level.FAIL]


def test_folders(tmp_path: Path) -> None:
    assert set(levels(list(doctor.check_folders(config(tmp_path), os.geteuid())))) == {Level.OK}
    full = config(tmp_path, edge_spool_min_free_mib=1 << 20)
    found = list(doctor.check_folders(full, os.geteuid()))
    assert set(levels(found)) == {Level.FAIL}
    assert "free at" in found[0].text
    (tmp_path / "captures").write_text("")
    assert Level.FAIL in levels(list(doctor.check_folders(config(tmp_path), os.geteuid())))


def test_a_folder_that_the_agent_cannot_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, rights: False)
    for agent, level in ((os.geteuid(), Level.FAIL), (os.geteuid() + 1, Level.WARN)):
        found = list(doctor.check_folders(config(tmp_path), agent))
        assert set(levels(found)) == {level}
        assert "cannot be used: you may not write to" in found[0].text


def test_device_files(tmp_path: Path) -> None:
    names = ("provider_aws_ca_cert_file", "provider_aws_cert_file", "provider_aws_cert_pk_file")
    cloud = {name: str(tmp_path / name) for name in names} | {
        "provider_aws_iot_cred_endpoint": "https://example.com/role-aliases/a/credentials",
        "provider_s3_bucket_name": "a-sagemaker-bucket",
        "core_region": "eu-west-1",
    }
    settings = config(tmp_path, **cloud)
    assert levels(list(doctor.check_device_files(settings, os.geteuid()))) == [Level.FAIL] * 3
    for name in names:
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o644)
    assert levels(list(doctor.check_device_files(settings, os.geteuid()))) == [Level.OK, Level.OK, Level.FAIL]
    assert levels(list(doctor.check_device_files(config(tmp_path), os.geteuid()))) == []


def test_a_disk_without_inodes(tmp_path: Path) -> None:
    with file_system(tmp_path / "few", "size=64m,nr_inodes=20") as folder:
        settings = config(tmp_path, core_capture_data_disk_path=str(folder), edge_spool_min_free_mib=0)
        found = list(doctor.check_folders(settings, os.geteuid()))
    assert levels(found) == [Level.FAIL] * 2 and "inodes free" in found[0].text


def test_a_credential_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known to the service alone; where the folder is known, it is looked at."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    names = ("provider_aws_ca_cert_file", "provider_aws_cert_file", "provider_aws_cert_pk_file")
    cloud = {name: f"$CREDENTIALS_DIRECTORY/{name}" for name in names} | {
        "provider_s3_bucket_name": "sagemaker-b",
        "provider_aws_iot_cred_endpoint": "https://h/role-aliases/a/credentials",
        "core_region": "eu-west-1",
    }
    settings = config(tmp_path, **cloud)
    assert levels(list(doctor.check_device_files(settings, os.geteuid()))) == [Level.WARN] * 3
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for name in names:
        (tmp_path / name).touch(0o400)
    assert levels(list(doctor.check_device_files(settings, os.geteuid()))) == [Level.OK] * 3


def test_shared_memory_limits(tmp_path: Path) -> None:
    assert levels(list(doctor.check_shared_memory(tmp_path))) == [Level.WARN]
    for name, value in (("shmmax", 4096), ("shmall", 1 << 30), ("shmmni", 4096)):
        (tmp_path / name).write_text(f"{value}\n")
    assert levels(list(doctor.check_shared_memory(tmp_path))) == [Level.WARN]
    (tmp_path / "shmmax").write_text(f"{1 << 40}\n")
    assert levels(list(doctor.check_shared_memory(tmp_path))) == [Level.OK]


def test_memory(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemAvailable:  1000 kB\n")
    assert levels(list(doctor.check_memory(meminfo))) == [Level.WARN]
    meminfo.write_text("MemAvailable:  1000000 kB\n")
    assert levels(list(doctor.check_memory(meminfo))) == [Level.OK]
    meminfo.write_text("nonsense")
    assert levels(list(doctor.check_memory(meminfo))) == []


def test_the_engine_that_serves_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one that is installed beside it, or before it and cannot be loaded."""
    (found,) = doctor.check_engine("tflite")
    assert (found.level, found.text) == (Level.OK, Engines("tflite").describe())
    monkeypatch.setattr(tflite, "PACKAGES", ("nowhere_at_all", "tests", "ai_edge_litert"))
    (found,) = doctor.check_engine("tflite")
    assert found.level is Level.OK and found.text.startswith("ai_edge_litert ")
    monkeypatch.setattr(tflite, "PACKAGES", ("tests",))
    (found,) = doctor.check_engine("tflite")
    assert (found.level, found.fix) == (Level.FAIL, "install the agent's requirements again")


@pytest.mark.skipif(not litert_is_there(), reason="no LiteRT library is installed for this platform")
def test_both_engines_are_named_where_both_are_used() -> None:
    found = list(doctor.check_engine())
    assert levels(found) == [Level.OK, Level.OK]
    assert [one.text.split(" ")[0] for one in found] == ["LiteRT", "ai_edge_litert"]


def test_the_clock_is_there() -> None:
    assert len(levels(list(doctor.check_clock()))) == 1


def test_nobody_on_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    (finding,) = doctor.check_socket(str(path), 5)
    assert "no such file" in finding.text
    path.write_text("")
    (finding,) = doctor.check_socket(str(path), 5)
    assert "not a socket" in finding.text
    path.unlink()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    (finding,) = doctor.check_socket(str(path), 5)
    assert levels([finding]) == [Level.FAIL]
    assert "nothing listens" in finding.text


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a user that is not root")
def test_socket_that_one_may_not_open(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(path))
        held.listen()
        path.chmod(0)
        (finding,) = doctor.check_socket(str(path), 5)
    assert "may not write" in finding.text


def test_advice_for_a_socket_that_one_may_not_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "agent.sock"
    user, may, look = pwd.getpwuid(os.geteuid())[0], os.access, Path.stat
    held_by: dict[Path, tuple[int, int]] = {}  # mode and group, which only root could give them

    def state(place: Path, **how: bool) -> os.stat_result:
        found = look(place, **how)
        mode, gid = held_by.get(place, (stat.S_IMODE(found.st_mode), found.st_gid))
        return os.stat_result((stat.S_IFMT(found.st_mode) | mode, *found[1:5], gid, *found[6:]))

    monkeypatch.setattr(Path, "stat", state)
    for place, closed, mode, group, told in (
        (path, os.W_OK, 0o660, "daemon", f"adduser {user} daemon, and log in again"),
        (tmp_path, os.X_OK, 0o750, "daemon", f"adduser {user} daemon, and log in again"),
        (path, os.W_OK, 0o600, "daemon", "mode 0600 and belongs to"),
        (path, os.W_OK, 0o660, "root", ":root): Group=, UMask="),
        (tmp_path, os.X_OK, 0o700, "daemon", "mode 0700 and belongs to"),
    ):
        held_by = {place: (mode, grp.getgrnam(group)[2])}
        monkeypatch.setattr(os, "access", lambda at, of, no=(place, closed): (at, of) != no and may(at, of))
        with socket.socket(socket.AF_UNIX) as held:
            held.bind(str(path))
            (finding,) = doctor.check_socket(str(path), 5)
        path.unlink()
        assert told in finding.fix
        assert ("adduser" in finding.fix) == ("adduser" in told)
