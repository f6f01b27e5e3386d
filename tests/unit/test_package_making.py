"""Making packages, the demo CA, and the packaging tool's words."""

import hashlib
import json
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from edge.client.main import main
from edge.errors import ManifestError, PackageError, TrustError
from edge.package.identity import Identity, load_identity, make_demo_ca
from edge.package.making import make_package
from edge.package.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest
from tests.fakes import signing_pki as pki
from tests.fakes.packages import SIGNER, load, trust
from tests.fakes.signing_pki import NOW

MODEL = (Path(__file__).resolve().parents[2] / "demo" / "data" / "digits.tflite").read_bytes()
MANIFEST = Manifest("digits", "1.0", "digits.tflite")
IDENTITY = Identity(SIGNER.key, SIGNER.chain)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "digits.tflite").write_bytes(MODEL)
    return tmp_path / "digits.tflite"


@pytest.mark.parametrize("out", ["digits-1.0", "digits-1.0.tar.gz", "digits-1.0.tgz"])
def test_what_is_made_loads(tmp_path: Path, model: Path, out: str) -> None:  # [S-7]
    labels = tmp_path / "labels.txt"
    labels.write_text("zero")
    make_package(MANIFEST, model, [labels], IDENTITY, tmp_path / out)
    with load(tmp_path / out, trust(tmp_path)) as package:
        assert package.manifest == MANIFEST
        assert set(package.verified.digests) == {MANIFEST_FILE, "digits.tflite", "labels.txt"}
        assert Path(f"/proc/self/fd/{package.model_fd}").read_bytes() == MODEL
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_modes_do_not_depend_on_the_umask(tmp_path: Path, model: Path) -> None:
    before = os.umask(0o077)
    try:
        make_package(MANIFEST, model, [], IDENTITY, tmp_path / "p")
        make_package(MANIFEST, model, [], IDENTITY, tmp_path / "p.tar.gz")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "p").stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "p").iterdir()} == {0o644}
    assert stat.S_IMODE((tmp_path / "p.tar.gz").stat().st_mode) == 0o644


def test_archives_are_the_same_each_time(tmp_path: Path, model: Path) -> None:
    """All but the signature, for ECDSA takes a random number; RSA does not."""
    signer = pki.signer(pki.root(), kind="rsa3072")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        make_package(MANIFEST, model, [], Identity(signer.key, signer.chain), tmp_path / folder / "digits-1.0.tar.gz")
        os.utime(model, (1, 1))
    first, second = (hashlib.sha256((tmp_path / f / "digits-1.0.tar.gz").read_bytes()).digest() for f in ("a", "b"))
    assert first == second
    with tarfile.open(tmp_path / "a" / "digits-1.0.tar.gz") as archive:
        assert archive.getnames() == [SIGNATURE_FILE, MANIFEST_FILE, "digits.tflite"]


@pytest.mark.parametrize("out", ["p", "p.tar.gz"])
def test_nothing_is_overwritten(tmp_path: Path, model: Path, out: str) -> None:
    (tmp_path / out).symlink_to("nowhere")
    with pytest.raises(PackageError, match="exists already"):
        make_package(MANIFEST, model, [], IDENTITY, tmp_path / out)
    assert (tmp_path / out).is_symlink()


@pytest.mark.parametrize("out", ["p", "p.tar.gz"])
def test_a_failure_leaves_nothing(tmp_path: Path, model: Path, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PackageError, match="cannot be written: No space left"):
        make_package(MANIFEST, model, [], IDENTITY, tmp_path / out)
    assert sorted(tmp_path.iterdir()) == before


def test_names_that_are_taken(tmp_path: Path, model: Path) -> None:
    for name in (SIGNATURE_FILE, MANIFEST_FILE, "digits.tflite"):
        with pytest.raises(PackageError, match="twice"):
            make_package(MANIFEST, model, [tmp_path / "x" / name], IDENTITY, tmp_path / "p")


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"no\.tflite cannot be read: No such file"):
        make_package(MANIFEST, tmp_path / "no.tflite", [], IDENTITY, tmp_path / "p")


def test_a_manifest_that_would_not_be_read(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ManifestError, match="model_name"):
        make_package(Manifest("a/b", "1", "digits.tflite"), model, [], IDENTITY, tmp_path / "p")


# --- identities --------------------------------------------------------------


def test_an_identity_with_its_chain(tmp_path: Path) -> None:
    middle = pki.intermediate(pki.root())
    signer = pki.signer(middle)
    key, certificate = signer.write(tmp_path, "signing")
    (tmp_path / "chain.pem").write_bytes(middle.pem + signer.pem)
    assert load_identity(key, certificate, tmp_path / "chain.pem").chain == signer.chain


def test_a_key_with_a_password(tmp_path: Path) -> None:
    key, certificate = SIGNER.write(tmp_path, "signing")
    key.write_bytes(
        SIGNER.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    assert load_identity(key, certificate, None, b"secret").chain == SIGNER.chain
    for password in (None, b"wrong"):
        with pytest.raises(PackageError, match="password is missing or wrong"):
            load_identity(key, certificate, None, password)


def test_identities_that_are_refused(tmp_path: Path) -> None:
    key, certificate = SIGNER.write(tmp_path, "signing")
    other_key, _ = pki.root("x", number=30).write(tmp_path, "other")
    server = pki.signer(pki.root(), purposes=(pki.SERVER_AUTH,)).write(tmp_path, "server")
    edwards = pki.signer(pki.root(), kind="ed25519").write(tmp_path, "ed")
    with pytest.raises(PackageError, match="is not that of the certificate"):
        load_identity(other_key, certificate, None)
    with pytest.raises(TrustError, match="codeSigning"):
        load_identity(*server, None)
    with pytest.raises(PackageError, match="not supported; use ECDSA"):
        load_identity(*edwards, None)
    with pytest.raises(PackageError, match="not a certificate"):
        load_identity(key, key, None)
    with pytest.raises(PackageError, match="not a private key"):
        load_identity(certificate, certificate, None)
    with pytest.raises(PackageError, match="cannot be read"):
        load_identity(tmp_path / "no", certificate, None)


def test_demo_ca(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files = make_demo_ca(tmp_path / "new" / "ca", NOW)
    finally:
        os.umask(before)
    modes = {str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {
        "new": 0o777,
        "new/ca": 0o755,
        "new/ca/signing.key": 0o600,
        "new/ca/signing.pem": 0o644,
        "new/ca/roots": 0o755,
        "new/ca/roots/demo-root.pem": 0o444,
    }
    identity = load_identity(files.key, files.certificate, None)
    assert "DEMO" in identity.chain[0].subject.rfc4514_string()
    assert "DEMO" in identity.chain[0].issuer.rfc4514_string()
    with pytest.raises(PackageError, match="exists already"):
        make_demo_ca(tmp_path / "new" / "ca", NOW)


# --- the words ---------------------------------------------------------------

Run = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> tuple[int, Any, str]:
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, json.loads(out) if "--json" in words else out, err

    return run


def test_from_nothing_to_a_verified_package(tmp_path: Path, model: Path, run: Run) -> None:
    code, made, _ = run("demo-ca", tmp_path / "ca", "--json")
    assert code == 0
    words = (
        "--model",
        model,
        "--name",
        "digits",
        "--version",
        "1.0",
        "--key",
        made["key"],
        "--cert",
        made["certificate"],
    )
    code, packed, _ = run(
        "package", *words, "--out", tmp_path / "p.tar.gz", "--arch", "aarch64", "--threads", 2, "--instances", 3,
        "--delegate", "/usr/lib/libd.so", "--extra", tmp_path / "ca/signing.pem", "--json",
    )  # fmt: skip
    assert (code, packed["ok"], packed["model_name"]) == (0, True, "digits")
    code, found, _ = run("verify", tmp_path / "p.tar.gz", "--trust", made["roots"], "--json")
    assert code == 0
    assert found["target"] == {"os": "linux", "arch": "aarch64"}
    assert found["files"]["digits.tflite"] == hashlib.sha256(MODEL).hexdigest()
    assert set(found["files"]) == {MANIFEST_FILE, "digits.tflite", "signing.pem"}
    code, text, _ = run("verify", f"file://{tmp_path}/p.tar.gz", "--trust", made["roots"])
    assert code == 0
    assert "good" in text
    assert "DEMO SIGNER" in text


def test_refusals_have_exit_codes(tmp_path: Path, model: Path, run: Run) -> None:
    run("demo-ca", tmp_path / "ca")
    run("demo-ca", tmp_path / "other")
    words = (
        "--model", model, "--name", "digits", "--version", "1", "--out", tmp_path / "p",
        "--key", tmp_path / "ca/signing.key", "--cert", tmp_path / "ca/signing.pem",
    )  # fmt: skip
    assert run("package", *words)[0] == 0
    code, _, err = run("package", *words)
    assert (code, "exists already" in err, "Traceback" in err) == (2, True, False)
    assert "load it, or name another" in err
    code, _, err = run("demo-ca", tmp_path / "ca")
    assert code == 2 and f"which can be used: --key {tmp_path}/ca/signing.key" in err
    code, _, err = run("package", *words[:8], *words[8:9], "nope", *words[10:])
    assert (code, "--key nope cannot be read" in err) == (2, True)
    code, _, err = run("verify", tmp_path / "p", "--trust", tmp_path / "other/roots")
    assert (code, "not trusted" in err) == (1, True)
    code, said, _ = run("verify", tmp_path / "p", "--trust", tmp_path / "other/roots", "--json")
    assert (code, said["ok"], said["kind"]) == (1, False, "TrustError")
    code, _, err = run("verify", tmp_path / "none", "--trust", tmp_path / "ca/roots")
    assert (code, "there is no package" in err) == (2, True)
    (tmp_path / "p/digits.tflite").write_bytes(b"x")
    code, _, err = run("verify", tmp_path / "p", "--trust", tmp_path / "ca/roots")
    assert (code, "was altered" in err) == (1, True)
    code, _, err = run("package", *words[:2], "--name", "../x", *words[4:7], tmp_path / "q", *words[8:])
    assert (code, "model_name" in err) == (2, True)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("m.onnx", b"\x08\x09\x12\x07pytorch", "not a TensorFlow Lite model; convert it by onnx2tf"),
        ("m.keras", b"PK\x03\x04" + bytes(100), "convert it by tf.lite.TFLiteConverter.from_keras_model"),
        ("m.tflite", b"", "is empty"),
        ("m.tflite", b"TF", "not a TensorFlow Lite model"),
        ("m.tflite", MODEL[: len(MODEL) // 2], "it is damaged ("),
    ],
)
def test_what_is_no_model_is_not_signed(
    tmp_path: Path, run: Run, name: str, content: bytes, told: str
) -> None:  # [S-7]
    run("demo-ca", tmp_path / "ca")
    (tmp_path / name).write_bytes(content)
    words = (
        "--name",
        "m",
        "--version",
        "1",
        "--key",
        tmp_path / "ca/signing.key",
        "--cert",
        tmp_path / "ca/signing.pem",
    )
    code, _, err = run("package", "--model", tmp_path / name, *words, "--out", tmp_path / "p")
    assert (code, told in err, f"{tmp_path}/{name}" in err) == (2, True, True), err
    assert not (tmp_path / "p").exists()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    code, _, err = run("package", "--model", tmp_path / "saved", *words, "--out", tmp_path / "p")
    assert (code, "TFLiteConverter.from_saved_model" in err) == (2, True)


def test_verify_names_its_roots(tmp_path: Path, model: Path, run: Run) -> None:
    run("demo-ca", tmp_path / "ca")
    run(
        "package", "--model", model, "--name", "m", "--version", "1", "--key", tmp_path / "ca/signing.key",
        "--cert", tmp_path / "ca/signing.pem", "--out", tmp_path / "p",
    )  # fmt: skip
    code, _, err = run("verify", tmp_path / "p", "--trust", tmp_path / "none")
    assert (code, f"those in {tmp_path}/none; --trust DIR names another folder" in err) == (1, True)
    (tmp_path / "ca/roots").chmod(0o777)
    code, _, err = run("verify", tmp_path / "p", "--trust", tmp_path / "ca/roots")
    assert (code, "others could change which roots are trusted; run: chmod go-w" in err) == (1, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--trial-seconds 0", "argument --trial-seconds: '0' is not allowed; expected a whole number, 1 or more"),
        ("--trial-seconds -5", "argument --trial-seconds: "),
        ("--threads 0", "argument --threads: '0' is not allowed"),
        ("--sample image=", "'image=' is neither an .npz nor INPUT=1,224,224,3"),
        ("--sample image=1,,3", "is neither"),
        ("--sample image=1,-1", "is neither"),
        ("--sample picture=1,8,8,1", "names 'picture', which is no input of the model"),
        ("--adapter ADAPTER", "adapts 'picture' of inputs, which is none of the model's"),
        ("--adapter COMMA", "line 1, column 14: a comma after the last entry"),
    ],
)
def test_what_no_agent_would_take_is_not_signed(
    tmp_path: Path, model: Path, run: Run, capsys: pytest.CaptureFixture[str], words: str, told: str
) -> None:  # [S-7] [S-9]
    (tmp_path / "ADAPTER").write_text('{"inputs": [{"name": "picture", "as": "FLOAT64"}]}')
    (tmp_path / "COMMA").write_text('{"inputs": [],}')
    run("demo-ca", tmp_path / "ca")
    given = [str(tmp_path / word) if word.isupper() else word for word in words.split()]
    try:
        code, _, err = run(
            "package", "--model", model, "--name", "m", "--version", "1", "--out", tmp_path / "p",
            "--key", tmp_path / "ca/signing.key", "--cert", tmp_path / "ca/signing.pem", *given,
        )  # fmt: skip
    except SystemExit as ended:
        code, err = int(str(ended.code)), capsys.readouterr().err
    assert (code, told in err, (tmp_path / "p").exists()) == (2, True, False), err


@pytest.mark.parametrize("command", ["package", "verify", "demo-ca"])
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 12
