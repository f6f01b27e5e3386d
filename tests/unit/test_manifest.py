"""The manifest: what is read, and the reason for each refusal."""

import json
from typing import Any

import pytest

from edge.errors import ManifestError, TargetError
from edge.package.manifest import MAX_MANIFEST_BYTES, Manifest, check_target, format_manifest, parse_manifest

EXAMPLE = (
    b'{"format_version": 1, "metadata": {"model_name": "digits", "model_version": "1.0"}, "model": "digits.tflite",'
    b' "target": {"os": "linux", "arch": "any"}, "runtime": {"engine": "tflite"}}'
)


def changed(**changes: Any) -> bytes:
    value: dict[str, Any] = json.loads(EXAMPLE)
    for path, content in changes.items():
        *way, last = path.split("__")
        at = value
        for step in way:
            at = at[step]
        if content is None:
            del at[last]
        else:
            at[last] = content
    return json.dumps(value).encode()


def test_the_example() -> None:  # [S-1]
    assert parse_manifest(EXAMPLE) == Manifest("digits", "1.0", "digits.tflite")


def test_all_that_runtime_may_add() -> None:  # [S-1]
    manifest = Manifest("d", "2", "m.tflite", arch="aarch64", delegate="/usr/lib/libd.so", threads=4, instances=2)
    assert parse_manifest(format_manifest(manifest)) == manifest


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"format_version": 2}, "format_version '2'; this agent reads 1"),
        ({"format_version": True}, "format_version"),
        ({"format_version": None}, "lacks format_version"),
        ({"metadata": None}, "lacks metadata"),
        ({"metadata": []}, "metadata must be an object, not a list"),
        ({"metadata__model_name": None}, "lacks metadata.model_name"),
        ({"metadata__author": "me"}, "unknown key 'metadata.author'"),
        ({"more": 1}, "unknown key 'more'"),
        ({"target__more": 1}, "unknown key"),
        ({"runtime__more": 1}, "unknown key"),
        ({"metadata__model_name": 7}, "must be text, not a number"),
        ({"metadata__model_name": ""}, "metadata.model_name"),
        ({"metadata__model_name": "../up"}, "metadata.model_name"),
        ({"metadata__model_name": "a/b"}, "metadata.model_name"),
        ({"metadata__model_name": ".hidden"}, "metadata.model_name"),
        ({"metadata__model_name": "a" * 129}, "metadata.model_name"),
        ({"metadata__model_name": "name\n"}, "metadata.model_name"),
        ({"metadata__model_version": "1\u2028"}, "metadata.model_version"),
        ({"metadata__model_version": 1.0}, "metadata.model_version"),
        ({"model": "/etc/passwd"}, "without a folder"),
        ({"model": "../m.tflite"}, "without a folder"),
        ({"model": "sub/m.tflite"}, "without a folder"),
        ({"model": ".."}, "without a folder"),
        ({"model": ""}, "without a folder"),
        ({"model": "a" * 256}, "not a file name"),
        ({"model": "a\tb"}, "not a file name"),
        ({"model": "a\0b"}, "not text"),
        ({"model": "\ud800"}, "not text"),
        ({"model": "model.sig"}, "own file"),
        ({"model": "sagemaker_edge_manifest"}, "own file"),
        ({"target__arch": "X86"}, "target.arch"),
        ({"target__os": None}, "lacks target.os"),
        ({"runtime__engine": None}, "lacks runtime.engine"),
        ({"runtime__threads": 0}, "1 to 256"),
        ({"runtime__threads": True}, "true or false"),
        ({"runtime__threads": 1.5}, "whole number"),
        ({"runtime__instances": 65}, "1 to 64"),
        ({"runtime__instances": "2"}, "whole number"),
        ({"runtime__delegate": ""}, "runtime.delegate"),
        ({"runtime__accelerator": "npu"}, "expected cpu or gpu"),
        ({"runtime__precision": "float16"}, "runtime.accelerator is cpu"),
        ({"runtime__accelerator": "gpu", "runtime__precision": "float64"}, "expected float32 or float16"),
        (
            {"runtime__accelerator": "gpu", "runtime__fallback": "yes"},
            "runtime.fallback must be true or false, not text",
        ),
        ({"runtime__accelerator": "gpu", "runtime__delegate": "/x.so"}, "exclude each other"),
        ({"runtime__delegate": []}, "must be text, not a list"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], word: str) -> None:  # [S-1] [L-4]
    with pytest.raises(ManifestError, match=word):
        parse_manifest(changed(**changes))


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object, not a list"),
        (b"null", "not null"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"\xef\xbb\xbf" + EXAMPLE, "not JSON"),
        (EXAMPLE.replace(b'"model"', b'"runtime"', 1), "twice"),
        (EXAMPLE.replace(b"1,", b"NaN,", 1), "NaN"),
        (EXAMPLE.replace(b"1,", b"1" * 5000 + b",", 1), "too long"),
        (b'{"a":' * 12000, "nested"),
        (b"[" * 60000, "nested"),
        (EXAMPLE + b" " * MAX_MANIFEST_BYTES, "larger than"),
        (EXAMPLE + b"x", "not JSON"),
    ],
)
def test_text_that_is_refused(data: bytes, word: str) -> None:  # [S-1]
    with pytest.raises(ManifestError, match=word):
        parse_manifest(data)


def test_a_message_holds_no_more_than_it_must() -> None:
    with pytest.raises(ManifestError) as refused:
        parse_manifest(changed(metadata__model_name="\x1b[31m" + "x" * 60000))
    assert len(str(refused.value)) < 300
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize("arch", ["any", "aarch64"])
def test_this_machine(arch: str) -> None:  # [L-5]
    check_target(Manifest("d", "1", "m", arch=arch), os="linux", arch="aarch64")


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (Manifest("d", "1", "m", arch="x86_64"), ("linux on x86_64", "linux on aarch64")),
        (Manifest("d", "1", "m", os="windows"), ("windows on any", "linux on aarch64")),
        (Manifest("d", "1", "m", engine="onnx"), ("onnx", "tflite")),
    ],
)
def test_another_machine(manifest: Manifest, words: tuple[str, str]) -> None:  # [L-5]
    with pytest.raises(TargetError) as refused:
        check_target(manifest, os="linux", arch="aarch64")
    for word in words:
        assert word in str(refused.value)
