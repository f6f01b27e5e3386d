"""Who may use a file, its access control list included (R-9)."""

import os
from pathlib import Path

import pytest

from edge import access
from tests.fakes.acl import GROUP, USER, Acl, give

ME = 1000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "key"
    made.touch(0o400)
    return made


@pytest.mark.parametrize(
    ("mode", "who"),
    [
        (0o400, []),
        (0o700, []),
        (0o440, ["group"]),
        (0o420, ["group"]),
        (0o404, ["everybody"]),
        (0o455, ["group", "everybody"]),
    ],
)
def test_by_mode(file: Path, mode: int, who: list[str]) -> None:
    file.chmod(mode)
    assert [words.split()[0] for words in access.others(str(file), ME)] == who


@pytest.mark.parametrize(
    ("entry", "mask", "who"),
    [
        (Acl(USER, 4, ME), 4, []),
        (Acl(USER, 6, 0), 7, []),
        (Acl(USER, 4, 51001), 4, ["user 51001"]),
        (Acl(USER, 4, 51001), 2, []),  # the mask takes the right away
        (Acl(GROUP, 2, 51002), 7, ["group 51002"]),
    ],
)
def test_by_access_control_list(file: Path, entry: Acl, mask: int, who: list[str]) -> None:
    give(file, entry, mask)
    assert access.others(str(file), ME) == who


def test_how_to_fix(file: Path) -> None:
    me, them = os.geteuid(), os.geteuid() + 1
    assert access.how_to_fix(str(file), me) == f"chmod 0400 {file}"
    give(file, Acl(USER, 4, 51001))
    assert access.how_to_fix(str(file), them) == f"setfacl -b {file}; chown {them} {file}; chmod 0400 {file}"


def test_a_credential_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/agent")
    assert access.credential_path("$CREDENTIALS_DIRECTORY/key") == "/run/credentials/agent/key"
    assert access.credential_path("/etc/$CREDENTIALS_DIRECTORY/key") == "/etc/$CREDENTIALS_DIRECTORY/key"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert access.credential_path("$CREDENTIALS_DIRECTORY/key") == "$CREDENTIALS_DIRECTORY/key"


def test_a_folder_that_files_cannot_be_kept_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert access.why_unusable(tmp_path) == access.why_unusable(tmp_path / "not" / "yet") == ""
    (tmp_path / "file").write_text("")
    assert access.why_unusable(tmp_path / "file" / "spool") == f"{tmp_path}/file is not a folder"
    monkeypatch.setattr(os, "access", lambda path, rights: False)
    assert access.why_unusable(tmp_path / "spool") == f"this user may not write to {tmp_path}"


def test_admitting_others_takes_back_what_was_there(tmp_path: Path) -> None:
    folder = str(tmp_path)
    try:
        access.admit(folder, {60_001}, {60_002, 60_003})
    except OSError as error:
        pytest.skip(f"no access control lists here: {error.strerror}")
    assert access.has_list(folder)
    assert access.others(folder, os.geteuid()) == ["user 60001", "group 60002", "group 60003"]
    access.admit(folder, set(), {os.getegid()})
    assert not access.has_list(folder)
    assert access.others(folder, os.geteuid()) == [f"group {os.getegid()}"]
    tmp_path.chmod(0o700)
