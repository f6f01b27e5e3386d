"""Whatever the bytes, a package's parts end in their own errors or in what they mean."""

import base64
import gzip
import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edge.errors import ManifestError, PackageError, PackageNotFoundError, SignatureError, TrustError
from edge.package.bundle import check_path, format_statement, parse_bundle, parse_statement
from edge.package.manifest import MANIFEST_FILE, SIGNATURE_FILE, format_manifest, parse_manifest
from edge.package.open import local_path
from edge.package.signing import TimeReading, verify_signature
from edge.package.trust import load_roots
from tests.fakes.packages import BUILD_DATE, ROOT, entries_of, files_of, load, open_files, tar_of, trust, write_folder
from tests.fakes.signing_pki import NOW

READING = TimeReading(NOW.timestamp(), True, BUILD_DATE)
FILES = files_of({"digits.tflite": b"a model"})
TAR = tar_of(entries_of(FILES))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@st.composite
def altered_json(draw: st.DrawFn, good: bytes) -> bytes:
    """A good document with one value somewhere replaced, removed or added."""
    top: Any = json.loads(good)
    at: Any = top
    while True:
        keys: list[Any] = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        if isinstance(at[key], dict | list) and draw(st.booleans()):
            at = at[key]
            continue
        if draw(st.booleans()):
            at[key] = draw(JSON)
        elif isinstance(at, dict) and draw(st.booleans()):
            at[draw(st.text())] = draw(JSON)
        else:
            del at[key]
        break
    return json.dumps(top).encode()


@st.composite
def altered(draw: st.DrawFn, good: bytes) -> bytes:
    """Good bytes, some of them replaced, cut or put in."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(data)


def either(good: bytes) -> st.SearchStrategy[bytes]:
    return st.binary() | JSON.map(lambda value: json.dumps(value).encode()) | altered(good) | altered_json(good)


@given(either(FILES[MANIFEST_FILE]))
@example(b'{"format_version": 1e999}')
def test_manifests(data: bytes) -> None:  # [S-1]
    with suppress(ManifestError):
        manifest = parse_manifest(data)
        assert parse_manifest(format_manifest(manifest)) == manifest
        assert "/" not in manifest.model


@given(either(FILES[SIGNATURE_FILE]))
def test_signatures(data: bytes) -> None:  # [S-2]
    with suppress(SignatureError):
        parse_bundle(data)
    with suppress(SignatureError, TrustError):
        verified = verify_signature(data, [ROOT.certificate], READING)
        # Whatever the file's form, what it vouches for is what was signed.
        assert set(verified.digests) == {MANIFEST_FILE, "digits.tflite"}


@given(
    st.binary()
    | altered(
        base64.b64decode(
            json.loads(FILES[SIGNATURE_FILE])["verificationMaterial"]["x509CertificateChain"]["certificates"][0][
                "rawBytes"
            ]
        )
    )
)
def test_certificates(der: bytes) -> None:  # [S-3]
    value = json.loads(FILES[SIGNATURE_FILE])
    chain = value["verificationMaterial"]["x509CertificateChain"]["certificates"]
    good = chain[0]["rawBytes"]
    for certificates in ([der], [base64.b64decode(good), der]):
        chain[:] = [{"rawBytes": base64.b64encode(one).decode()} for one in certificates]
        with suppress(SignatureError, TrustError):
            verify_signature(json.dumps(value).encode(), [ROOT.certificate], READING)
            assert all(one["rawBytes"] == good for one in chain)


@given(either(format_statement("p", {"a": bytes(32), "b/c": bytes(32)})))
def test_statements(data: bytes) -> None:
    with suppress(SignatureError):
        assert all(check_path(path) is None for path in parse_statement(data).digests)


@given(st.text() | st.text().map(lambda rest: "file://" + rest) | st.text().map(lambda rest: "/" + rest))
def test_urls(url: str) -> None:  # [L-3]
    with suppress(PackageNotFoundError):
        path = local_path(url)
        assert path.startswith("/")
        assert "\0" not in path


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(st.binary(), altered(TAR), altered(gzip.compress(TAR)))
def test_archives(junk: bytes, tar: bytes, packed: bytes) -> None:  # [L-4] [L-9]
    with tempfile.TemporaryDirectory() as folder:
        trusted, path = trust(Path(folder)), Path(folder) / "p.tar.gz"
        before = open_files()
        for data in (junk, b"\x1f\x8b\x08" + junk, gzip.compress(junk), gzip.compress(tar), packed):
            path.write_bytes(data)
            with suppress(PackageError), load(path, trusted) as package:
                assert Path(f"/proc/self/fd/{package.model_fd}").read_bytes() == b"a model"
        assert open_files() == before


@settings(max_examples=60)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_folders(name: str, data: st.DataObject) -> None:  # [S-5] [L-9]
    content = data.draw(altered(FILES[name]))
    with tempfile.TemporaryDirectory() as folder:
        path, trusted = write_folder(Path(folder) / "p", FILES | {name: content}), trust(Path(folder))
        before = open_files()
        with suppress(PackageError):
            load(path, trusted).close()
            # Only the signature has a form beside its meaning, such as spaces between its tokens.
            assert content == FILES[name] or name == SIGNATURE_FILE
        assert open_files() == before


@given(st.binary() | altered(ROOT.pem))
def test_roots(data: bytes) -> None:  # [S-3]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.pem"
        file.write_bytes(data)
        file.chmod(0o444)
        with suppress(TrustError):
            load_roots(Path(folder))
