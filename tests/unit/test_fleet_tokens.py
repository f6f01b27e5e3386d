"""Operators' keys that are not files: in a PKCS#11 token (SoftHSM2), and in AWS KMS (moto)."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edge.client.main import main
from edge.fleet import tokens
from edge.fleet.files import FolderFiles
from edge.fleet.keys import Keys
from edge.fleet.tokens import TokenError
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import ENVIRONMENT
from tests.fakes.fleet import FLEET, NOW, FleetDevice, Operator
from tests.fakes.kms import KEY, KeyService

MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/pkcs11/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm.so")
PIN = "1234"
# What a token's maker does with a tool: keys 1 to 3. In a process of its own: a PKCS#11 module is loaded once, with what it finds.
MAKE = """
import sys
import pkcs11
from pkcs11.util.ec import encode_named_curve_parameters
token = pkcs11.lib(sys.argv[1]).get_token(token_label="ops")
with token.open(rw=True, user_pin=sys.argv[2]) as session:
    curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
    parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
    for number in (1, 2, 3):
        parameters.generate_keypair(store=True, id=bytes([number]), label=f"key-{number}")
"""


class Shell:
    """`fleet` commands; what they printed as JSON."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.repo, self.keys = str(folder / "repo"), str(folder / "keys")
        self._capsys = capsys

    def __call__(self, word: str, *words: str, code: int = 0) -> Any:
        where = [] if word == "import-key" else [self.repo]
        got = main(["fleet", word, *where, *words, "--keys", self.keys, "--json"])
        said = json.loads(self._capsys.readouterr().out)
        assert got == code, said
        return said


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("SAGEMAKER_EDGE_FLEET_PASSPHRASE", "secret")
    return Shell(tmp_path, capsys)


@pytest.fixture
def module(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """The module of a token "ops" with three keys."""
    pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed")
    found = next((path for path in MODULES if Path(path).exists()), None)
    if found is None or shutil.which("softhsm2-util") is None:
        pytest.skip("softhsm2 is not installed")
    folder = tmp_path_factory.mktemp("token")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
    monkeypatch.setenv(tokens.MODULE, "")  # restored afterwards
    label = ["softhsm2-util", "--init-token", "--free", "--label", "ops", "--pin", PIN, "--so-pin", PIN]
    for words in (label, [sys.executable, "-c", MAKE, found, PIN]):
        subprocess.run(words, check=True, capture_output=True)
    return found


def test_a_token(module: str, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # [F-18]
    """A root key and the fleet's in a token: init, deploy, a key that goes and one that comes; boards need to know nothing."""
    uri = f"pkcs11:token=ops;id=%01?module-path={module}"
    assert shell("import-key", "root-1", uri)["scheme"] == "ecdsa-sha2-nistp256"
    shell("import-key", f"fleet-{FLEET}", uri.replace("%01", "%02"))
    assert "exists already" in shell("import-key", "root-1", uri, code=1)["error"]
    assert (
        "the token asks for its pin: set SAGEMAKER"
        in shell("import-key", "x", uri.replace("%01", "%09"), code=1)["error"]
    )
    assert (
        "No PKCS#11 token found for label other"
        in shell("import-key", "x", uri.replace("ops", "other"), code=1)["error"]
    )
    assert "set SAGEMAKER_EDGE_FLEET_PIN" in shell("init", code=1)["error"]
    monkeypatch.setenv("SAGEMAKER_EDGE_FLEET_PIN", "4321")
    assert "the key root-1 does not sign: PinIncorrect" in shell("init", code=1)["error"]
    monkeypatch.setenv("SAGEMAKER_EDGE_FLEET_PIN", PIN)
    assert "could not find ECDSA key" in shell("import-key", "x", uri.replace("%01", "%09"), code=1)["error"]
    shell("init")
    shell("add-fleet", FLEET)
    names = {path.name for path in Path(shell.keys).iterdir()}
    assert {"root-1.uri", f"fleet-{FLEET}.uri", "root-2.pem"} <= names
    assert not names & {"root-1.pem", f"fleet-{FLEET}.pem"}
    for name in ("root-2", "root-3"):  # two of three must sign: now the token's is one of them
        (Path(shell.keys) / f"{name}.pem").rename(tmp_path / name)
    (tmp_path / "root-2").rename(Path(shell.keys) / "root-2.pem")
    shell("import-key", "root-4", uri.replace("%01", "%03"))
    assert shell("rotate", "root", "--old", "root-1", "--new", "root-4")["keys"] == ["root-4"]
    assert "is one of root's already" in shell("rotate", "root", "--new", "root-4", code=1)["error"]
    shell("timestamp")
    archive = tmp_path / "digits.tar.gz"
    archive.write_bytes(b"digits" * 1000)
    operator = Operator(Path(shell.repo), Path(shell.keys), FakeClock(NOW.timestamp()))
    operator.open = lambda: repository_of(operator)  # type: ignore[method-assign]
    operator.act(lambda repository: repository.publish(archive, "digits", "1.0"))
    operator.deploy("n-1", "1.0")
    operator.clock.set(archive.stat().st_mtime)
    device = FleetDevice(tmp_path / "device", operator)
    assert device.poll()
    assert device.runs == {"digits": "digits/1.0"}


def repository_of(operator: Operator) -> Any:
    from datetime import UTC, datetime

    from edge.fleet.repository import FleetRepository

    keys = Keys(operator.keys, b"secret", lambda secret: PIN)
    return FleetRepository(FolderFiles(operator.folder), keys, datetime.now(UTC))


def test_a_key_service(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:  # [F-18]
    """The online key in AWS KMS: the daily duty needs a role, and no file that could be stolen."""
    pytest.importorskip("boto3")
    service = KeyService()
    service.start()
    try:
        for name, value in {
            **ENVIRONMENT,
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL_KMS": service.url,
        }.items():
            monkeypatch.setenv(name, value)
        shell("import-key", "online", f"awskms:{KEY}")
        assert "NotFoundException" in shell("import-key", "other", "awskms:00000000-1111", code=1)["error"]
        assert (Path(shell.keys) / "online.uri").read_text() == f"awskms:{KEY}\n"
        shell("init")
        shell("timestamp")
        before = (Path(shell.repo) / "metadata/timestamp.json").read_bytes()
        service.allowed = False
        assert "AccessDeniedException" in shell("timestamp", code=1)["error"]
        service.allowed, service.key = True, ec.generate_private_key(ec.SECP256R1())
        assert "1 of the 1 keys of timestamp must sign" in shell("timestamp", code=1)["error"]
        assert (Path(shell.repo) / "metadata/timestamp.json").read_bytes() == before
    finally:
        service.close()


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("root-1", "'root-1' names no key; expected pkcs11:token=LABEL"),
        ("file:///x", "names no key; expected"),
        ("hsm:two?label=ops", "expected hsm:ID?label=LABEL"),
        ("pkcs11:token=ops", "has the id ''; expected one such as id=%02"),
        ("pkcs11:token=ops;id=%02;pin-value=1234", "has 'pin-value'; allowed are token, id and module-path"),
        ("azurekms://elsewhere/keys/k", "names no key"),
        ("gcpkms:projects/p", "need google-cloud-kms beside the agent's source"),
        ("azurekms://v.vault.azure.net/keys/k", "need azure-identity azure-keyvault-keys beside the agent's source"),
    ],
)
def test_uris_that_name_no_key(uri: str, text: str) -> None:  # [F-18]
    with pytest.raises(TokenError) as caught:
        tokens.find(uri, lambda secret: PIN)
    assert text in str(caught.value)


def test_a_signer_that_is_not_installed(tmp_path: Path) -> None:  # [F-18]
    keys = Keys(tmp_path, None)
    made = keys.make("packages")
    (tmp_path / "packages.pem").unlink()
    (tmp_path / "packages.uri").write_text("gcpkms:projects/p/cryptoKeyVersions/1\n")
    with pytest.raises(TokenError, match="need google-cloud-kms"):
        keys.signers([made.keyid])
    (tmp_path / "packages.uri").write_text("nonsense\n")
    with pytest.raises(TokenError, match="'nonsense' names no key"):
        keys.signers([made.keyid])
