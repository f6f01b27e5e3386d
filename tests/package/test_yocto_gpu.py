"""The layer's recipe of what adds the GPU, on a stand-in of its tarball and on what `make deb-gpu` left in dist/."""

import hashlib
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from edge.engine import litert
from tests.package.test_yocto import (
    ARCHES,
    DIST,
    ELF,
    LAYER,
    STAND_IN_VERSION,
    TOP,
    install,
    layer_release,
    listing,
    read_recipe,
    tools,
)

__all__ = ["tools"]
NAME = layer_release.GPU_RECIPE
LIBRARY = f"{litert.GPU_FOLDER}/{litert.GPU_LIBRARY}".lstrip("/")
DROP_IN = "lib/systemd/system/sagemaker-edge-agent.service.d/gpu.conf"


def _stand_in(folder: Path, arch: str) -> Path:
    files = {
        LIBRARY: ELF + arch.encode(),
        f"usr/{DROP_IN}": (TOP / "packaging/systemd/examples/gpu.conf").read_bytes(),
        f"usr/share/doc/{NAME}/LICENSE": b"Apache-2.0\n",
        f"usr/share/doc/{NAME}/copyright": b"who wrote it\n",
    }
    tarball = folder / arch / f"{NAME}-{STAND_IN_VERSION}.tgz"
    tarball.parent.mkdir()
    with tarfile.open(tarball, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return tarball


@pytest.fixture(scope="module", params=["stand-in", "dist"])
def tarballs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = DIST
    if request.param == "stand-in":
        folder = tmp_path_factory.mktemp("release")
        for arch in ARCHES:
            _stand_in(folder, arch)
    elif not all(list((DIST / arch).glob(f"{NAME}-*.tgz")) for arch in ARCHES):
        pytest.skip("needs the GPU's tarballs of both architectures: make deb-gpu ARCH=arm64, ARCH=amd64")
    found: dict[str, Path] = layer_release.find_tarballs(folder, NAME)
    return found


@pytest.fixture
def recipe(tarballs: dict[str, Path], tmp_path: Path) -> Path:
    """The recipe of these tarballs, in a copy of the layer."""
    written: Path = layer_release.write_gpu_recipe(Path(shutil.copytree(LAYER, tmp_path / "layer")), tarballs)
    assert list(written.parent.glob("*.bb")) == [written]
    return written


@pytest.mark.parametrize("arch", ARCHES)
def test_the_recipe_installs_what_the_agent_and_its_unit_look_for(
    tools: Path, recipe: Path, tarballs: dict[str, Path], tmp_path: Path, arch: str
) -> None:
    parsed = read_recipe(tools, recipe, arch)
    variables = parsed["variables"]
    assert parsed["flags"][f"SRC_URI[{arch}.sha256sum]"] == hashlib.sha256(tarballs[arch].read_bytes()).hexdigest()
    assert variables[f"RDEPENDS:{NAME}"].split() == ["sagemaker-edge-agent", "vulkan-loader"]
    image = install(tools, recipe, arch, tmp_path, tarballs[arch])
    assert {name: what.split()[0] for name, what in listing(image).items()} == {LIBRARY: "644", DROP_IN: "644"}
    # The unit does not start while a group that the drop-in names is missing.
    groups = (image / DROP_IN).read_text().partition("SupplementaryGroups=")[2].splitlines()[0].split()
    assert {words.split()[-1] for words in variables[f"GROUPADD_PARAM:{NAME}"].split(";")} == set(groups)


@pytest.mark.parametrize("arch", ARCHES)
def test_the_same_files_as_in_the_debian_package(
    tools: Path, recipe: Path, tarballs: dict[str, Path], tmp_path: Path, arch: str
) -> None:
    version = recipe.stem.removeprefix(f"{NAME}_")
    packages = sorted(DIST.rglob(f"{NAME}_{version}_{arch}.deb"))
    if not packages:
        pytest.skip(f"needs the package of this release: make deb-gpu ARCH={arch}")
    subprocess.run(["dpkg-deb", "--extract", packages[-1], tmp_path / "deb"], check=True)
    debian = {
        name.removeprefix("usr/") if "/systemd/" in name else name: what
        for name, what in listing(tmp_path / "deb").items()
        if not name.startswith("usr/share/")
    }
    assert listing(install(tools, recipe, arch, tmp_path / "yocto", tarballs[arch])) == debian
