"""Which socket the client uses when nobody names one, and what it says of one it cannot use."""

import os
from pathlib import Path

import pytest

from edge.client import connection
from edge.client.outcome import InputError, UnreachableError


@pytest.fixture
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The two usual sockets: the original client's own and an installed agent's."""
    example, installed = tmp_path / "example.sock", tmp_path / "installed.sock"
    monkeypatch.setattr(connection, "EXAMPLE_SOCKET", str(example))
    monkeypatch.setattr(connection, "INSTALLED_SOCKET", str(installed))
    monkeypatch.delenv(connection.SOCKET_VARIABLE, raising=False)
    return example, installed


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file be another user's."""
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        other = os.getuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: other)


def test_the_first_usual_one_that_exists(usual: tuple[Path, Path]) -> None:
    example, installed = usual
    assert connection.socket_of(None, example=True) == str(example)
    assert connection.socket_of(None, example=False) == str(installed)
    example.touch()
    assert connection.socket_of(None, example=False) == str(example)
    installed.touch()
    assert connection.socket_of(None, example=False) == str(installed)


def test_one_in_tmp_that_another_user_made_is_not_used_unless_named(
    usual: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    example, _ = usual
    example.touch()
    give_away(example, monkeypatch)
    for is_example in (True, False):
        with pytest.raises(UnreachableError, match=f"belongs to neither you nor root.*name the socket: -a {example}"):
            connection.socket_of(None, example=is_example)
    assert connection.socket_of(str(example), example=False) == str(example)


def test_a_link_in_tmp_is_judged_by_who_made_it(
    usual: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example, _ = usual
    example.symlink_to(tmp_path / "elsewhere")
    if os.geteuid() == 0:
        os.lchown(example, 12345, -1)
    else:
        give_away(example, monkeypatch)
    with pytest.raises(UnreachableError, match="belongs to neither"):
        connection.socket_of(None, example=True)


def test_grpc_s_names_and_what_is_none(usual: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(connection.SOCKET_VARIABLE, "unix:///run/a")
    assert connection.socket_of(None, example=False) == "/run/a"
    with pytest.raises(InputError, match="expected unix:///PATH"):
        connection.socket_of("unix://host/a", example=False)


def test_nobody_on_an_abstract_name() -> None:
    assert "no agent answers on unix-abstract:gone: nothing" in connection.why_unreachable("\0gone")
