"""Whose certificates a store may have: the system's CAs, wherever they are, and no others ([G-3])."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.cloud.aws import trust
from tests.fakes.pki import Ca


def really_but(**changes: str | None) -> Callable[[], ssl.DefaultVerifyPaths]:
    """`ssl.get_default_verify_paths` of another system."""
    paths = ssl.get_default_verify_paths()._replace(**changes)
    return lambda: paths


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's file of CAs, on a system whose CA folder is empty and where OpenSSL has no file of its own."""
    (tmp_path / "certs").mkdir()
    monkeypatch.setattr(ssl, "get_default_verify_paths", really_but(cafile=None, capath=str(tmp_path / "certs")))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    file = Ca(tmp_path, "of-the-system").file
    monkeypatch.setattr(trust, "_CA_FILES", ("/not/there.crt", str(file)))
    return file


def trusted(*arguments: str) -> set[str]:
    """The common names of the CAs that are loaded."""
    certificates = trust.public_trust(*arguments).get_ca_certs()
    return {value for one in certificates for pair in one["subject"] for key, value in pair if key == "commonName"}


def test_the_file_of_the_system_is_used_where_the_folder_holds_nothing_that_openssl_reads(bundle: Path) -> None:
    (bundle.parent / "certs/ca-certificates.crt").write_bytes(bundle.read_bytes())
    assert "of-the-system" in trusted()


def test_a_folder_of_links_is_enough(bundle: Path) -> None:
    (bundle.parent / "certs/0123abcd.0").write_bytes(bundle.read_bytes())
    assert "of-the-system" not in trusted()


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_what_a_site_names_must_be_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """OpenSSL would trust nobody, and say so only of the store."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setenv(name, "/not/there")
    with pytest.raises(FileNotFoundError, match=f"{name} names /not/there, which is not there"):
        trust.public_trust()


def test_nothing_is_added_to_folders_that_a_site_names(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", f"/not/there:{bundle.parent / 'certs'}")
    assert "of-the-system" not in trusted()


def test_a_named_ca_is_added(bundle: Path, tmp_path: Path) -> None:
    named = Ca(tmp_path, "named").file
    assert {"of-the-system", "named"} <= trusted(str(named))
