"""Signatures: what is accepted, and the reason for each refusal."""

import base64
import datetime
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from edge.errors import EdgeError, SignatureError, TrustError
from edge.package.bundle import Bundle, format_bundle, format_statement, pae, parse_bundle, parse_statement
from edge.package.signing import TimeReading, Verified, judging_time, sign_files, verify_signature
from tests.fakes import signing_pki as pki
from tests.fakes.signing_pki import DAY, NOW, Holder

DIGESTS = {"sagemaker_edge_manifest": bytes(32), "digits.tflite": bytes(range(32)), "sub/labels.txt": b"\7" * 32}
BUILD_DATE = int((NOW - 10 * DAY).timestamp())


def reading(at: datetime.datetime = NOW, *, synchronised: bool = True) -> TimeReading:
    return TimeReading(at.timestamp(), synchronised, BUILD_DATE)


def signed(signer: Holder, *more: x509.Certificate) -> bytes:
    return sign_files("digits-1.0", DIGESTS, signer.key, [*signer.chain, *more])


def forged(signer: Holder, payload: bytes | None = None) -> bytes:
    """A signature by a certificate that our own tool refuses to sign with."""
    payload = payload if payload is not None else format_statement("digits-1.0", DIGESTS)
    digest: Any = {"secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}.get(
        getattr(getattr(signer.key, "curve", None), "name", ""), hashes.SHA256()
    )
    by_curve = isinstance(signer.key, ec.EllipticCurvePrivateKey)
    signature = signer.key.sign(pae(payload), ec.ECDSA(digest)) if by_curve else bytes(64)
    ders = tuple(certificate.public_bytes(pki.serialization.Encoding.DER) for certificate in signer.chain)
    return format_bundle(Bundle(ders, payload, signature))


def verify(data: bytes, *roots: Holder, at: TimeReading | None = None) -> Verified:
    return verify_signature(data, [holder.certificate for holder in roots], at or reading())


ROOT = pki.root()
SIGNER = pki.signer(ROOT)


def test_what_was_signed_is_what_is_verified() -> None:  # [S-2]
    verified = verify(signed(SIGNER), ROOT)
    assert verified.digests == DIGESTS
    assert verified.signer == "CN=signer"
    assert verified.judged_at == NOW
    assert not verified.clock_note


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "rsa3072"])
@pytest.mark.parametrize("root_kind", ["p256", "p384", "p521", "rsa3072"])
def test_keys(kind: str, root_kind: str) -> None:  # [S-3]
    root = pki.root(kind=root_kind)
    assert verify(signed(pki.signer(root, kind=kind)), root).digests == DIGESTS


def test_intermediates_and_a_root_in_the_bundle() -> None:  # [S-3]
    signer = pki.signer(pki.intermediate(pki.intermediate(ROOT, "upper", number=3), "lower", number=4))
    assert len(signer.chain) == 3
    assert verify(signed(signer), ROOT).digests == DIGESTS
    assert verify(signed(signer, ROOT.certificate), ROOT).digests == DIGESTS


def test_several_roots_allow_rotation() -> None:  # [S-3]
    other = pki.root("other root", number=5)
    assert verify(signed(SIGNER), other, ROOT).signer == verify(signed(SIGNER), ROOT, other).signer
    renewed = pki.root(number=6)  # the same name, another key
    assert verify(signed(SIGNER), renewed, ROOT)


def test_ca_limited_to_code_signing() -> None:
    ca = pki.intermediate(ROOT, purposes=[pki.CODE_SIGNING])
    assert verify(signed(pki.signer(ca)), ROOT)


BAD_SIGNERS: dict[str, tuple[dict[str, Any], str]] = {
    "no key usage": ({"usages": None}, "digitalSignature"),
    "no digitalSignature": ({"usages": ("key_agreement",)}, "digitalSignature"),
    "no purpose": ({"purposes": None}, "codeSigning"),
    "other purpose": ({"purposes": (pki.SERVER_AUTH,)}, "codeSigning"),
    "any purpose": ({"purposes": (pki.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)}, "codeSigning"),
    "a CA": ({"ca": True, "usages": ("digital_signature", "key_cert_sign")}, "is a CA's"),
    "expired": ({"until": NOW - DAY}, "expired"),
    "not yet valid": ({"since": NOW + DAY}, "not valid before"),
    "unknown critical extension": (
        {"extra": [(x509.UnrecognizedExtension(pki.UNKNOWN_OID, b"\5\0"), True)]},
        "critical",
    ),
    "weak RSA": ({"kind": "rsa2048"}, "weak key: RSA of 2048"),
    "weak curve": ({"kind": "p224"}, "secp224r1"),
    "other curve": ({"kind": "k256"}, "secp256k1"),
    "Ed25519": ({"kind": "ed25519"}, "Ed25519"),
}


@pytest.mark.parametrize("why", BAD_SIGNERS)
def test_signers_that_are_refused(why: str) -> None:  # [S-3] [L-4]
    options, word = BAD_SIGNERS[why]
    signer = pki.signer(ROOT, **options)
    with pytest.raises(TrustError, match=word):
        verify(forged(signer), ROOT)


def test_signer_of_another_root() -> None:  # [S-3]
    with pytest.raises(TrustError, match=r"not trusted.*CN=another.*trusted roots are: CN=root"):
        verify(signed(pki.signer(pki.root("another", number=7))), ROOT)


def test_signer_of_a_root_with_the_trusted_name() -> None:
    with pytest.raises(TrustError, match=r"not trusted.*another CA than the known one of that name, CN=root"):
        verify(signed(pki.signer(pki.root(number=8))), ROOT)


def test_a_missing_intermediate_is_named() -> None:
    signer = pki.signer(pki.intermediate(ROOT))
    with pytest.raises(TrustError, match="leads to CN=intermediate"):
        verify(sign_files("m", DIGESTS, signer.key, [signer.certificate]), ROOT)


def test_a_signer_may_be_trusted_itself() -> None:  # [S-3]
    """A certificate in the trust folder is trusted, and a path of length nothing leads to it; its purpose still counts."""
    assert verify(signed(SIGNER), SIGNER)
    for options, word in ({"until": NOW - DAY}, "expired"), ({"purposes": None}, "codeSigning"):
        signer = pki.signer(ROOT, **options)
        with pytest.raises(TrustError, match=word):
            verify(forged(signer), signer)


def test_no_root() -> None:
    with pytest.raises(TrustError, match="no root"):
        verify(signed(SIGNER))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"until": NOW - DAY}, r"CN=intermediate is not valid"),
        ({"since": NOW + DAY}, r"CN=intermediate is not valid"),
        ({"ca": False}, "basicConstraints"),
        ({"usages": ("digital_signature",)}, "keyUsage|not valid"),
        ({"purposes": (pki.SERVER_AUTH,)}, "codeSigning"),
        ({"kind": "rsa2048"}, "weak key"),
    ],
)
def test_cas_that_are_refused(options: dict[str, Any], word: str) -> None:  # [S-3]
    signer = pki.signer(pki.intermediate(ROOT, **options))
    with pytest.raises(TrustError, match=word):
        verify(signed(signer), ROOT)


def test_path_length() -> None:
    short = pki.root("short", number=9, path_length=0)
    assert verify(signed(pki.signer(short)), short)
    with pytest.raises(TrustError):
        verify(signed(pki.signer(pki.intermediate(short))), short)


def test_an_expired_root() -> None:
    old = pki.root("old", number=10, until=NOW - DAY)
    with pytest.raises(TrustError, match="CN=old is not valid"):
        verify(signed(pki.signer(old)), old)


def test_certificates_off_the_path_must_be_whole() -> None:  # [S-5]
    other = pki.root("other", number=11)
    assert verify(signed(SIGNER, other.certificate), ROOT)
    stray = pki.signer(pki.root("nowhere", number=12), "stray")
    with pytest.raises(SignatureError, match="nothing to do"):
        verify(signed(SIGNER, stray.certificate), ROOT)


def test_another_key_than_the_certificates() -> None:
    with pytest.raises(SignatureError, match="not that of its certificate"):
        verify(forged(Holder(SIGNER.certificate, pki.key("p256", 13))), ROOT)
    with pytest.raises(SignatureError, match="not that of the certificate"):
        sign_files("m", DIGESTS, pki.key("p256", 13), [SIGNER.certificate])


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # flipped, too
def test_every_flipped_byte_is_seen() -> None:  # [S-5]
    """Each byte of a signature file, with the root in it, changed in one bit: never accepted, always with a reason."""
    good = signed(SIGNER, ROOT.certificate)
    verify(good, ROOT)
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << position % 8
        with pytest.raises(EdgeError) as refused:
            verify(bytes(bad), ROOT)
        assert isinstance(refused.value, SignatureError | TrustError), (position, refused.value)


def test_unused_bits_before_a_certificates_signature() -> None:  # [S-5]
    """RFC 5280 4.1.1.3: a signature is whole bytes. The count of bits unused in it is not covered by it."""
    good = parse_bundle(signed(SIGNER, ROOT.certificate))
    for place, holder in enumerate((SIGNER, ROOT)):
        for unused in range(1, 8):
            ders = [bytearray(der) for der in good.certificates]
            ders[place][-len(holder.certificate.signature) - 1] = unused
            with pytest.raises(SignatureError, match=f"certificate {place + 1} of 2"):
                verify(format_bundle(Bundle(tuple(map(bytes, ders)), good.payload, good.signature)), ROOT)


# --- the clock ---------------------------------------------------------------

BUILT = datetime.datetime.fromtimestamp(BUILD_DATE, datetime.UTC)


@pytest.mark.parametrize(
    ("now", "synchronised", "not_before", "expected", "word"),
    [
        (NOW, True, NOW - 20 * DAY, NOW, ""),
        (NOW, False, NOW - 20 * DAY, BUILT, "not synchronised"),
        (NOW, False, NOW - 5 * DAY, NOW - 5 * DAY, "not synchronised"),
        (BUILT - DAY, True, NOW - 20 * DAY, BUILT, "before the agent's build date"),
        (BUILT - DAY, True, NOW - 5 * DAY, NOW - 5 * DAY, "before the agent's build date"),
        (datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC), False, NOW, NOW, "before the agent's build date"),
    ],
)
def test_time_of_judgement(
    now: datetime.datetime, synchronised: bool, not_before: datetime.datetime, expected: datetime.datetime, word: str
) -> None:  # [S-6]
    at, note = judging_time(reading(now, synchronised=synchronised), not_before)
    assert at == expected
    assert word in note
    assert bool(word) == bool(note)


def test_a_clock_out_of_range() -> None:
    at, note = judging_time(TimeReading(1e18, True, BUILD_DATE), NOW - 20 * DAY)
    assert at == BUILT
    assert note


def test_a_board_without_a_clock_loads() -> None:  # [S-6]
    verified = verify(signed(SIGNER), ROOT, at=TimeReading(0, False, BUILD_DATE))
    assert verified.judged_at == BUILT
    assert verified.clock_note


def test_a_board_without_a_clock_refuses_what_expired_before_its_build() -> None:  # [S-6]
    signer = pki.signer(ROOT, until=BUILT - DAY)
    with pytest.raises(TrustError, match="expired"):
        verify(signed(signer), ROOT, at=TimeReading(0, False, BUILD_DATE))


# --- bundle and statement ----------------------------------------------------


def bundle_of(**changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(signed(SIGNER))
    for path, content in changes.items():
        at: Any = value
        *way, last = path.split("__")
        for step in way:
            at = at[int(step) if step.isdigit() else step]
        if content is None:
            del at[last]
        else:
            at[last] = content
    return value


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"mediaType": "application/vnd.dev.sigstore.bundle.v0.2+json"}, "mediaType"),
        ({"more": 1}, "unknown key"),
        ({"dsseEnvelope": None}, "lacks dsseEnvelope"),
        ({"verificationMaterial": {"publicKey": {"hint": "x"}}}, "bare key"),
        ({"verificationMaterial__tlogEntries": [{}]}, "tlogEntries"),
        ({"verificationMaterial__x509CertificateChain__certificates": []}, "no certificate"),
        ({"verificationMaterial__x509CertificateChain__certificates": [{"rawBytes": ""}] * 11}, "at most 10"),
        ({"verificationMaterial__x509CertificateChain__certificates": [{"rawBytes": "AAAA"}]}, "cannot be read"),
        ({"dsseEnvelope__payloadType": "text/plain"}, "payloadType"),
        ({"dsseEnvelope__signatures": []}, "0 signatures"),
        ({"dsseEnvelope__signatures": [{"sig": ""}] * 2}, "2 signatures"),
        ({"dsseEnvelope__signatures": [{"sig": "", "keyid": "k"}]}, "keyid"),
        ({"dsseEnvelope__payload": "e30=="}, "base64"),
        ({"dsseEnvelope__payload": "e31="}, "not canonical base64"),
        ({"dsseEnvelope__payload": 7}, "must be text, not a number"),
    ],
)
def test_bundles_that_are_refused(changes: dict[str, Any], word: str) -> None:  # [S-2]
    with pytest.raises(SignatureError, match=word):
        verify(json.dumps(bundle_of(**changes)).encode(), ROOT)


def test_tlog_entries_and_keyid_may_be_left_out() -> None:
    value = bundle_of(verificationMaterial__tlogEntries=None)
    del value["dsseEnvelope"]["signatures"][0]["keyid"]
    assert verify(json.dumps(value, indent=1).encode(), ROOT)


def test_the_payload_is_not_looked_at_before_the_signature() -> None:
    value = bundle_of(dsseEnvelope__payload=base64.b64encode(b"not a statement").decode())
    with pytest.raises(SignatureError, match="not that of its certificate"):
        verify(json.dumps(value).encode(), ROOT)


def statement_of(**changes: Any) -> bytes:
    value: dict[str, Any] = json.loads(format_statement("digits-1.0", {"a": bytes(32)}))
    for path, content in changes.items():
        at: Any = value
        *way, last = path.split("__")
        for step in way:
            at = at[int(step) if step.isdigit() else step]
        at[last] = content
    return json.dumps(value).encode()


RESOURCE = {"name": "a", "algorithm": "sha256", "digest": "0" * 64}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "_type"),
        ({"predicateType": "https://model_signing/Digests/v0.1"}, "predicateType"),
        ({"subject": []}, "0 subjects"),
        ({"subject__0__digest": {"sha256": "0" * 64}}, "root digest"),
        ({"predicate__serialization__method": "shards"}, "method 'shards'"),
        ({"predicate__serialization__hash_type": "blake3"}, "hash_type 'blake3'"),
        ({"predicate__resources": [RESOURCE, RESOURCE]}, "twice"),
        ({"predicate__resources": [{**RESOURCE, "name": "../a"}]}, "leaves the package"),
        ({"predicate__resources": [{**RESOURCE, "name": "/a"}]}, "is absolute"),
        ({"predicate__resources": [{**RESOURCE, "name": "a//b"}]}, "shortest form"),
        ({"predicate__resources": [{**RESOURCE, "name": "./a"}]}, "shortest form"),
        ({"predicate__resources": [{**RESOURCE, "name": ""}]}, "shortest form"),
        ({"predicate__resources": [{**RESOURCE, "name": "a/" * 16 + "a"}]}, "folders deep"),
        ({"predicate__resources": [{**RESOURCE, "name": "a" * 1025}]}, "longer than"),
        ({"predicate__resources": [{**RESOURCE, "name": "a\0"}]}, "not text"),
        ({"predicate__resources": [{**RESOURCE, "digest": "0" * 63}]}, "no SHA-256"),
        ({"predicate__resources": [{**RESOURCE, "digest": "A" * 64}]}, "no SHA-256"),
        ({"predicate__resources": [{**RESOURCE, "algorithm": "sha1"}]}, "no SHA-256"),
    ],
)
def test_statements_that_are_refused(changes: dict[str, Any], word: str) -> None:  # [S-2] [L-11]
    with pytest.raises(SignatureError, match=word):
        parse_statement(statement_of(**changes))
    with pytest.raises(SignatureError, match=word):
        verify(forged(SIGNER, statement_of(**changes)), ROOT)


def test_other_fields_of_the_predicate_are_ignored() -> None:
    assert parse_statement(statement_of(predicate__more={"card": 1})).digests == {"a": bytes(32)}


def test_bundles_are_written_as_they_are_read() -> None:
    data = signed(SIGNER, ROOT.certificate)
    assert format_bundle(parse_bundle(data)) == data
