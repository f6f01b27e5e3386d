"""What is fuzzed: for each format that comes from outside, good inputs, its tokens, and what must hold for any bytes.

A check raises nothing, whatever the bytes: it knows the errors that they may end in.
"""

import gzip
import json
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

from google.protobuf.message import Message

from edge.clock import SystemClock
from edge.cloud.aws import credentials
from edge.cloud.aws.answer import Patience
from edge.cloud.aws.client import S3Location
from edge.cloud.aws.credentials import EnvironmentCredentials
from edge.cloud.aws.s3 import S3Store
from edge.cloud.aws.transport import Reply
from edge.cloud.aws.trust import public_trust
from edge.cloud.store import Body, Pace, StoreError
from edge.engine.engine import SessionOptions
from edge.engine.model_file import check_model_file
from edge.engine.tflite import TfliteEngine
from edge.errors import EdgeError, ManifestError, ModelRefusedError, PackageError, SignatureError, TrustError
from edge.package.bundle import format_statement, parse_bundle, parse_statement
from edge.package.contents import open_contents
from edge.package.manifest import MANIFEST_FILE, SIGNATURE_FILE, format_manifest, parse_manifest
from edge.package.selftest import Case, GoldenTensor, SelfTest, format_selftest, parse_selftest
from edge.package.signing import TimeReading, verify_signature
from edge.rpc import codec, status
from edge.rpc._generated import agent_pb2 as pb
from edge.serving.binding import InputBinder
from edge.tensors import DType
from tests.fakes.packages import BUILD_DATE, LIMITS, ROOT, entries_of, files_of, tar_of
from tests.fakes.signing_pki import NOW
from tests.fuzz import fleet, inference, records

DATA = Path(__file__).parents[1] / "data"
FORMS = (2, 1, 0)  # of a tar, as the standard library numbers them: pax, GNU, ustar


@dataclass(frozen=True)
class Target:
    """A format. `is_json`: its good inputs are also altered as documents."""

    seeds: tuple[bytes, ...]
    tokens: tuple[bytes, ...]
    check: Callable[[bytes], None]
    is_json: bool = False


# --- requests -----------------------------------------------------------------------

REQUESTS: tuple[type[Message], ...] = (
    pb.PredictRequest, pb.LoadModelRequest, pb.UnLoadModelRequest, pb.ListModelsRequest, pb.DescribeModelRequest,
    pb.CaptureDataRequest, pb.GetCaptureDataStatusRequest,
)  # fmt: skip


def _requests() -> tuple[bytes, ...]:
    metadata = pb.TensorMetadata(name="x", data_type=pb.FLOAT32, shape=[1, 4])
    segment = pb.SharedMemoryHandle(segment_id=3, offset=64, size=16)
    tensors = [
        pb.Tensor(tensor_metadata=metadata, byte_data=bytes(16)),
        pb.Tensor(tensor_metadata=metadata, shared_memory_handle=segment),
        pb.Tensor(byte_data=bytes(16)),
    ]
    made: list[Message] = [pb.PredictRequest(name="m", tensors=[tensor]) for tensor in tensors]
    made.append(pb.PredictRequest(handle="m", tensors=tensors * 3))
    made.append(pb.LoadModelRequest(url="file:///models/m", name="m"))
    made.append(
        pb.CaptureDataRequest(
            model_name="m",
            capture_id="id",
            inference_timestamp=pb.Timestamp(seconds=1, nanos=5),
            input_tensors=tensors,
            outputs=[pb.AuxiliaryData(name="a", encoding=pb.JSON, byte_data=b"{}")],
        )
    )
    return tuple(one.SerializeToString() for one in made)


@cache
def _binders() -> tuple[InputBinder, ...]:
    engine = TfliteEngine()
    models = ("add_one", "dynamic_batch", "mixed_types", "scalar")
    return tuple(InputBinder(engine.open(str(DATA / f"{name}.tflite"), SessionOptions()).inputs) for name in models)


def check_request(data: bytes) -> None:
    """Any message is read or refused, and never as a fault of the agent's own."""
    for message in REQUESTS:
        _answered(lambda message=message: codec.parse(message, data))  # type: ignore[misc]
    for binder in _binders():
        _answered(lambda binder=binder: binder.bind(codec.parse_predict(data)[1]))  # type: ignore[misc]
    for begin, end in codec.byte_data_ranges(data) or ():
        assert 0 <= begin <= end <= len(data)


def _answered(call: Callable[[], object]) -> None:
    try:
        call()
    except EdgeError as error:
        assert status.status_of(error)[0] is not status.INTERNAL, error


# --- packages -----------------------------------------------------------------------

FILES = files_of({"digits.tflite": b"a model", "sub/labels.txt": b"zero"})
READING = TimeReading(NOW.timestamp(), True, BUILD_DATE)


def check_signature(data: bytes) -> None:
    """A signature vouches for what was signed, whatever its form, or is refused."""
    with suppress(SignatureError):
        parse_bundle(data)
    with suppress(SignatureError):
        parse_statement(data)
    with suppress(SignatureError, TrustError):
        assert set(verify_signature(data, [ROOT.certificate], READING).digests) == set(FILES) - {SIGNATURE_FILE}


SELFTEST = SelfTest(
    (Case("one", (GoldenTensor("x", DType.FLOAT32, (1, 4)),), (GoldenTensor("y", DType.INT8, (1, 4), 1, 0.5),)),)
)


def check_selftest(data: bytes) -> None:
    """A self-test that is read is written and read again as the same, and its tensors are as many bytes as there are."""
    with suppress(PackageError):
        selftest = parse_selftest(data, SELFTEST.byte_count)
        assert parse_selftest(format_selftest(selftest), SELFTEST.byte_count) == selftest
        assert sum(tensor.byte_count for tensor in selftest.tensors()) == SELFTEST.byte_count


def check_manifest(data: bytes) -> None:
    """A manifest that is read is written and read again as the same."""
    with suppress(ManifestError):
        manifest = parse_manifest(data)
        assert parse_manifest(format_manifest(manifest)) == manifest
        assert "/" not in manifest.model


def check_tar(data: bytes) -> None:
    """An archive gives each path once, inside the package, and no more than the limits; or is refused."""
    packed = data if data.startswith(b"\x1f\x8b") else gzip.compress(data, 1)
    fd = os.memfd_create("archive", os.MFD_CLOEXEC)
    try:
        os.write(fd, packed)
        with suppress(PackageError):
            contents = open_contents(fd, LIMITS)
            contents.head()
            paths = []
            for file in contents.files():
                assert sum(map(len, file.chunks)) == file.size
                paths.append(file.path)
            assert len(set(paths)) == len(paths) <= LIMITS.max_entries
            assert not any(".." in path.split("/") or path.startswith("/") for path in paths)
    finally:
        os.close(fd)


def check_model(data: bytes) -> None:
    """A model file holds together or is refused."""
    with suppress(ModelRefusedError), memoryview(data) as view:
        check_model_file(view)


# --- the cloud ----------------------------------------------------------------------

STORED = b'HTTP/1.1 200 OK\r\nETag: "1"\r\nx-amz-request-id: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
KEYS = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret"}
ANSWERS = (
    STORED,
    b"HTTP/1.1 403 Forbidden\r\nDate: Mon, 01 Jun 2026 12:00:00 GMT\r\nContent-Length: 97\r\n\r\n"
    b"<?xml version='1.0'?><Error><Code>RequestTimeTooSkewed</Code><Message>The difference</Message></Error>",
    b"HTTP/1.1 301 Moved\r\nx-amz-bucket-region: eu-west-1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\n<Erro\r\n3\r\nr/>\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Slow Down\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n",
)


class _Answering:
    """A server that answers every request with the same bytes, and closes the connection."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.answer = STORED
        self._thread = threading.Thread(target=self._serve, name="answering", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.settimeout(5)
                request = b""
                while b"\r\n\r\n" not in request:
                    if not (more := connection.recv(65536)):
                        break
                    request += more
                connection.sendall(self.answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass


class _Unhurried:
    """A pace without a limit."""

    chunk_bytes = 1 << 16

    def pay(self, count: int) -> None:
        """There is nothing to wait for."""


@cache
def answering() -> _Answering:
    """The one server of this process."""
    return _Answering()


def check_answer(data: bytes) -> None:
    """An answer stores nothing that it does not acknowledge, and cannot stop the uploads after it."""
    server = answering()
    location = S3Location(
        "b", "eu-west-1", f"http://127.0.0.1:{server.port}", patience=Patience(5.0, 5.0, 10.0)
    )  # fmt: skip
    store = S3Store(location, EnvironmentCredentials(KEYS), SystemClock(), public_trust)
    pace: Pace = _Unhurried()
    body = Body(Path(__file__), 0)
    try:
        server.answer = data
        with suppress(StoreError):
            store.put("key", body, "text/plain", pace)
            assert b"200" in data  # after any blank: the status line may have one that ASCII has not
        server.answer = STORED
        for _ in range(2):
            with suppress(StoreError):
                store.put("key", body, "text/plain", pace)
                return
        store.put("key", body, "text/plain", pace)
    finally:
        store.close()


KEY_NAMES = (
    ("accessKeyId", "secretAccessKey", "sessionToken", "expiration"),
    ("AccessKeyId", "SecretAccessKey", "Token", "Expiration"),
)
VALUES = ("ASIA", "secret", "token", "2026-06-01T12:00:00Z")
CREDENTIALS = (
    json.dumps({"credentials": dict(zip(KEY_NAMES[0], VALUES, strict=True))}).encode(),
    json.dumps(dict(zip(KEY_NAMES[1], VALUES, strict=True))).encode(),
)


def check_credentials(data: bytes) -> None:
    """Credentials can stand in a header and end at some time, or there are none."""
    for code, names in product((200, 403, 503), KEY_NAMES):
        with suppress(StoreError):
            reply = Reply(code, {"date": "Mon, 01 Jun 2026 12:00:00 GMT"}, data)
            keys, end = credentials._read(reply, names, "the endpoint")
            assert code == 200
            assert end == float(end)
            assert all(text.isascii() and text.isprintable() for text in (keys.access_key, keys.secret_key))


JSON_TOKENS = (
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b"\\u0000",
    b"\\ud800",
    b"NaN",
    b"1e999",
    b"-0",
    b"null",
    b"\xff",
)
TARGETS = {
    "requests": Target(
        _requests(),
        (b"\x0a", b"\x12", b"\x18\xff\xff\xff\xff\x0f", b"\x1a\x02", b"\x22\x00", b"\x80" * 10, b"\xff" * 5, b"\x0b", b"\x0c"),
        check_request,
    ),
    "inference": Target(inference.seeds(), inference.TOKENS, inference.check),
    "records": Target(records.seeds(), (*JSON_TOKENS, *records.TOKENS), records.check, is_json=True),
    "fleet": Target(fleet.seeds(), (*JSON_TOKENS, *fleet.TOKENS), fleet.check, is_json=True),
    "signature": Target(
        (FILES[SIGNATURE_FILE], format_statement("p", {"a": bytes(32), "b/c": bytes(32)})),
        JSON_TOKENS, check_signature, is_json=True,
    ),
    "manifest": Target((FILES[MANIFEST_FILE],), JSON_TOKENS, check_manifest, is_json=True),
    "selftest": Target((format_selftest(SELFTEST),), JSON_TOKENS, check_selftest, is_json=True),
    "tar": Target(
        (*(tar_of(entries_of(FILES, "p/"), form) for form in FORMS), gzip.compress(tar_of(entries_of(FILES)), mtime=0)),
        (bytes(512), b"ustar\0", b"././@LongLink", b"11 path=a\n", b"12 size=99\n", b"../", b"/", b"\x80", b"7777777"),
        check_tar,
    ),
    "model": Target(
        tuple((DATA / f"{name}.tflite").read_bytes() for name in ("add_one", "look_up", "mixed_types", "name_empty")),
        (b"TFL3", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4), b"\x04\0\0\0", b"\xfc\xff\xff\xff"),
        check_model,
    ),
    "answers": Target(
        ANSWERS,
        (b"\r\n", b"\n", b": ", b"HTTP/1.1 200 OK\r\n", b"Date: Fri, 31 Dec 9999 23:59:59 GMT\r\n", b"Content-Length: -1\r\n",
         b"Transfer-Encoding: chunked\r\n", b"ffffffffffffffff\r\n", b"x-amz-bucket-region: \r\n", b"Retry-After: 1e400\r\n"),
        check_answer,
    ),
    "credentials": Target(CREDENTIALS, (*JSON_TOKENS, b"9999-12-31", b"0001-01-01T00:00:00+23:59"), check_credentials, is_json=True),
}  # fmt: skip
