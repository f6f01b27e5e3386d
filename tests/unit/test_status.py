"""Every error class has a status, and INTERNAL never says more than it may (P-6)."""

import ast
import errno
import inspect
import os
from pathlib import Path

import grpc
import pytest

from edge import errors
from edge.rpc.status import CODES, INTERNAL_TEXT, MAX_TEXT_CHARACTERS, status_of

ERRORS = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, errors.EdgeError) and cls is not errors.EdgeError
]
# Raised before the agent serves, or by commands; no call can see them.
NOT_ON_THE_WIRE = {errors.ConfigError, errors.SocketAddressError, errors.SocketInUseError}


@pytest.mark.parametrize("cls", [cls for cls in ERRORS if cls not in NOT_ON_THE_WIRE])
def test_every_error_maps(cls: type[errors.EdgeError]) -> None:
    assert any(base in CODES for base in cls.__mro__), f"{cls.__name__} has no status"
    code, text = status_of(cls("the reason"))
    assert code is not grpc.StatusCode.INTERNAL
    assert text == "the reason"


def test_a_bug_says_nothing_of_itself() -> None:
    assert status_of(KeyError("/etc/secret")) == (grpc.StatusCode.INTERNAL, INTERNAL_TEXT)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_the_system_has_no_more_of_is_no_internal_error(number: int) -> None:
    code, text = status_of(OSError(number, os.strerror(number), "/etc/secret"))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert os.strerror(number) in text
    assert "secret" not in text


def test_long_texts_are_cut() -> None:
    assert len(status_of(errors.TensorError("x" * 10_000))[1]) == MAX_TEXT_CHARACTERS


def test_names_end_in_error_with_a_one_line_docstring() -> None:
    for cls in ERRORS:
        assert cls.__name__.endswith("Error")
        assert cls.__doc__ and "\n" not in cls.__doc__


def test_status_codes_are_named_in_one_module_only() -> None:
    edge = Path(errors.__file__).parent
    for path in edge.rglob("*.py"):
        if path.name == "status.py" or "client" in path.parts:
            continue
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert "StatusCode" not in names, path
