"""The release tarball: the layout of an Edge Manager release, to the file (docs/release.md). Needs RELEASE_ARCH, a machine whose release is in dist/."""

import hashlib
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

DIST = Path(__file__).resolve().parents[2] / "dist" / os.environ.get("RELEASE_ARCH", "none")
VERSION = (DIST / "VERSION").read_text().strip() if (DIST / "VERSION").exists() else "none"
RELEASE = DIST / f"{VERSION}.tgz"
pytestmark = pytest.mark.skipif(not RELEASE.exists(), reason="RELEASE_ARCH names no machine whose release is in dist/")
EXAMPLE = "docs/examples/ipc_example"
LAYOUT = {
    "bin/sagemaker_edge_agent_binary",
    "bin/sagemaker_edge_agent_client_example",
    "docs/api/agent.proto",
    "docs/attributions/agent.txt",
    "docs/attributions/core.txt",
    "docs/attributions/sbom.cdx.json",
    "docs/metrics.md",
    "docs/metrics/alerts.yml",
    "docs/metrics/dashboard.json",
    *(
        f"{EXAMPLE}/{name}"
        for name in (
            "CMakeLists.txt",
            "sagemaker_edge_client.cc",
            "sagemaker_edge_client.hh",
            "sagemaker_edge_client_example.cc",
            "sagemaker_edge.proto",
            "shm.cc",
            "shm.hh",
            "README.md",
            "street_small.bmp",
        )
    ),
}
DOWNLOAD_BYTES = 28_000_000  # docs/adr/0041-litert-in-the-binaries.md


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    subprocess.run(["tar", "-xzf", RELEASE, "-C", folder], check=True)
    return folder


def test_layout(tree: Path) -> None:
    assert {str(path.relative_to(tree)) for path in tree.rglob("*") if not path.is_dir()} == LAYOUT


def test_checksum() -> None:
    digest, name = (DIST / "sha256_hex.shasum").read_text().split()
    assert name == RELEASE.name
    assert hashlib.sha256(RELEASE.read_bytes()).hexdigest() == digest


def test_its_binary_is_the_one_that_the_other_tests_run(tree: Path) -> None:
    tested = (DIST / "sagemaker_edge_agent_binary").read_bytes()
    assert (tree / "bin/sagemaker_edge_agent_binary").read_bytes() == tested


def test_small_enough_to_download() -> None:
    assert RELEASE.stat().st_size <= DOWNLOAD_BYTES


def test_both_names_are_one_file_for_that_machine(tree: Path) -> None:
    agent, client = (
        tree / "bin" / name for name in ("sagemaker_edge_agent_binary", "sagemaker_edge_agent_client_example")
    )
    assert agent.stat().st_ino == client.stat().st_ino
    machine = {"amd64": b"\x3e\x00", "arm64": b"\xb7\x00"}[DIST.name]
    assert agent.read_bytes()[18:20] == machine


def test_entries_carry_no_trace_of_the_builder() -> None:
    with tarfile.open(RELEASE) as tar:
        members = tar.getmembers()
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "root", "root")}
    assert len({m.mtime for m in members}) == 1
    assert [m.name for m in members] == sorted(m.name for m in members)


@pytest.mark.parametrize(
    ("file", "names"),
    [
        (
            "agent.txt",
            ("numpy", "grpcio", "cryptography", "protobuf", "ai-edge-litert", "boringssl", "xnnpack", "eigen"),
        ),
        ("core.txt", ("python3.11", "openssl", "zlib1g-dev", "libffi-dev", "libstdc++6", "Nuitka runtime")),
    ],
)
def test_attributions_have_each_component_with_a_text(tree: Path, file: str, names: tuple[str, ...]) -> None:
    text = (tree / "docs/attributions" / file).read_text()
    rule = "=" * 100
    sections = text.split(rule)[1:]
    texts = {
        title.split()[0] if title.split()[0] != "Nuitka" else "Nuitka runtime": body
        for title, body in zip(sections[::2], sections[1::2], strict=True)
    }
    assert set(names) <= set(texts)
    assert all(len(body.strip()) > 40 for body in texts.values()), [k for k, v in texts.items() if len(v.strip()) <= 40]


def test_the_bill_of_materials_names_what_is_attributed(tree: Path) -> None:
    attributions = tree / "docs/attributions"
    document = json.loads((attributions / "sbom.cdx.json").read_text())
    assert (document["bomFormat"], document["metadata"]["component"]["version"]) == ("CycloneDX", VERSION)
    listed = {
        line.split()[0]
        for file in ("agent.txt", "core.txt")
        for line in (attributions / file).read_text().partition("=" * 100)[0].splitlines()[1:]
        if line.strip()
    }
    named = {part["name"].split()[0] for part in document["components"]}
    assert named == listed
    assert {"grpcio", "numpy", "openssl", "boringssl"} <= named
    assert (DIST / f"{VERSION}.cdx.json").read_text() == (attributions / "sbom.cdx.json").read_text()


def test_no_bundled_file_needs_a_newer_c_library(tree: Path) -> None:
    shown = subprocess.run(
        ["readelf", "-V", "--wide", tree / "bin/sagemaker_edge_agent_binary"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "GLIBC_" not in shown.stdout  # the start program is static; the build checks what is packed
