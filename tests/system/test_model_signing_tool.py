"""Packages go both ways between the agent and OpenSSF's public tool `model_signing` (S-2)."""

import contextlib
import datetime
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.package.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest, format_manifest
from tests.fakes import model_signing
from tests.fakes import signing_pki as pki
from tests.fakes.signing_pki import DAY, Holder
from tests.system.conftest import MODELS, good_config, run_tool
from tests.system.harness import AgentProcess, Client

CURVES = ["p256", "p384", "p521"]
LIFE = {
    "since": datetime.datetime.now(datetime.UTC) - DAY,
    "until": datetime.datetime.now(datetime.UTC) + 30 * DAY,
}
ROOT = pki.root("tool test root", number=50, **LIFE)
MIDDLE = pki.intermediate(ROOT, "tool test intermediate", number=51, **LIFE)
Refused = Callable[..., contextlib.AbstractContextManager[Any]]


@pytest.fixture(scope="session")
def tool() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs the public tool; a set-up that fails fails the tests."""
    model_signing.install()
    return model_signing.run


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """An agent that trusts ROOT."""
    folder = tmp_path_factory.mktemp("trusting")
    made = AgentProcess(folder, good_config(folder, pki.trust_folder(folder / "roots", ROOT), {})).start()
    yield made
    assert made.stop() == 0, made.log


@pytest.fixture
def loading(trusting: AgentProcess) -> Iterator[Client]:
    """A client of that agent; what it loaded is unloaded."""
    yield trusting.client
    for model in trusting.client.models():
        trusting.client.unload(model.name)


@pytest.fixture
def unsigned(tmp_path: Path) -> Path:
    """A folder with a model, another file below, and the manifest."""
    folder = tmp_path / "add-one-1.0"
    (folder / "notes").mkdir(parents=True)
    shutil.copy(MODELS / "add_one.tflite", folder)
    (folder / "notes" / "read me.txt").write_text("adds one")
    (folder / MANIFEST_FILE).write_bytes(format_manifest(Manifest("add-one", "1.0", "add_one.tflite")))
    return folder


def sign(tool: Any, folder: Path, signer: Holder, files: Path, *words: object, chain: bytes = ROOT.pem) -> None:
    """Sign a folder with the public tool, which demands some chain."""
    key, certificate = signer.write(files, "signing")
    (files / "chain.pem").write_bytes(chain)
    done = tool(
        "sign", "certificate", folder, "--private_key", key, "--signing_certificate", certificate,
        "--certificate_chain", files / "chain.pem", "--signature", folder / SIGNATURE_FILE, *words,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def tool_verifies(tool: Any, folder: Path, root: Path) -> bool:
    done = tool("verify", "certificate", folder, "--signature", folder / SIGNATURE_FILE, "--certificate_chain", root)
    return bool(done.returncode == 0)


@pytest.mark.parametrize("kind", CURVES)
def test_what_the_tool_signs_the_agent_loads(
    tool: Any, loading: Client, unsigned: Path, tmp_path: Path, kind: str
) -> None:  # [S-2] [S-3]
    sign(tool, unsigned, pki.signer(ROOT, kind=kind, **LIFE), tmp_path)
    assert loading.load(unsigned, "add").name == "add"


@pytest.mark.parametrize("with_root", [False, True])
def test_with_an_intermediate(
    tool: Any, loading: Client, unsigned: Path, tmp_path: Path, with_root: bool
) -> None:  # [S-3]
    sign(tool, unsigned, pki.signer(MIDDLE, **LIFE), tmp_path, chain=MIDDLE.pem + (ROOT.pem if with_root else b""))
    assert loading.load(unsigned, "add").name == "add"


def test_packed_by_tar(tool: Any, loading: Client, unsigned: Path, tmp_path: Path) -> None:
    sign(tool, unsigned, pki.signer(ROOT, **LIFE), tmp_path)
    subprocess.run(["tar", "-czf", "p.tar.gz", unsigned.name], cwd=tmp_path, check=True)
    assert loading.load(tmp_path / "p.tar.gz", "add").name == "add"


@pytest.mark.parametrize("name", ["add_one.tflite", MANIFEST_FILE, "notes/read me.txt", SIGNATURE_FILE])
def test_both_refuse_a_flipped_byte(
    tool: Any, loading: Client, unsigned: Path, tmp_path: Path, refused: Refused, name: str
) -> None:  # [S-5]
    sign(tool, unsigned, pki.signer(ROOT, **LIFE), tmp_path)
    data = bytearray((unsigned / name).read_bytes())
    data[-200 if name == SIGNATURE_FILE else len(data) // 2] ^= 1
    (unsigned / name).write_bytes(data)
    with refused("FAILED_PRECONDITION"):
        loading.load(unsigned, "add")
    (tmp_path / "root.pem").write_bytes(ROOT.pem)
    assert not tool_verifies(tool, unsigned, tmp_path / "root.pem")


def test_what_the_tool_leaves_out_the_agent_refuses(
    tool: Any, loading: Client, unsigned: Path, tmp_path: Path, refused: Refused
) -> None:  # [S-5]
    """The tool skips git's files and what it is told to; in a package every file is signed."""
    (unsigned / ".gitignore").write_text("*.tmp")
    sign(tool, unsigned, pki.signer(ROOT, **LIFE), tmp_path)
    with refused("FAILED_PRECONDITION", ".gitignore", "not signed"):
        loading.load(unsigned, "add")
    (unsigned / ".gitignore").unlink()
    sign(tool, unsigned, pki.signer(ROOT, **LIFE), tmp_path, "--ignore-paths", unsigned / "notes")
    with refused("FAILED_PRECONDITION", "notes/read me.txt", "not signed"):
        loading.load(unsigned, "add")


def test_a_bare_key_is_nobody(
    tool: Any, loading: Client, unsigned: Path, tmp_path: Path, refused: Refused
) -> None:  # [S-3]
    key, _ = pki.signer(ROOT, **LIFE).write(tmp_path, "signing")
    done = tool("sign", "key", unsigned, "--private_key", key, "--signature", unsigned / SIGNATURE_FILE)
    assert done.returncode == 0, done.stderr
    with refused("FAILED_PRECONDITION", "bare key"):
        loading.load(unsigned, "add")


BAD_SIGNERS: dict[str, tuple[dict[str, Any], str]] = {
    "other purpose": ({"purposes": (pki.SERVER_AUTH,)}, "codeSigning"),
    "no digitalSignature": ({"usages": ("key_agreement",)}, "digitalSignature"),
    # So long ago that a clock that is not synchronised, judged as of the build, does not save it.
    "expired": (
        {"since": datetime.datetime(2019, 1, 1, tzinfo=datetime.UTC), "until": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)},
        "expired",
    ),
    "untrusted": ({"root": pki.root("nobody", number=52, **LIFE)}, "not trusted"),
}  # fmt: skip


@pytest.mark.parametrize("why", BAD_SIGNERS)
def test_signers_that_are_refused(
    tool: Any, loading: Client, unsigned: Path, tmp_path: Path, refused: Refused, why: str
) -> None:  # [S-3] [L-4]
    options, word = BAD_SIGNERS[why]
    options = {**LIFE, **options}
    root = options.pop("root", ROOT)
    sign(tool, unsigned, pki.signer(root, **options), tmp_path, chain=root.pem)
    with refused("FAILED_PRECONDITION", word):
        loading.load(unsigned, "add")
    assert not loading.models()


@pytest.mark.parametrize("kind", CURVES)
def test_what_we_sign_the_tool_verifies(tool: Any, tmp_path: Path, kind: str) -> None:  # [S-2] [S-7]
    signer = pki.signer(MIDDLE, kind=kind, **LIFE)
    key, certificate = signer.write(tmp_path, "signing")
    (tmp_path / "chain.pem").write_bytes(MIDDLE.pem)
    (tmp_path / "root.pem").write_bytes(ROOT.pem)
    (tmp_path / "labels ä.txt").write_text("one")
    package = tmp_path / "p"
    run_tool(
        "package", "--model", str(MODELS / "add_one.tflite"), "--name", "add-one", "--version", "1.0",
        "--key", str(key), "--cert", str(certificate), "--chain", str(tmp_path / "chain.pem"),
        "--extra", str(tmp_path / "labels ä.txt"), "--out", str(package),
    )  # fmt: skip
    assert tool_verifies(tool, package, tmp_path / "root.pem")
    (package / "labels ä.txt").write_text("two")
    assert not tool_verifies(tool, package, tmp_path / "root.pem")


def test_the_demo_ca_is_good_for_the_tool(tool: Any, digits: Path, signer: Any) -> None:  # [S-7]
    assert tool_verifies(tool, digits, signer.roots / "demo-root.pem")
