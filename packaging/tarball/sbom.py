"""The software bill of materials of a binary: CycloneDX 1.5 JSON, made from the components that its attributions list.

The format: https://cyclonedx.org/docs/1.5/json/. The same components give the same bytes.
"""

import datetime
import json
import re
import uuid
from collections.abc import Sequence

PYPI = re.compile(r"\d\S*")
DEBIAN = re.compile(r"(?P<version>\S+) \(Debian\)")
INSIDE = re.compile(r"in (?P<name>\S+) (?P<version>\S+)")


def purl(name: str, version: str) -> str | None:
    """The package URL of a component; None for a part of another one, which has no release of its own here."""
    if debian := DEBIAN.fullmatch(version):
        return f"pkg:deb/debian/{name}@{debian['version'].replace('+', '%2B').replace(':', '%3A')}"
    if PYPI.fullmatch(version):
        return f"pkg:pypi/{re.sub(r'[-_. ]+', '-', name).lower()}@{version}"
    return None


def _component(name: str, version: str) -> dict[str, object]:
    inside = INSIDE.fullmatch(version)
    known = {"name": name, "type": "library", "bom-ref": f"{name}@{version}"}
    if address := purl(name, version):
        return {**known, "version": version.removesuffix(" (Debian)"), "purl": address}
    if inside:
        return {**known, "description": f"compiled into {inside['name']} {inside['version']}"}
    return {**known, "version": version}


def bill(version: str, seconds: int, components: Sequence[tuple[str, str]]) -> str:
    """The document for release `version`, dated `seconds` since the epoch, of (name, version) pairs as attributed."""
    program = {
        "type": "application",
        "bom-ref": "sagemaker-edge-agent",
        "name": "sagemaker-edge-agent",
        "version": version,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    parts = [_component(*one) for one in sorted(set(components), key=lambda one: (one[0].lower(), one[1]))]
    body = json.dumps([program, parts], sort_keys=True)
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, body).urn,
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": program,
        },
        "components": parts,
        "dependencies": [{"ref": "sagemaker-edge-agent", "dependsOn": [part["bom-ref"] for part in parts]}],
    }
    return json.dumps(document, indent=2) + "\n"
