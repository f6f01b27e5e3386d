"""A strict object store: signs each request again with botocore, checks body hash, CRC and date, and injects faults."""

import base64
import contextlib
import hashlib
import json
import ssl
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote

from tests.fakes.captures import ENDS, unpacked
from tests.fakes.s3_checks import Key, Refusal, check
from tests.fakes.s3_uploads import Uploads
from tests.fakes.web import Handler, Web

BUCKET, REGION = "sagemaker-test", "eu-west-1"
ACCESS, SECRET = "AKIASTUBEXAMPLE", "stub/Secret+Key0123456789"


@dataclass
class _Planned:
    fault: Callable[["StubHandler", bytes], bool]
    times: int
    match: str


@dataclass
class Stored:
    """What was put under a key."""

    body: bytes
    content_type: str
    etag: str = '"1"'
    count: int = 1


class S3Stub(Web):
    """`objects` by key; `puts` counts requests by key; `complaints` are faults of the client that must not be."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, clock_offset: float = 0.0, region: str = REGION) -> None:
        super().__init__(tls)
        self.handler = StubHandler
        self.clock_offset = clock_offset
        self.region = region
        self.keys: dict[str, Key] = {ACCESS: Key(SECRET)}
        self.objects: dict[str, Stored] = {}
        self.order: list[str] = []
        self.heads: list[str] = []
        self.may_read = True
        self.puts: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.complaints: list[str] = []
        self.injected = 0
        self.lock = threading.Lock()
        self._plan: list[_Planned] = []
        self.max_bytes = 1 << 40
        self.delay = threading.Event()  # set: answers come at once
        self.delay.set()
        self.arrived = threading.Event()
        self.inside = self.most_inside = 0  # PUTs that came and are not answered
        self.clients: set[object] = set()  # connections
        self.uploads = Uploads()

    def now(self) -> float:
        return time.time() + self.clock_offset

    def inject(self, fault: Callable[["StubHandler", bytes], bool], times: int = 1, match: str = "") -> None:
        """Let `fault` answer the next `times` PUTs of keys with `match` in them."""
        with self.lock:
            self._plan.append(_Planned(fault, times, match))

    def heal(self) -> None:
        """No more faults."""
        with self.lock:
            self._plan.clear()

    def next_fault(self, key: str, before_body: bool) -> Callable[["StubHandler", bytes], bool] | None:
        """The fault for a PUT of this key, whose body is still to be read or was read."""
        with self.lock:
            for planned in self._plan:
                if planned.times > 0 and planned.match in key and (planned.fault in BEFORE_BODY) == before_body:
                    planned.times -= 1
                    self.injected += 1
                    return planned.fault
        return None

    def store(self, key: str, body: bytes, content_type: str, etag: str = '"1"') -> None:
        """Keep an object; what a reader would trip over is a complaint."""
        with self.lock:
            known = self.objects.get(key)
            if known is not None:
                known.count += 1
                if known.body != body:
                    self.complaints.append(f"{key}: put again with other bytes")
                return
            self.objects[key] = Stored(body, content_type, etag)
            self.order.append(key)
            if key.endswith(ENDS):
                lines = unpacked(key, body)
                self.complaints += [f"{key} names {name}, which is not there" for name in self._missing(lines)]

    def _missing(self, body: bytes) -> list[str]:
        references = []
        for line in body.splitlines():
            event = json.loads(line)
            for part in ("Inputs", "Outputs", "AuxiliaryInputs", "AuxiliaryOutputs"):
                references += [e["data-ref"] for e in event["deviceFleet" + part] if "data-ref" in e]
        return [r for r in references if r.removeprefix(f"s3://{BUCKET}/") not in self.objects]

    def records(self) -> dict[str, dict]:
        """Every record by capture id; a capture that is there twice fails."""
        found: dict[str, dict] = {}
        with self.lock:
            bodies = [unpacked(key, o.body) for key, o in self.objects.items() if key.endswith(ENDS)]
        for body in bodies:
            for line in body.decode("ascii").splitlines():
                event = json.loads(line)
                capture_id = event["eventMetadata"]["eventId"]
                assert capture_id not in found, capture_id
                found[capture_id] = event
        return found


class StubHandler(Handler):
    """One connection."""

    def do_HEAD(self) -> None:
        stub: S3Stub = self.server.owner  # type: ignore[attr-defined]
        _, key = self.address()
        stub.heads.append(key)
        known = stub.objects.get(key)
        if known is None or not stub.may_read:
            self.answer(403 if not stub.may_read else 404)
            return
        crc = base64.b64encode(zlib.crc32(known.body).to_bytes(4, "big")).decode()
        length = str(len(known.body))
        self.answer(200, headers={"Content-Length": length, "ETag": known.etag, "x-amz-checksum-crc32": crc})

    def do_POST(self) -> None:
        self.do_PUT()

    def do_DELETE(self) -> None:
        self.do_PUT()

    def do_PUT(self) -> None:
        """Any request for an object; one of an upload in parts counts, and has faults, under key?query."""
        stub: S3Stub = self.server.owner  # type: ignore[attr-defined]
        bucket, key = self.address()
        stub.clients.add(self.client_address)
        with stub.lock:
            stub.puts[key] += 1
            stub.inside += 1
            stub.most_inside = max(stub.most_inside, stub.inside)
        try:
            self._put(stub, bucket, key)
        finally:
            with stub.lock:
                stub.inside -= 1

    def address(self) -> tuple[str, str]:
        """Bucket and key, the query with it as it came."""
        path, mark, query = self.path.partition("?")
        bucket, _, key = unquote(path).lstrip("/").partition("/")
        if self.headers["Host"].startswith(BUCKET + "."):
            bucket, key = BUCKET, unquote(path)[1:]
        return bucket, key + mark + query

    def _put(self, stub: S3Stub, bucket: str, key: str) -> None:
        if (fault := stub.next_fault(key, before_body=True)) is not None and fault(self, b""):
            return
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        stub.arrived.set()
        stub.delay.wait(5)
        if (fault := stub.next_fault(key, before_body=False)) is not None and fault(self, body):
            return
        try:
            if bucket != BUCKET:
                raise Refusal(404, "NoSuchBucket")
            check(stub, self, body)
        except Refusal as refusal:
            stub.refused[refusal.code] += 1
            self.refuse(refusal.status, refusal.code, refusal.extra, refusal.headers)
            return
        if "?" in key:
            stub.uploads.answer(self, stub, key, body)
            return
        if self.headers["Content-Encoding"]:
            stub.complaints.append(f"{key}: has a Content-Encoding, which some clients undo and others do not")
        stub.store(key, body, self.headers["Content-Type"])
        self.answer(200, headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

    def refuse(self, status: int, code: str, extra: str = "", headers: dict[str, str] | None = None) -> None:
        """Answer with an S3 error document."""
        text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>{extra}</Error>'
        self.answer(status, text.encode(), {"Content-Type": "application/xml", **(headers or {})})

    def stored(self, body: bytes) -> None:
        """Take the object, as a store does whose answer gets lost."""
        stub: S3Stub = self.server.owner  # type: ignore[attr-defined]
        check(stub, self, body)
        _, key = self.address()
        if "?" in key:
            stub.uploads.take(self, stub, key, body)
            return
        stub.store(key, body, self.headers["Content-Type"])


# --- faults; each answers, or leaves the connection as a fault does ---------------------------------------------------


def refusing(status: int, code: str, extra: str = "", headers: dict[str, str] | None = None) -> Callable[..., bool]:
    """An error document."""

    def fault(handler: StubHandler, body: bytes) -> bool:
        handler.refuse(status, code, extra, headers)
        return True

    return fault


def reset(handler: StubHandler, body: bytes) -> bool:
    """The connection breaks before an answer; the object is stored all the same."""
    handler.stored(body)
    handler.reset()
    return True


def stall(handler: StubHandler, body: bytes) -> bool:
    """No answer until the client goes."""
    handler.connection.recv(1)
    handler.close_connection = True
    return True


def truncated_head(handler: StubHandler, body: bytes) -> bool:
    """An answer whose headers end in the middle."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nServer: stub\r\n")
    handler.close_connection = True
    return True


def truncated_body(handler: StubHandler, body: bytes) -> bool:
    """An answer whose body ends in the middle."""
    handler.answer(200, b"<", {"Content-Length": "100"})
    handler.close_connection = True
    return True


def not_http(handler: StubHandler, body: bytes) -> bool:
    """Something else than HTTP."""
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2p1\r\n")
    handler.close_connection = True
    return True


def error_with_200(handler: StubHandler, body: bytes) -> bool:
    """Success on the status line, an error in the body."""
    handler.refuse(200, "InternalError")
    return True


def portal(handler: StubHandler, body: bytes) -> bool:
    """The page of a captive portal."""
    handler.answer(200, b"<!DOCTYPE html><html>Please log in</html>", {"Content-Type": "text/html"})
    return True


def answering(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Callable[..., bool]:
    """What some other server answers."""

    def fault(handler: StubHandler, body_sent: bytes) -> bool:
        handler.answer(status, body, headers)
        return True

    return fault


def acknowledge_only(handler: StubHandler, body: bytes) -> bool:
    """A store's answer, and nothing stored."""
    handler.answer(200, headers={"ETag": '"1"', "x-amz-request-id": "1"})
    return True


def continue_for_ever(handler: StubHandler, body: bytes) -> bool:
    """100 Continue again and again, as fast as they are read."""
    with contextlib.suppress(OSError):
        while not handler.server.owner.closing.is_set():  # type: ignore[attr-defined]
            handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
    handler.close_connection = True
    return True


@dataclass
class Drip:
    """An answer a byte at a time, in steps shorter than any stall, until the client goes."""

    seconds: float

    def __call__(self, handler: StubHandler, body: bytes) -> bool:
        with contextlib.suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nServer: ")
            while not handler.server.owner.closing.wait(self.seconds):  # type: ignore[attr-defined]
                handler.wfile.write(b"x")
        handler.close_connection = True
        return True


def refuse_mid_body(handler: StubHandler, body: bytes) -> bool:
    """An answer before the body was read, and an end with a reset, as unread bytes make it."""
    handler.refuse(503, "SlowDown", headers={"Connection": "close"})
    handler.close_connection = True
    return True


def continue_first(handler: StubHandler, body: bytes) -> bool:
    """100 Continue, and then what is due."""
    handler.send_response_only(100)
    handler.end_headers()
    return False


BEFORE_BODY = (refuse_mid_body, continue_first)


@dataclass
class Redirect:
    """A redirect to a trap, which notes whoever follows."""

    status: int
    trap: Web
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, handler: StubHandler, body: bytes) -> bool:
        code = "TemporaryRedirect" if self.status == 307 else "PermanentRedirect"
        handler.refuse(self.status, code, headers={"Location": self.trap.url + handler.path, **self.headers})
        return True
