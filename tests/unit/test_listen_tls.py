"""The files of TLS on edge_listen [X-16]."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.errors import ConfigError
from edge.rpc.tls import MAX_FILE_BYTES, credentials
from tests.fakes.pki import Ca
from tests.unit.test_config import faults, parse

ALL = {"cert": "edge_listen_cert_file", "key": "edge_listen_key_file", "ca": "edge_listen_client_ca_file"}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    ca = Ca(tmp_path, "ca")
    server = ca.issue("server", host="127.0.0.1")
    return {"cert": str(server.certificate_file), "key": str(server.key_file), "ca": str(ca.file)}


def config(files: dict[str, str], listen: str = "127.0.0.1:1") -> Any:
    return SimpleNamespace(edge_listen=listen, **{ALL[name]: path for name, path in files.items()})


def test_good_files(files: dict[str, str]) -> None:
    assert credentials(config(files)) is not None
    assert credentials(config(files, "")) is None
    assert credentials(config({**files, "cert": ""})) is None


def test_files_that_cannot_be_used(files: dict[str, str], tmp_path: Path) -> None:
    other = Ca(tmp_path, "other").issue("other")
    made = {"nothing": b"nothing\n", "large": bytes(MAX_FILE_BYTES + 1), "open": Path(files["key"]).read_bytes()}
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    (tmp_path / "open").chmod(0o640)
    for which, path, text in (
        ("key", tmp_path / "open", "can be used by group"),
        ("key", other.key_file, "it is not the key of edge_listen_cert_file"),
        ("key", tmp_path / "nothing", "not in PEM form, or encrypted"),
        ("key", tmp_path / "none", "none cannot be read: No such file"),
        ("cert", tmp_path, "is not a file"),
        ("cert", tmp_path / "large", "which no such file has"),
        ("cert", tmp_path / "nothing", "not in PEM form"),
        ("ca", tmp_path / "nothing", "no certificate in PEM form is in it"),
    ):
        with pytest.raises(ConfigError) as refused:
            credentials(config({**files, which: str(path)}))
        assert text in str(refused.value), (which, path)


def test_they_come_together() -> None:
    given = dict.fromkeys(ALL.values(), "/etc/file.pem")
    for where in ("0.0.0.0:8001", "192.168.1.1:8001", "[::]:8001", "127.0.0.1:8001"):
        assert parse(edge_listen=where, **given).config.edge_listen == where
    for name in given:
        some = {other: path for other, path in given.items() if other != name}
        assert faults(edge_listen="0.0.0.0:1", **some) == [
            f"{name}: missing; TLS on edge_listen needs all three of {', '.join(given)}"
        ]
    assert (
        "other addresses need TLS with client certificates (edge_listen_cert_file" in faults(edge_listen="0.0.0.0:1")[0]
    )
    assert any("without edge_listen" in warning for warning in parse(**given).warnings)
