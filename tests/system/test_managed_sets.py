"""`models set` of several aliases, and into an image (W-9, M-12)."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import Signer, run_tool
from tests.system.harness import client_command
from tests.system.managed import Site, adder

CONFIG = {
    "sagemaker_edge_core_device_name": "image",
    "sagemaker_edge_core_device_fleet_name": "fleet",
    "sagemaker_edge_core_region": "us-west-2",
    "sagemaker_edge_core_root_certs_path": "/etc/roots",
    "sagemaker_edge_core_capture_data_destination": "Disk",
    "sagemaker_edge_core_capture_data_disk_path": "/var/captures",
}


@pytest.fixture
def site(agents: Any, tmp_path: Path) -> Site:
    """An agent, not yet started, with an empty folder of declarations."""
    return Site.made(agents, tmp_path)


def set_both(site: Site, a: Path | str, b: Path | str, *words: str) -> "subprocess.CompletedProcess[str]":
    return run_tool("models", "set", "-a", site.agent.socket, "a", str(a), "b", str(b), *words, check=False)


def test_several_are_set_all_or_none(site: Site, signer: Signer, tmp_path: Path) -> None:  # [W-9]
    site.agent.start()
    one, two = adder(signer, "1.0", 1, tmp_path), adder(signer, "2.0", 2, tmp_path)
    done = set_both(site, one, one)
    assert done.stdout.splitlines() == [f"{alias}: adder 1.0 serves, and will after every start" for alias in "ab"]
    files = {alias: (site.declarations / f"{alias}.json").read_bytes() for alias in "ab"}
    deployment = json.loads(files["a"])["deployment"]
    assert deployment == json.loads(files["b"])["deployment"] and deployment["models"] == ["a", "b"]
    done = set_both(site, two, "/nowhere")
    assert (done.returncode, "none is switched; b: there is no package at /nowhere" in done.stderr) == (1, True)
    assert "a is declared as before; b is declared as before" in done.stderr
    assert files == {alias: (site.declarations / f"{alias}.json").read_bytes() for alias in "ab"}
    assert (site.added("a"), site.added("b"), site.managed("a").refused) == (1, 1, "")
    assert json.loads(set_both(site, two, two, "--copy", "--json").stdout)["models"][1]["version"] == "adder 2.0"
    assert sorted(path.name for path in site.declarations.iterdir()) == ["a.json", "b.json"]
    site.agent.kill()
    site.agent.start(force=True)
    assert (site.added("a"), site.added("b")) == (2, 2)
    run_tool("models", "rollback", "a", "-a", site.agent.socket)
    assert (site.added("a"), site.added("b")) == (1, 1)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a"], "expected an alias and a package, or several such pairs; 1 words were given"),
        (["a", "/p", "b"], "expected an alias and a package, or several such pairs; 3 words were given"),
        (["a", "/p", "a", "/q"], "a is given twice"),
        ([word for number in range(33) for word in (f"a{number}", "/p")], "33 models are too many; at most 32"),
    ],
)
def test_pairs_that_are_none_are_refused(words: list[str], expected: str) -> None:  # [W-9]
    done = run_tool("models", "set", "-a", "/nowhere", *words, check=False)
    assert (done.returncode, expected in done.stderr) == (2, True)


# --- an image ---------------------------------------------------------------------


@pytest.fixture
def image(signer: Signer, tmp_path: Path) -> Path:
    """The file system of an image with a configuration and a trusted root."""
    root = tmp_path / "image"
    etc = root / "etc" / "sagemaker-edge-agent"
    etc.mkdir(parents=True)
    (etc / "config.json").write_text(json.dumps(CONFIG))
    shutil.copytree(signer.roots, root / "etc" / "roots")
    (root / "etc" / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nsagemaker-edge-agent:x:4711:4712::/nowhere:/bin/false\n"
    )
    return root


def set_in(image: Path, *words: str, umask: int = 0o077) -> "subprocess.CompletedProcess[str]":
    command = [*client_command(), "models", "set", *words, "--root", str(image)]
    return subprocess.run(command, umask=umask, timeout=60, capture_output=True, text=True, check=False)


def first_start(agents: Any, image: Path) -> Site:
    """The device's first start."""
    store, declarations = image / "var/lib/sagemaker-edge-agent/packages", image / "etc/sagemaker-edge-agent/models.d"
    if os.geteuid() == 0:  # the agent's user is another here
        for path in (store, *store.rglob("*")):
            os.chown(path, 0, 0)
    site = Site(agents(edge_models_path=str(declarations), edge_package_store_path=str(store)))
    site.agent.start()
    return site


def test_an_image_serves_from_its_first_start(  # [M-12]
    agents: Any, image: Path, signer: Signer, tmp_path: Path
) -> None:
    package = adder(signer, "1.0", 1, tmp_path)
    done = set_in(image, "a", str(package), "b", str(package))
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "a: adder 1.0 serves from the first start on"), done
    shutil.rmtree(package)
    store = image / "var/lib/sagemaker-edge-agent/packages"
    found = [store, *store.rglob("*")]
    modes = {path.name: path.stat().st_mode & 0o777 for path in found}
    assert modes.pop("lock") == 0o600
    assert set(modes.values()) == {0o755, 0o644}
    if os.geteuid() == 0:
        assert {(path.stat().st_uid, path.stat().st_gid) for path in found} == {(4711, 4712)}
    declared = [path.name for path in (image / "etc/sagemaker-edge-agent/models.d").iterdir()]
    assert sorted(declared) == ["a.json", "b.json"]
    site = first_start(agents, image)
    assert (site.added("a"), site.added("b"), site.managed("a").refused) == (1, 1, "")
    for _ in range(2):  # two crashes of the only version take nothing back
        site.agent.kill()
        site.agent.start(force=True)
    assert (site.added("a"), site.added("b")) == (1, 1)


def test_an_image_is_left_as_it_was_by_what_is_refused(  # [M-12]
    agents: Any, image: Path, signer: Signer, tmp_path: Path
) -> None:
    package = adder(signer, "1.0", 1, tmp_path)
    assert set_in(image, "a", str(package), umask=0o022).returncode == 0
    before = sorted(str(path) for path in image.rglob("*"))
    other = adder(signer, "2.0", 2, tmp_path)
    (other / "adder.tflite").write_bytes(b"altered")
    done = set_in(image, "a", str(other))
    assert (done.returncode, "was altered" in done.stderr, "is as it was" in done.stderr) == (1, True, True)
    assert sorted(str(path) for path in image.rglob("*")) == before
    assert first_start(agents, image).added("a") == 1


def test_an_image_that_is_none(image: Path, signer: Signer, tmp_path: Path) -> None:  # [M-12]
    package = str(adder(signer, "1.0", 1, tmp_path))
    done = set_in(tmp_path / "nowhere", "a", package)
    assert (done.returncode, "configuration file" in done.stderr) == (2, True)
    (image / "var").symlink_to("/var")
    done = set_in(image, "a", package)
    assert (done.returncode, f"leads out of {image}" in done.stderr) == (2, True)
    assert not list((image / "etc/sagemaker-edge-agent/models.d").iterdir())
