"""Write docs/attributions: every component that is really in the binary, with its licence text, and as a CycloneDX SBOM.

The compiler's report names the distributions; each shared object of the program must belong to one of them or be
listed in components.toml. Whatever has no licence text fails the build.
"""

import argparse
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import sbom

HERE = Path(__file__).parent
LICENCE_FILE = re.compile(r"(licen[cs]e|copying|notice)", re.IGNORECASE)
NUMBERED = re.compile(r"(.*\.so)\.[0-9.]+")  # a library with its release behind its name
COMMON = re.compile(r"/usr/share/common-licenses/([A-Za-z0-9.-]*[A-Za-z0-9])")
RULE = "=" * 100
NUITKA = (
    "The program was compiled by Nuitka. Parts of Nuitka's runtime are in it; they are under the GNU Affero General Public\n"
    "License 3 with the exception below, which lets programs compiled by it have any licence. Nuitka itself is not in it.\n"
)
GLIBC = (
    "The start program is linked to these libraries. Its source (packaging/nuitka/launcher.c) and the script that links\n"
    "it (packaging/nuitka/binary.sh) are published, so that it can be linked anew with a changed C library.\n"
)


class AttributionError(Exception):
    """A component has no licence text, or a file belongs to no component."""


@dataclass(frozen=True)
class Component:
    """One part of the binary; `text` is its notice and licence."""

    name: str
    version: str
    text: str


def reported(report: Path) -> list[tuple[str, str]]:
    """The distributions, as (name, version), that the compiler took modules from."""
    root = ElementTree.parse(report).getroot()
    return sorted((d.attrib["name"], d.attrib["version"]) for d in root.iterfind("distributions/distribution"))


def distribution_text(name: str, version: str, site: Path) -> str:
    """All licence files in the distribution's metadata, joined; "" if it has none."""
    normal = re.sub(r"[-_.]+", "_", name)
    texts = []
    for folder in sorted(site.glob("*-info")):
        if folder.name.lower().startswith(f"{normal.lower()}-{version}"):
            files = (p for p in folder.rglob("*") if p.is_file() and LICENCE_FILE.search(p.name))
            texts += [p.read_text(errors="replace").strip() for p in sorted(files)]
    return "\n\n".join(texts)


def listed_text(name: str) -> str:
    """The text in licences/.

    Raises:
        AttributionError: there is none.
    """
    path = HERE / "licences" / f"{name}.txt"
    if not path.is_file() or not path.read_text().strip():
        raise AttributionError(f"{name}: no licence text; put it into {path}")
    return path.read_text().strip()


def agent_components(report: Path, site: Path, table: dict[str, dict[str, object]]) -> list[Component]:
    """The Python distributions and what is compiled into them.

    Raises:
        AttributionError: one has no licence text.
    """
    found: dict[str, Component] = {}
    for name, version in reported(report):
        text = distribution_text(name, version, site)
        if name in table["text"]:
            text = f"{text}\n\n{listed_text(str(table['text'][name]))}".strip()
        if not text:
            raise AttributionError(f"{name} {version} has no licence text in its files, and none in components.toml")
        found[name] = Component(name, version, text)
        inside = table["inside"].get(name, [])
        assert isinstance(inside, list)
        for part in inside:
            found.setdefault(part, Component(part, f"in {name} {version}", listed_text(part)))
    return [found[name] for name in sorted(found, key=str.lower)]


def numbered_libraries(tree: Path, table: dict[str, dict[str, str]]) -> list[Component]:
    """Libraries of another release of a distribution than the one whose modules are used: they have it behind their names.

    Raises:
        AttributionError: one has no licence text.
    """
    found = ((path, NUMBERED.fullmatch(path.name)) for path in sorted(tree.rglob("*.so.*.*")))
    parts = [(table["files"][match[1]], path.name.removeprefix(f"{match[1]}.")) for path, match in found if match]
    return [Component(name, release, listed_text(table["text"][name])) for name, release in parts]


def core_components(root: Path, site: Path, core: dict[str, list[str]]) -> list[Component]:
    """Interpreter, C libraries, start program and the compiler's runtime.

    Raises:
        AttributionError: one has no copyright file in the build root.
    """

    def read(path: Path, name: str) -> str:
        if not path.is_file():
            raise AttributionError(f"{name}: {path} is missing")
        return path.read_text(errors="replace").strip()

    def versions(path: Path) -> dict[str, str]:
        return dict(line.split()[:2] for line in read(path, path.name).splitlines())

    python = root / "opt/python"
    of_sources, of_packages = versions(python / "debian-sources"), versions(root / "opt/debian-packages")
    result = [
        Component(name, f"{of_sources[name]} (Debian)", read(python / f"{name}.copyright", name))
        for name in core["sources"]
    ]
    for name in core["packages"]:
        text = read(root / "usr/share/doc" / name / "copyright", name)
        result.append(Component(name, f"{of_packages[name]} (Debian)", (GLIBC if name == "libc6-dev" else "") + text))
    (nuitka,) = site.glob("nuitka-*.dist-info")
    result.append(
        Component(
            "Nuitka runtime",
            nuitka.name.split("-")[1][: -len(".dist")],
            NUITKA + "\n" + distribution_text("nuitka", "", site),
        )
    )
    return result


def check_files(tree: Path, site: Path, names: set[str], files: dict[str, str]) -> None:
    """Each shared object of the program belongs to a known component.

    Raises:
        AttributionError: one does not.
    """
    tops = {}
    for record in site.glob("*.dist-info/RECORD"):
        name = re.sub(r"[-_.]+", "-", record.parent.name.split("-")[0]).lower()
        for line in record.read_text().splitlines():
            stem = line.split(",")[0].split(".")[0]
            tops[stem] = name
    known = {re.sub(r"[-_.]+", "-", name).lower() for name in names}
    for path in sorted(p for p in tree.rglob("*") if p.is_file()):
        inside = path.relative_to(tree)
        owner = (
            files.get(path.name)
            or files.get(NUMBERED.sub(r"\1", path.name))
            or tops.get(str(inside).split(".", maxsplit=1)[0])
        )
        if owner != "own" and owner not in known:
            raise AttributionError(f"{inside} belongs to no component; list it in components.toml")


def write(path: Path, title: str, components: list[Component], common: Path) -> None:
    """One file: a list, each component with its text, then the licences that several texts refer to."""
    parts = [title, "", *(f"  {c.name} {c.version}" for c in components), ""]
    for component in components:
        parts += [RULE, f"{component.name} {component.version}", RULE, "", component.text, ""]
    for name in sorted({name for c in components for name in COMMON.findall(c.text)}):
        if not (common / name).is_file():
            raise AttributionError(f"a text refers to {name}, which is not in {common}")
        parts += [
            RULE,
            f"/usr/share/common-licenses/{name}",
            RULE,
            "",
            (common / name).read_text(errors="replace").rstrip(),
            "",
        ]
    path.write_text("\n".join(parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the build root")
    parser.add_argument("--report", type=Path, required=True, help="the compiler's report")
    parser.add_argument("--tree", type=Path, required=True, help="the unpacked program")
    parser.add_argument("--version", required=True, help="of the release")
    parser.add_argument("--seconds", type=int, required=True, help="date of the release, seconds since the epoch")
    parser.add_argument("--output", type=Path, required=True, help="folder for agent.txt, core.txt and sbom.cdx.json")
    options = parser.parse_args()
    table = tomllib.loads((HERE / "components.toml").read_text())
    site = options.root / "opt/python/lib/python3.11/dist-packages"
    try:
        agent = agent_components(options.report, site, table)
        agent += numbered_libraries(options.tree, table)
        core = core_components(options.root, site, table["core"])
        check_files(options.tree, site, {c.name for c in (*agent, *core)}, table["files"])
        options.output.mkdir(parents=True, exist_ok=True)
        common = options.root / "usr/share/common-licenses"
        write(
            options.output / "agent.txt",
            "Components of the agent, in Python and in its extension modules",
            agent,
            common,
        )
        write(options.output / "core.txt", "Components below it: interpreter, C libraries, start program", core, common)
        parts = [(c.name, c.version) for c in (*agent, *core)]
        (options.output / "sbom.cdx.json").write_text(sbom.bill(options.version, options.seconds, parts))
    except AttributionError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
