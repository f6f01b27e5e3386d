"""The bill of materials of a release: what is in it, and that the same parts give the same bytes."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "packaging" / "tarball"))

import sbom

PARTS = [
    ("grpcio", "1.85.1"),
    ("boringssl", "in grpcio 1.85.1"),
    ("typing_extensions", "4.16.0"),
    ("libstdc++6", "10.2.1-6+deb11u1 (Debian)"),
]


def test_each_component_has_the_address_of_its_release() -> None:
    document = json.loads(sbom.bill("1.20261128.abcdefa", 1_795_000_000, PARTS))
    by_name = {part["name"]: part for part in document["components"]}
    assert by_name["grpcio"]["purl"] == "pkg:pypi/grpcio@1.85.1"
    assert by_name["typing_extensions"]["purl"] == "pkg:pypi/typing-extensions@4.16.0"
    assert by_name["libstdc++6"]["purl"] == "pkg:deb/debian/libstdc++6@10.2.1-6%2Bdeb11u1"
    assert "purl" not in by_name["boringssl"]
    assert by_name["boringssl"]["description"] == "compiled into grpcio 1.85.1"
    assert document["dependencies"][0]["dependsOn"] == [part["bom-ref"] for part in document["components"]]


def test_same_parts_same_bytes_in_any_order() -> None:
    assert sbom.bill("1.0.0", 0, PARTS) == sbom.bill("1.0.0", 0, PARTS[::-1])
    first, second = (json.loads(sbom.bill("1.0.0", 0, parts))["serialNumber"] for parts in (PARTS, PARTS[1:]))
    assert first != second
