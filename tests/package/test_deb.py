"""What is in the built packages. EDGE_DEB names one; otherwise those in dist/ are looked at, `make deb` makes them."""

import os
import re
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
NAME = "sagemaker-edge-agent"
PACKAGES = [Path(os.environ["EDGE_DEB"])] if "EDGE_DEB" in os.environ else sorted(TOP.glob(f"dist/*/{NAME}_*.deb"))

pytestmark = pytest.mark.skipif(not PACKAGES, reason="no package is built: run `make deb`")


class Package:
    """A .deb: its control fields, its maintainer scripts and its files."""

    def __init__(self, path: Path) -> None:
        text = subprocess.run(["dpkg-deb", "--field", path], capture_output=True, text=True, check=True).stdout
        self.path = path
        self.fields = dict(re.findall(r"^(\S+): (.*)$", text, re.MULTILINE))
        data = subprocess.run(["dpkg-deb", "--fsys-tarfile", path], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=BytesIO(data)) as tar:
            self.files = {member.name.removeprefix("."): member for member in tar.getmembers()}
            self.contents = {
                name: tar.extractfile(member).read()  # type: ignore[union-attr]
                for name, member in self.files.items()
                if member.isfile() and member.size < 100_000
            }

    def control(self, name: str) -> str:
        """A file of the control archive."""
        command = ["dpkg-deb", "--info", self.path, name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module", params=PACKAGES, ids=lambda path: path.name)
def package(request: pytest.FixtureRequest) -> Package:
    return Package(request.param)


def test_name_version_and_machine(package: Package) -> None:
    version, machine = package.fields["Version"], package.fields["Architecture"]
    assert package.path.name == f"{NAME}_{version}_{machine}.deb"
    assert re.fullmatch(r"\d+\.\d{8}\.[0-9a-z]{7}", version)
    elf = package.files[f"/usr/lib/{NAME}/sagemaker_edge_agent"]
    assert elf.mode == 0o755


def test_it_needs_the_c_library_and_little_more(package: Package) -> None:
    needed = {re.sub(r" .*", "", one) for one in package.fields["Depends"].split(", ")}
    assert needed <= {"libc6", "libgcc-s1", "libstdc++6", "zlib1g", "systemd"}
    floor = re.search(r"libc6 \(>= 2\.(\d+)\)", package.fields["Depends"])
    assert floor
    assert int(floor[1]) <= 35, "newer than Ubuntu 22.04 and JetPack 6"


def test_everything_belongs_to_root_and_nobody_else_may_write(package: Package) -> None:
    for name, member in package.files.items():
        assert (member.uid, member.gid) == (0, 0), name
        assert member.issym() or not member.mode & 0o7022, f"{name}: {member.mode:o}"


def test_the_original_names_are_there(package: Package) -> None:
    for name in (NAME, "sagemaker_edge_agent_binary", "sagemaker_edge_agent_client_example"):
        assert package.files[f"/usr/bin/{name}"].linkname == f"../lib/{NAME}/sagemaker_edge_agent"


def test_the_configuration_is_the_sites(package: Package) -> None:
    assert set(package.control("conffiles").split()) == {
        f"/etc/{NAME}/config.json",
        f"/etc/{NAME}/trust/README",
    }


@pytest.mark.parametrize(
    ("installed", "source"),
    [
        (f"/lib/systemd/system/{NAME}.service", f"{NAME}.service"),
        (f"/usr/lib/sysusers.d/{NAME}.conf", f"{NAME}.sysusers"),
        (f"/usr/lib/tmpfiles.d/{NAME}.conf", f"{NAME}.tmpfiles"),
        (f"/etc/{NAME}/config.json", "config.json"),
        (f"/usr/share/doc/{NAME}/examples/own-user.conf", "examples/own-user.conf"),
    ],
)
def test_files_that_yocto_installs_too_are_the_same(package: Package, installed: str, source: str) -> None:
    assert package.contents[installed] == (TOP / "packaging/systemd" / source).read_bytes()


def test_manual_pages_interface_and_licences(package: Package) -> None:
    for page in ("man8/sagemaker-edge-agent.8", "man5/sagemaker-edge-agent-config.5"):
        assert f"/usr/share/man/{page}.gz" in package.files
    assert package.contents[f"/usr/share/doc/{NAME}/api/agent.proto"] == (TOP / "proto/agent.proto").read_bytes()
    assert any(name.startswith(f"/usr/share/doc/{NAME}/attributions/") for name in package.files)
    assert f"/usr/share/doc/{NAME}/examples/ipc_example/sagemaker_edge.proto" in package.files
    for file in ("metrics.md", "metrics/alerts.yml", "metrics/dashboard.json"):
        assert package.contents[f"/usr/share/doc/{NAME}/{file}"] == (TOP / "docs" / file).read_bytes()


def test_shell_completion(package: Package) -> None:
    assert b"complete -o default -F" in package.contents[f"/usr/share/bash-completion/completions/{NAME}"]
    assert "/usr/share/bash-completion/completions/sagemaker_edge_agent_client_example" in package.files
    assert package.contents[f"/usr/share/zsh/vendor-completions/_{NAME}"].startswith(b"#compdef sagemaker-edge-agent ")
