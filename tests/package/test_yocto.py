"""The Yocto layer as far as it can be checked without BitBake; yocto/check/check.py is for the rest.

Each test that takes a release runs on a small stand-in of the same layout, and on the tarballs in dist/ once they are built.
"""

import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from edge.clock import SystemClock
from edge.package.open import open_package

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "yocto"))
import release as layer_release  # noqa: E402

LAYER = layer_release.LAYER
RECIPES = LAYER / "recipes-edge"
DEMO = RECIPES / "sagemaker-edge-agent-demo/files"
DIST = Path(os.environ.get("RELEASES", TOP / "dist"))
ARCHES = ("arm64", "amd64")
STAND_IN_VERSION = "0.20260101.0abcdef"
VERSION_FORM = re.compile(r"\d+\.\d{8}\.[0-9a-f]{7}")
ELF = b"\x7fELF"


@dataclasses.dataclass(frozen=True)
class Release:
    """The tarball of each architecture, and a copy of the layer that was brought up to them."""

    tarballs: dict[str, Path]
    layer: Path

    @property
    def recipe(self) -> Path:
        [recipe] = (self.layer / "recipes-edge/sagemaker-edge-agent").glob("*.bb")
        return recipe


def _stand_in(folder: Path, arch: str) -> Path:
    """A release tarball of the true layout around a program of three files; one is a true library with a soname."""
    library = next((TOP / ".venv").glob("lib/python*/site-packages/numpy.libs/*.so*"))
    tree = {"sagemaker_edge_agent": b"#!/bin/sh\n", library.name: library.read_bytes(), "edge/data.txt": b"data"}
    payload = io.BytesIO()
    with tarfile.open(fileobj=payload, mode="w") as tar:
        for name, data in tree.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755 if data.startswith(b"#!") else 0o644
            tar.addfile(member, io.BytesIO(data))
    packed = subprocess.run(["zstd", "-q", "-c"], input=payload.getvalue(), stdout=subprocess.PIPE, check=True).stdout
    launcher = ELF + arch.encode() + b"\n" * 333
    trailer = f"sagemaker-edge-payload-1 {len(launcher)} {len(packed)} {len(payload.getvalue())} {'0' * 32}"
    root = folder / arch / "tree"
    files = {
        "bin/sagemaker_edge_agent_binary": launcher + packed + f"{trailer:<127}\n".encode(),
        "docs/api/agent.proto": b'syntax = "proto3";\n',
        "docs/attributions/agent.txt": b"Apache-2.0\n",
        "docs/attributions/core.txt": b"what is bundled\n",
        "docs/examples/ipc_example/README.md": b"# Example\n",
    }
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "bin/sagemaker_edge_agent_client_example").symlink_to("sagemaker_edge_agent_binary")
    tarball = folder / arch / f"{STAND_IN_VERSION}.tgz"
    with tarfile.open(tarball, "w:gz") as tar:
        tar.add(root, ".")
    return tarball


@pytest.fixture(scope="module", params=["stand-in", "dist"])
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder = tmp_path_factory.mktemp("release")
    if request.param == "dist":
        if not all(list((DIST / arch).glob("*.tgz")) for arch in ARCHES):
            pytest.skip("needs the release tarballs of both architectures: make tarball ARCH=arm64, ARCH=amd64")
        tarballs = layer_release.find_tarballs(DIST)
    else:
        tarballs = {arch: _stand_in(folder, arch) for arch in ARCHES}
    layer = Path(shutil.copytree(LAYER, folder / "layer"))
    layer_release.write_recipe(layer, tarballs)
    return Release(tarballs, layer)


@pytest.fixture(scope="session")
def tools() -> Path:
    """The Python that has oelint-parser."""
    subprocess.run(["make", "-s", "build/yocto/venv/.ready"], cwd=TOP, check=True, capture_output=True)
    return TOP / "build/yocto/venv/bin/python"


def read_recipe(tools: Path, recipe: Path, arch: str, *install: Path) -> dict[str, Any]:
    command = [tools, TOP / "yocto/recipe.py", recipe, "--arch", arch]
    if install:
        command += ["--install", *install]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


def unpack(recipe: Path, variables: dict[str, str], folder: Path, tarball: Path | None = None) -> Path:
    """Does what do_fetch and do_unpack do with SRC_URI, below `folder`; returns S."""
    for entry in variables["SRC_URI"].split():
        uri, *words = entry.split(";")
        options = dict(word.split("=") for word in words)
        target = folder / options.get("subdir", "")
        target.mkdir(parents=True, exist_ok=True)
        if uri.startswith("file://"):
            source = recipe.parent / "files" / uri.removeprefix("file://")
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, target / source.name)
        else:
            assert tarball and uri.endswith(f"/{tarball.parent.name}/{tarball.name}")
            subprocess.run(["tar", "-xzf", tarball, "-C", target], check=True)
    return folder / variables["BP"]


def install(tools: Path, recipe: Path, arch: str, folder: Path, tarball: Path | None = None) -> Path:
    """The tree that do_install makes."""
    variables = read_recipe(tools, recipe, arch)["variables"]
    source = unpack(recipe, variables, folder / "work", tarball)
    read_recipe(tools, recipe, arch, source, folder / "image")
    return folder / "image"


def listing(tree: Path) -> dict[str, str]:
    """Every file and link below `tree`: what it is, its mode and its content; directories by being somebody's parent."""
    found = {}
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_file():
            found[name] = f"{path.stat().st_mode & 0o7777:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return found


# --- the layer itself ---


def test_copies_are_those_of_packaging() -> None:
    assert layer_release.out_of_date(LAYER) == []


def test_the_layer_names_one_released_version() -> None:
    recipes = list((RECIPES / "sagemaker-edge-agent").glob("*.bb"))
    assert len(recipes) == 1, "make yocto-release writes it from the tarballs"
    [recipe] = recipes
    assert VERSION_FORM.fullmatch(recipe.stem.split("_")[1])


@pytest.mark.parametrize("recipe", ["sagemaker-edge-agent-conf_1.0.bb", "sagemaker-edge-agent-demo_1.0.bb"])
def test_recipes_of_files_install_all_of_them(tools: Path, tmp_path: Path, recipe: str) -> None:
    path = next(RECIPES.rglob(recipe))
    installed = {Path(name).name for name in listing(install(tools, path, "arm64", tmp_path))}
    carried = {file.name for file in (path.parent / "files").rglob("*") if file.is_file()}
    assert installed == carried - {"trust-README"} | ({"README"} if "trust-README" in carried else set())


def test_integrators_roots_are_installed_as_the_agent_wants_them(tools: Path, tmp_path: Path) -> None:
    recipe = next(RECIPES.rglob("sagemaker-edge-agent-conf_1.0.bb"))
    variables = read_recipe(tools, recipe, "arm64")["variables"]
    source = unpack(recipe, variables, tmp_path / "work")
    (source / "ours.pem").write_text("a certificate")
    read_recipe(tools, recipe, "arm64", source, tmp_path / "image")
    root = tmp_path / "image/etc/sagemaker-edge-agent/trust/ours.pem"
    assert root.stat().st_mode & 0o7777 == 0o444  # [S-4]


def test_kas_files_name_series_of_the_layer_and_files_that_exist() -> None:
    series = re.search(r'LAYERSERIES_COMPAT_\S+ = "(.+)"', (LAYER / "conf/layer.conf").read_text())
    assert series
    assert {file.stem for file in (LAYER / "kas").glob("*.yml")} == {*series[1].split(), "sagemaker-edge-image"}
    for name in series[1].split():
        described = yaml.safe_load((LAYER / f"kas/{name}.yml").read_text())
        assert described["repos"]["openembedded-core"]["branch"] == name
        [included] = described["header"]["includes"]
        common = yaml.safe_load((TOP / included).read_text())
        [path] = common["repos"]["meta-sagemaker-edge-agent"]["layers"]
        assert (TOP / path / "conf/layer.conf").is_file()


def test_accounts_are_those_of_sysusers(tools: Path, release: Release) -> None:
    variables = read_recipe(tools, release.recipe, "arm64")["variables"]
    lines = (TOP / "packaging/systemd/sagemaker-edge-agent.sysusers").read_text().splitlines()
    entries = [re.findall(r'"[^"]*"|\S+', line) for line in lines if line and not line.startswith("#")]
    [user] = [entry for entry in entries if entry[0] == "u"]
    groups = {entry[1] for entry in entries if entry[0] in ("u", "g")}
    memberships = {entry[2] for entry in entries if entry[0] == "m" and entry[1] == user[1]}
    added = variables["USERADD_PARAM:sagemaker-edge-agent"].split()
    assert added[-1] == user[1]
    assert added[added.index("--home-dir") + 1 :: 2][:2] == user[4:6]
    assert set(added[added.index("--groups") + 1].split(",")) == memberships
    assert {words.split()[-1] for words in variables["GROUPADD_PARAM:sagemaker-edge-agent"].split(";")} == groups


# --- the demo package ---


def test_the_demo_package_verifies_and_outlives_devices(tmp_path: Path) -> None:
    root = tmp_path / "trust/demo-root.pem"
    root.parent.mkdir()
    shutil.copy(DEMO / root.name, root)
    root.chmod(0o444)
    clock = SystemClock()
    with open_package(str(DEMO / "digits.tar.gz"), trust_dir=root.parent, clock=clock, build_date=0) as package:
        assert package.manifest.model_name == "digits"
        assert package.verified.expires > datetime.now(UTC) + timedelta(days=10 * 365)
        model = Path(f"/proc/self/fd/{package.model_fd}").read_bytes()
    assert model == (TOP / "demo/data/digits.tflite").read_bytes()
    assert "DEMO" in x509.load_pem_x509_certificate(root.read_bytes()).subject.rfc4514_string()


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for PATH with the agent under the names that the package installs."""
    command = os.environ.get("AGENT_COMMAND")
    for name in ("sagemaker-edge-agent", "sagemaker_edge_agent_client_example"):
        start = f"import sys; sys.argv[0] = '{name}'; sys.path.insert(0, '{TOP}'); from edge.cli import main; sys.exit(main())"
        line = f'exec -a {name} {command} "$@"' if command else f'exec {sys.executable} -c "{start}" "$@"'
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def test_run_ptest_passes(tools: Path, tmp_path: Path, programs: Path) -> None:
    image = install(tools, next(RECIPES.rglob("*-demo_1.0.bb")), "arm64", tmp_path)
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SAGEMAKER_EDGE_DEMO": str(image / "usr/share/sagemaker-edge-agent/demo"),
    }
    script = RECIPES / "sagemaker-edge-agent/files/run-ptest"
    done = subprocess.run(["sh", script], env=environment, capture_output=True, text=True, check=True)
    verdicts = re.findall(r"^(PASS|FAIL): (\S+)$", done.stdout, re.M)
    assert len(verdicts) == 10, done.stdout
    assert {verdict for verdict, _ in verdicts} == {"PASS"}, done.stdout


# --- the recipe of a release ---


@pytest.mark.parametrize("arch", ARCHES)
def test_sums_are_those_of_the_tarball(tools: Path, release: Release, tmp_path: Path, arch: str) -> None:
    parsed = read_recipe(tools, release.recipe, arch)
    tarball = release.tarballs[arch]
    assert parsed["flags"][f"SRC_URI[{arch}.sha256sum]"] == hashlib.sha256(tarball.read_bytes()).hexdigest()
    assert parsed["variables"]["PV"] == tarball.stem
    source = unpack(release.recipe, parsed["variables"], tmp_path, tarball)
    licences = re.findall(r"file://(\S+);md5=(\w+)", parsed["variables"]["LIC_FILES_CHKSUM"])
    assert {name for name, _ in licences} == set(layer_release.LICENCES)
    for name, md5 in licences:
        assert hashlib.md5((source / name).read_bytes()).hexdigest() == md5


def _sonames(tree: Path) -> Iterator[str]:
    for file in tree.rglob("*"):
        if file.is_file() and file.open("rb").read(4) == ELF:
            text = subprocess.run(["readelf", "--dynamic", file], capture_output=True, text=True, check=False).stdout
            yield from re.findall(r"\(SONAME\).*\[(.+)\]", text)


@pytest.mark.parametrize("arch", ARCHES)
def test_the_program_is_installed_as_it_was_released(tools: Path, release: Release, tmp_path: Path, arch: str) -> None:
    image = install(tools, release.recipe, arch, tmp_path, release.tarballs[arch])
    program = image / "usr/lib/sagemaker-edge-agent/sagemaker_edge_agent"
    assert os.access(program, os.X_OK)
    for name in ("sagemaker-edge-agent", "sagemaker_edge_agent_binary", "sagemaker_edge_agent_client_example"):
        assert (image / "usr/bin" / name).resolve() == program.resolve()
    unit = (image / "lib/systemd/system/sagemaker-edge-agent.service").read_text()
    started = re.search(r"^ExecStart=(\S+)", unit, re.M)
    assert started
    assert (image / started[1].lstrip("/")).exists()
    writable = [path for path in image.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022]
    assert writable == []
    private = read_recipe(tools, release.recipe, arch)["variables"]["PRIVATE_LIBS:sagemaker-edge-agent"].split()
    assert set(_sonames(image)) <= set(private)
    assert "@" not in "".join(
        page.read_text() for page in (image / "usr/share/man").rglob("*.8") if not page.is_symlink()
    )


def _debian_tree(arch: str, version: str, folder: Path) -> Path:
    packages = sorted(DIST.rglob(f"sagemaker-edge-agent_{version}*_{arch}.deb"))
    if not packages:
        pytest.skip(f"needs the package of this release: make deb ARCH={arch}")
    subprocess.run(["dpkg-deb", "--extract", packages[-1], folder], check=True)
    return folder


def _comparable(tree: dict[str, str]) -> dict[str, str]:
    """Without what is each system's own: compression of manual pages, place of units, Debian's changelog and copyright."""
    own = re.compile(
        r"usr/share/doc/sagemaker-edge-agent/(changelog.*|copyright)|usr/share/(lintian|bash-completion|zsh)/.*"
    )
    result = {}
    for name, what in tree.items():
        common = re.sub(r"^lib/", "usr/lib/", name)
        page = common.startswith("usr/share/man/")
        if not own.fullmatch(common):
            result[common.removesuffix(".gz") if page else common] = "a manual page" if page else what
    return result


@pytest.mark.parametrize("arch", ARCHES)
def test_the_same_files_as_in_the_debian_package(tools: Path, release: Release, tmp_path: Path, arch: str) -> None:
    debian = _comparable(listing(_debian_tree(arch, release.recipe.stem.split("_")[1], tmp_path / "deb")))
    agent = install(tools, release.recipe, arch, tmp_path / "agent", release.tarballs[arch])
    conf = install(tools, next(RECIPES.rglob("*-conf_1.0.bb")), arch, tmp_path / "conf")
    yocto = _comparable(listing(agent) | listing(conf))
    assert sorted(yocto) == sorted(debian)
    assert yocto == debian
