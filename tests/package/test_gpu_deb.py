"""The package that adds the GPU: `make deb-gpu` builds it and runs this."""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from edge.engine import litert
from tests.package.test_deb import Package

DEB = Path(os.environ.get("EDGE_GPU_DEB", "none"))
pytestmark = pytest.mark.skipif(not DEB.exists(), reason="the package is not built: run `make deb-gpu`")
DROP_IN = "/usr/lib/systemd/system/sagemaker-edge-agent.service.d/gpu.conf"
UNIT = Path(__file__).parents[2] / "packaging/systemd/sagemaker-edge-agent.service"


@pytest.fixture(scope="module")
def package() -> Package:
    return Package(DEB)


def test_the_library_is_where_the_agent_looks(package: Package) -> None:
    library = package.files[f"{litert.GPU_FOLDER}/{litert.GPU_LIBRARY}"]
    assert library.mode == 0o644
    assert library.uid == library.gid == 0


def test_what_it_needs(package: Package) -> None:
    assert package.fields["Depends"].startswith("sagemaker-edge-agent, libc6 (>= 2.")
    assert "libvulkan1" in package.fields["Depends"]
    assert litert.RELEASE in package.contents["/usr/share/doc/sagemaker-edge-agent-gpu/copyright"].decode()


def test_the_tarball_has_the_same_files(package: Package) -> None:
    [name] = DEB.parent.glob(f"sagemaker-edge-agent-gpu-{package.fields['Version']}.tgz")
    with tarfile.open(name) as archive:
        members = {f"/{member.name}": member for member in archive if member.isfile()}
        assert {(member.uid, member.gid, member.mode) for member in members.values()} == {(0, 0, 0o644)}
        library = f"{litert.GPU_FOLDER}/{litert.GPU_LIBRARY}"
        assert members[library].size == package.files[library].size
        drop_in = archive.extractfile(members[DROP_IN])
        assert drop_in is not None
        assert drop_in.read() == package.contents[DROP_IN]


def test_the_unit_takes_the_drop_in(package: Package, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/bin/sagemaker-edge-agent", "/bin/true"))
    folder = tmp_path / f"{UNIT.name}.d"
    folder.mkdir()
    (folder / "gpu.conf").write_bytes(package.contents[DROP_IN])
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert "gpu.conf" not in done.stderr, done.stderr


def test_lintian_has_nothing_to_say() -> None:
    if shutil.which("lintian") is None:
        pytest.skip("needs lintian")
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on=none", DEB], capture_output=True, text=True, check=False
    )
    assert [line for line in done.stdout.splitlines() if not line.startswith("N: ")] == []
