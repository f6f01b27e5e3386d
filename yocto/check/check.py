"""Runs real BitBake on the layer, from checkouts of openembedded-core and bitbake that the user names.

    make yocto-check OECORE=~/openembedded-core BITBAKE=~/bitbake

Three steps, each in a build directory of its own below build/yocto/<series>:

    parse    every recipe of openembedded-core and of the layer, for both machines; no warning is tolerated
    layer    yocto-check-layer: the Yocto Project's own test of a layer
    package  do_fetch to do_package_qa and the .deb of every recipe, from the release tarballs

A full build of an image takes hours and 100 GB. `package` takes less than a minute, because openembedded-core's recipes are
masked and what ours need of them is stood in for: the cross binutils, C and compiler libraries are the host's
(Debian: gcc-aarch64-linux-gnu), so are pseudo, rpmdeps, dpkg-deb, xz and useradd; other packages are empty ones. What
runs on our recipes is BitBake's and openembedded-core's own code, unchanged.

BitBake refuses to run as root: called by root, this runs it as nobody.
"""

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import release  # noqa: E402

NOBODY = 65534
STEPS = ("parse", "layer", "package")
TARGETS = ["sagemaker-edge-agent", "sagemaker-edge-agent-conf", "sagemaker-edge-agent-demo", "sagemaker-edge-agent-gpu"]
# MACHINE -> the release's architecture, the prefix of BitBake's cross tools and of the host's, the host's libraries for it.
MACHINES = {
    "qemuarm64": ("arm64", "aarch64-oe-linux-", "aarch64-linux-gnu-", "/usr/aarch64-linux-gnu/lib"),
    "qemux86-64": ("amd64", "x86_64-oe-linux-", "x86_64-linux-gnu-", "/lib/x86_64-linux-gnu"),
}
HOST_PROGRAMS = ["chrpath", "cpio", "diffstat", "gawk", "lz4c", "patch", "rpcgen", "zstd", "localedef"]
PACKAGE_PROGRAMS = ["pseudo", "pseudodb", "dpkg-deb", "xz", "/usr/sbin/useradd", "/usr/lib/rpm/rpmdeps"]
ASSUMED = (
    "quilt-native patch-replacement-native rpm-native dwarfsrcfiles-native file-native dpkg-native xz-native zstd-native "
    "systemd-systemctl-native virtual/cross-cc virtual/cross-binutils virtual/${TARGET_PREFIX}gcc "
    "virtual/${TARGET_PREFIX}binutils gcc-cross-${TARGET_ARCH} binutils-cross-${TARGET_ARCH}"
)
CONF = """\
CONF_VERSION = "2"
MACHINE ??= "{machine}"
INIT_MANAGER = "systemd"
DISTRO_FEATURES:append = " ptest vulkan"
BB_NO_NETWORK = "1"
SANITY_TESTED_DISTROS = ""
"""
PACKAGE_CONF = """\
PACKAGE_CLASSES = "package_deb"
INHERIT_DISTRO = "debian sstate license remove-libtool"
INHERIT += "own-mirrors"
SOURCE_MIRROR_URL = "file://{mirror}"
BBMASK = "/meta/recipes-"
BBFILE_PATTERN_IGNORE_EMPTY_core = "1"
ASSUME_PROVIDED += "{assumed}"
PREFERRED_VERSION_glibc:forcevariable = "1.0"
PREFERRED_VERSION_gcc-runtime:forcevariable = "1.0"
PSEUDO_SYSROOT = "{tools}"
RPMDEPS:forcevariable = "/usr/lib/rpm/rpmdeps --alldeps --define '__font_provides %{{nil}}'"
HOSTTOOLS += "{prefix}objdump dpkg-deb useradd groupadd xz"
STAND_IN_LIBRARIES = "{libraries}"
{extra}
"""
# Newer series say which paths pseudo cares for; older builds of pseudo know only the paths that it must not.
PSEUDO_CONF = """\
IGNORED = "/usr/,/etc/,/lib,/dev/,/run/,${T},${WORKDIR}/recipe-sysroot,${WORKDIR}/pkgdata-sysroot,${TMPDIR}/pkgdata"
FAKEROOTENV:append = " PSEUDO_IGNORE_PATHS=${@oe.path.canonicalize(d.getVar('IGNORED'))}"
FAKEROOTBASEENV:append = " PSEUDO_IGNORE_PATHS=${@oe.path.canonicalize(d.getVar('IGNORED'))}"
"""
ACCOUNT_TOOL = """\
#!/bin/sh
# The host's tool opens files in ways that pseudo does not redirect for --root; --prefix needs no redirection.
for argument; do
    shift
    [ "$argument" != --root ] || argument=--prefix
    set -- "$@" "$argument"
done
exec /usr/sbin/{name} "$@"
"""


class Check:
    """One series: its checkouts, a copy of the layer and a folder to build in."""

    def __init__(self, oecore: Path, bitbake: Path, work: Path, tarballs: Path) -> None:
        self.oecore, self.bitbake, self.tarballs = oecore, bitbake, release.find_tarballs(tarballs)
        self.gpu_tarballs = release.find_tarballs(tarballs, release.GPU_RECIPE)
        names = re.search(r'LAYERSERIES_CORENAMES = "(.+)"', (oecore / "meta/conf/layer.conf").read_text())
        if not names:
            raise SystemExit(f"{oecore} is no checkout of openembedded-core")
        self.series = names[1]
        self.work = work / self.series
        self.mirror, self.tools = self.work / "mirror", self.work / "tools"
        shutil.rmtree(self.work, ignore_errors=True)
        # BitBake's user must be able to read the layer wherever the repository is.
        self.layer = Path(shutil.copytree(release.LAYER, self.work / release.LAYER.name))
        self.stand_ins = Path(shutil.copytree(HERE / "meta-stand-ins", self.work / "meta-stand-ins"))

    def prepare(self) -> None:
        version = release.write_recipe(self.layer, self.tarballs).stem.split("_")[1]
        self.mirror.mkdir()
        for arch, tarball in self.tarballs.items():
            shutil.copy(tarball, self.mirror / f"sagemaker-edge-agent-{version}-{arch}.tgz")
        release.write_gpu_recipe(self.layer, self.gpu_tarballs)
        for arch, tarball in self.gpu_tarballs.items():
            shutil.copy(tarball, self.mirror / f"{tarball.stem}-{arch}.tgz")
        locale = self.work / "locale"
        locale.mkdir()
        subprocess.run(["localedef", "-i", "en_US", "-f", "UTF-8", locale / "en_US.UTF-8"], check=True)
        self._link_tools()

    def _link_tools(self) -> None:
        """A folder for PATH and for PSEUDO_SYSROOT with the host's programs under the names that BitBake calls."""
        folder = self.tools / "usr/bin"
        folder.mkdir(parents=True)
        for name in ("pseudo", "pseudodb"):
            (folder / name).symlink_to(f"/usr/bin/{name}")
        for _, prefix, host_prefix, _ in MACHINES.values():
            (folder / f"{prefix}objdump").symlink_to(shutil.which(f"{host_prefix}objdump") or "/nonexistent")
        for name in ("useradd", "groupadd"):
            (folder / name).write_text(ACCOUNT_TOOL.replace("{name}", name))
            (folder / name).chmod(0o755)
        for library in Path("/usr/lib").glob("**/pseudo/libpseudo.so"):
            for place in ("lib/pseudo/lib64", str(library.parent.relative_to("/usr"))):
                link = self.tools / "usr" / place
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(library.parent)

    def run(self, build: str, conf: str, layers: list[Path], *command: str | Path) -> str:
        """Runs a command in a build directory, and returns what it said.

        Raises:
            SystemExit: it failed.
        """
        folder = self.work / build
        (folder / "conf").mkdir(parents=True, exist_ok=True)
        (folder / "conf/local.conf").write_text(conf)
        (folder / "conf/bblayers.conf").write_text(
            'BBPATH = "${TOPDIR}"\nBBFILES = ""\nBBLAYERS = "' + " ".join(map(str, layers)) + '"\n'
        )
        environment = {
            "PATH": f"{self.tools}/usr/bin:{self.bitbake}/bin:{self.oecore}/scripts:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(folder),
            "BUILDDIR": str(folder),
            "BBPATH": str(folder),
            "LANG": "en_US.UTF-8",
            "LOCPATH": str(self.work / "locale"),
            "BB_ENV_PASSTHROUGH_ADDITIONS": "LOCPATH",
        }
        user: dict[str, object] = {}
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", self.work], check=True)
            user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        started = time.monotonic()
        print(f"{self.series}: {build}: {Path(command[0]).name} ...", flush=True)
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                command, cwd=folder, env=environment, stdout=output, stderr=output, check=False, **user
            )
            output.seek(0)
            text = output.read()
        (self.work / f"{build}.log").write_text(text)
        if done.returncode:
            raise SystemExit(f"{text[-6000:]}\n{self.series}: {build} failed; all of it is in {self.work / build}.log")
        print(f"{self.series}: {build}: done in {time.monotonic() - started:.0f} s", flush=True)
        return text

    def refuse_warnings(self, text: str) -> None:
        warnings = re.findall(r"^.*WARNING: .*", text, re.M)
        if warnings:
            raise SystemExit("\n".join([*warnings, f"{self.series}: warnings"]))

    def parse(self, machine: str) -> None:
        layers = [self.oecore / "meta", self.layer]
        text = self.run(f"parse-{machine}", CONF.format(machine=machine), layers, "bitbake", "--parse-only")
        self.refuse_warnings(text)
        print(re.findall(r"^Parsing of .*", text, re.M)[-1])

    def check_layer(self, machine: str) -> None:
        command = ["yocto-check-layer", "--no-auto-dependency", str(self.layer)]
        text = self.run(f"layer-{machine}", CONF.format(machine=machine), [self.oecore / "meta"], *command)
        print(*re.findall(r"^INFO: (.* \.\.\. (?:PASS|FAIL).*)", text, re.M), sep="\n")

    def package(self, machine: str, extra: str) -> None:
        _, prefix, _, libraries = MACHINES[machine]
        conf = CONF.format(machine=machine) + PACKAGE_CONF.format(
            mirror=self.mirror, assumed=ASSUMED, tools=self.tools, prefix=prefix, libraries=libraries, extra=extra
        )
        if "PSEUDO_INCLUDE_PATHS" in (self.oecore / "meta/conf/bitbake.conf").read_text():
            conf += PSEUDO_CONF
        layers = [self.oecore / "meta", self.layer, self.stand_ins]
        text = self.run(f"package-{machine}", conf, layers, "bitbake", *TARGETS)
        self.refuse_warnings(text)
        ran = len(re.findall(r"task do_package_qa: Succeeded", text))
        packages = sorted((self.work / f"package-{machine}").glob("tmp*/deploy/deb/*/sagemaker-edge-agent*.deb"))
        print(f"do_package_qa passed for {ran} recipes; packages:", *(file.name for file in packages), sep="\n    ")
        if not packages or ran < len(TARGETS):
            raise SystemExit(f"{self.series}: not every recipe was packaged")
        [package] = [file for file in packages if file.name.startswith("sagemaker-edge-agent_")]
        self.compare(package, release.program_files(self.tarballs[MACHINES[machine][0]]))

    def compare(self, package: Path, released: dict[str, bytes]) -> None:
        """Refuses a package whose program is not, byte for byte, the released one: stripped, split or patched."""
        packed = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
            folder = "./usr/lib/sagemaker-edge-agent/"
            program = {
                name.removeprefix(folder): file.read()
                for name, file in files.items()
                if name.startswith(folder) and file
            }
        if program != released:
            changed = {name for name in program.keys() | released.keys() if program.get(name) != released.get(name)}
            raise SystemExit(f"{package.name} changed the program: {', '.join(sorted(changed))}")
        print(f"{package.name}: its {len(program)} files of the program are the released ones, byte for byte")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oecore", type=Path, required=True, help="a checkout of openembedded-core")
    parser.add_argument("--bitbake", type=Path, required=True, help="a checkout of bitbake, of the same release")
    parser.add_argument("--tarballs", type=Path, default=release.TOP / "dist", help="folder of the release tarballs")
    parser.add_argument("--work", type=Path, default=release.TOP / "build/yocto", help="where to build")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--machines", nargs="+", choices=MACHINES, default=list(MACHINES))
    parser.add_argument("--conf", default="", help="a line to add to local.conf for the packaging")
    arguments = parser.parse_args(argv)
    wanted = HOST_PROGRAMS + (PACKAGE_PROGRAMS if "package" in arguments.steps else [])
    if missing := [name for name in wanted if not shutil.which(name)]:
        raise SystemExit(f"Not installed: {', '.join(missing)}. On Debian: see docs/yocto.md")
    check = Check(*(p.resolve() for p in (arguments.oecore, arguments.bitbake, arguments.work, arguments.tarballs)))
    check.prepare()
    for machine in arguments.machines:
        if "parse" in arguments.steps:
            check.parse(machine)
        if "package" in arguments.steps:
            check.package(machine, arguments.conf)
    if "layer" in arguments.steps:
        check.check_layer(arguments.machines[0])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
