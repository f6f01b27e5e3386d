"""The signer against AWS's own vectors, AWS's documented S3 example, and botocore; and that these would notice a fault."""

import datetime
import hashlib
import json
import random
import string
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from edge.cloud.aws import sigv4
from edge.cloud.aws.sigv4 import Keys

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "sigv4_vectors.json").read_text(encoding="utf-8"))
PUTS = 3000


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda v: v["name"])
def test_aws_vectors(vector: dict[str, Any]) -> None:
    digest = hashlib.sha256(vector["body"].encode()).hexdigest()
    headers = dict(vector["headers"])
    if vector["sign_body"]:
        headers["x-amz-content-sha256"] = digest
    keys = Keys(VECTORS["access_key"], VECTORS["secret_key"], vector["token"])
    path = sigv4.encode_path(vector["path"])
    sent = sigv4.sign(
        vector["method"],
        path,
        headers,
        digest,
        keys=keys,
        region=VECTORS["region"],
        service=VECTORS["service"],
        at=datetime.datetime.fromisoformat(VECTORS["time"]).timestamp(),
    )
    signed = {name: value for name, value in sent.items() if name != "authorization"}
    assert sigv4.canonical_request(vector["method"], path, signed, digest) == vector["canonical"]
    assert sent["authorization"].endswith(f"Signature={vector['signature']}")


def test_the_documented_put() -> None:
    """ "Signature Calculations for the Authorization Header", example PUT Object, in the S3 API reference."""
    digest = hashlib.sha256(b"Welcome to Amazon S3.").hexdigest()
    sent = sigv4.sign(
        "PUT",
        sigv4.encode_path("/test$file.text"),
        {
            "date": "Fri, 24 May 2013 00:00:00 GMT",
            "host": "examplebucket.s3.amazonaws.com",
            "x-amz-content-sha256": digest,
            "x-amz-storage-class": "REDUCED_REDUNDANCY",
        },
        digest,
        keys=Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        region="us-east-1",
        service="s3",
        at=datetime.datetime(2013, 5, 24, tzinfo=datetime.UTC).timestamp(),
    )
    assert sent["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class, "
        "Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
    )


def random_put(chance: random.Random) -> dict[str, Any]:
    """The arguments of a PUT as this agent makes them, and stranger."""

    def text(low: int, high: int, letters: str = string.ascii_letters + string.digits) -> str:
        return "".join(chance.choices(letters, k=chance.randint(low, high)))

    key = text(1, 80, string.printable.strip() + " é€😀/" + string.ascii_letters * 3)
    digest = hashlib.sha256(chance.randbytes(chance.randint(0, 100))).hexdigest()
    host = chance.choice(
        ["b.s3.eu-west-1.amazonaws.com", "127.0.0.1:9000", "[::1]:9000", f"{text(3, 20).lower()}.example"]
    )
    headers = {
        "host": host,
        "content-type": chance.choice(
            ["application/jsonlines", "application/octet-stream", "text/plain;  charset=utf-8"]
        ),
        "x-amz-checksum-crc32": text(6, 6) + "==",
        "x-amz-content-sha256": digest,
    }
    if chance.random() < 0.3:
        headers[f"x-amz-meta-{text(1, 9).lower()}"] = f"  {text(0, 9)}  {text(1, 9)} "
    token = text(1, 900, string.ascii_letters + "+/=") if chance.random() < 0.5 else ""
    query = {"uploadId": text(1, 60, string.printable.strip()), "partNumber": text(1, 4, string.digits), "uploads": ""}
    names = chance.sample(sorted(query), chance.choice([0, 0, 1, 2]))
    return {
        "method": chance.choice(["PUT", "POST", "DELETE"]),
        "query": sigv4.encode_query({name: query[name] for name in names}),
        "path": sigv4.encode_path("/bucket/" + key),
        "headers": headers,
        "payload_sha256": digest,
        "keys": Keys(text(16, 20), text(20, 60, string.ascii_letters + "+/"), token),
        "region": chance.choice(["us-east-1", "cn-north-1", "eu-west-1", "x"]),
        "service": "s3",
        "at": chance.uniform(0, 4e9),
    }


def by_botocore(put: dict[str, Any]) -> str:
    """The Authorization header of botocore's signer."""
    keys: Keys = put["keys"]
    stamp = datetime.datetime.fromtimestamp(int(put["at"]), datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {**put["headers"], "X-Amz-Date": stamp}
    if keys.session_token:
        headers["X-Amz-Security-Token"] = keys.session_token
    url = f"https://{put['headers']['host']}{put['path']}" + (f"?{put['query']}" if put["query"] else "")
    request = AWSRequest(put["method"], url, headers=headers)
    request.context["timestamp"] = stamp
    signer = S3SigV4Auth(Credentials(keys.access_key, keys.secret_key, keys.session_token or None), "s3", put["region"])
    text = signer.string_to_sign(request, signer.canonical_request(request))
    signer._inject_signature_to_request(request, signer.signature(text, request))
    return str(request.headers["Authorization"])


def test_random_puts_are_signed_as_botocore_signs_them() -> None:
    chance = random.Random(20260131)
    for _ in range(PUTS):
        put = random_put(chance)
        assert sigv4.sign(**put)["authorization"] == by_botocore(put), put


def _mutants() -> dict[str, tuple[str, str]]:
    """Faults that one could make in the signer: a piece of its source, and what stands there instead."""
    return {
        "headers not sorted": ("for name in sorted(headers))", "for name in headers)"),
        "names not sorted": ('";".join(sorted(signed))', '";".join(signed)'),
        "token not signed": ('signed["x-amz-security-token"] = keys.session_token', "pass"),
        "time not signed": ('canonical_request(method, path, signed, payload_sha256, query)', 'canonical_request(method, path, {k: v for k, v in signed.items() if k != "x-amz-date"}, payload_sha256, query)'),
        "a header left out": ('canonical_request(method, path, signed, payload_sha256, query)', 'canonical_request(method, path, {k: v for k, v in signed.items() if k != "x-amz-checksum-crc32"}, payload_sha256, query)'),
        "spaces kept": ("' '.join(headers[name].split())", "headers[name].strip()"),
        "not trimmed": ("' '.join(headers[name].split())", "headers[name]"),
        "path encoded twice": ("(method, path, query,", "(method, quote(path, safe='/-._~'), query,"),
        "no line for the query": ('(method, path, query, lines,', "(method, path, lines,"),
        "query not signed": ('(method, path, query, lines,', '(method, path, "", lines,'),
        "query not sorted": ("pairs = sorted(", "pairs = list("),
        "slash of a query left": ('quote(value, safe="-._~")', "quote(value)"),
        "no blank line after the headers": ('{name}:{\' \'.join(headers[name].split())}\\n" for', '{name}:{\' \'.join(headers[name].split())}" for'),
        "slash encoded": ('safe="/-._~"', 'safe="-._~"'),
        "tilde encoded with others left": ('safe="/-._~"', 'safe="/-._~!*\'()"'),
        "empty payload hash": ('";".join(sorted(headers)), payload_sha256)', '";".join(sorted(headers)), hashlib.sha256().hexdigest())'),
        "no AWS4": ('"AWS4" + keys.secret_key', "keys.secret_key"),
        "wrong end of the scope": ("aws4_request", "aws4request"),
        "region and service swapped": ("{region}/{service}/aws4", "{service}/{region}/aws4"),
        "long date in the scope": ("{stamp[:8]}", "{stamp}"),
        "key derived without the end": ('scope.split("/")', 'scope.split("/")[:3]'),
        "local time": ("datetime.UTC)", "datetime.timezone(datetime.timedelta(hours=1)))"),
        "hash of the request in capitals": (".hexdigest()))", ".hexdigest().upper()))"),
        "signature in base64": (".hex()", ".hex().upper()"),
        "sha1": ('"sha256")', '"sha1")'),
    }  # fmt: skip


@pytest.mark.parametrize("name", _mutants())
def test_a_fault_in_the_signer_is_noticed(name: str) -> None:
    old, new = _mutants()[name]
    source = Path(str(sigv4.__file__)).read_text()
    assert old in source, "the mutation does not fit the source any more"
    mutant = types.ModuleType("mutant")
    sys.modules["mutant"] = mutant  # dataclasses look their module up
    try:
        exec(compile(source.replace(old, new), "mutant", "exec"), mutant.__dict__)
    finally:
        del sys.modules["mutant"]
    chance = random.Random(7)

    assert any(_noticed(mutant, random_put(chance)) for _ in range(50)), name


def _noticed(mutant: Any, put: dict[str, Any]) -> bool:
    """Whether a mutant signs or encodes a request otherwise than it should."""
    odd = "/b/a b$c~d!e'f(g)"
    return bool(
        mutant.sign(**put).get("authorization") != by_botocore(put)
        or mutant.encode_path(odd) != "/b/a%20b%24c~d%21e%27f%28g%29"
        or mutant.encode_query({"uploads": "", "id": "a/b c+~="}) != "id=a%2Fb%20c%2B~%3D&uploads="
    )


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(Keys("AKIA", "hidden-secret", "hidden-token"))
