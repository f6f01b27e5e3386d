"""Where the keys come from: AWS IoT by mutual TLS, a program on this machine, or the environment.

The IoT credentials provider: https://docs.aws.amazon.com/iot/latest/developerguide/authorizing-direct-aws.html
"""

import json
import logging
import os
import ssl
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import urlsplit

from edge import access
from edge.clock import Clock
from edge.cloud.aws.answer import Patience
from edge.cloud.aws.dialling import Peer
from edge.cloud.aws.faults import TransportError
from edge.cloud.aws.proxy import is_loopback
from edge.cloud.aws.sigv4 import Keys
from edge.cloud.aws.transport import Reply, Transport
from edge.cloud.retry import (
    Answer,
    Outcome,
    Verdict,
    judge_credentials,
    judge_fault,
    read_date,
    read_retry_after,
)
from edge.cloud.store import StoreError
from edge.text import printable, shown

log = logging.getLogger(__name__)

MARGIN_SECONDS = 300.0  # credentials are renewed this long before they end, or a tenth of their life
MARGIN_SHARE = 0.1
MAX_LIFE_SECONDS = 43_200.0  # longest validity that AWS gives to a role's keys
RENEW_AGAIN_SECONDS = 30.0  # between failing renewals while the old credentials still hold
CONTAINER_URI = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
CONTAINER_TOKEN = "AWS_CONTAINER_AUTHORIZATION_TOKEN"  # noqa: S105 - a variable's name
_IOT_FIELDS = ("accessKeyId", "secretAccessKey", "sessionToken", "expiration")
_CONTAINER_FIELDS = ("AccessKeyId", "SecretAccessKey", "Token", "Expiration")


class CredentialSource(Protocol):
    """Gives keys that hold."""

    def get(self) -> Keys:
        """Keys to sign with now.

        Raises:
            StoreError: there are none; the verdict says what to wait for.
        """
        ...

    def reject(self, keys: Keys) -> None:
        """A store does not accept these: the next `get` asks for new ones."""
        ...

    def check(self) -> None:
        """Look at what is on this device.

        Raises:
            StoreError: it cannot work.
        """
        ...

    def abort(self) -> None:
        """End a request under way."""
        ...


class EnvironmentCredentials:
    """AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, where there is one, AWS_SESSION_TOKEN."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    def get(self) -> Keys:
        """The keys; StoreError if the environment lacks them."""
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        missing = [name for name in names if not self._environment.get(name, "").strip()]
        if missing:
            raise _unusable(
                f"there are no credentials: set sagemaker_edge_provider_aws_*, or {' and '.join(missing)} in the "
                "agent's environment"
            )
        values = {name: self._environment.get(name, "").strip() for name in (*names, "AWS_SESSION_TOKEN")}
        for name, value in values.items():
            if not value.isascii() or not value.isprintable():
                raise _unusable(f"{name} in the agent's environment has characters that a key cannot have")
        return Keys(*values.values())

    def reject(self, keys: Keys) -> None:
        """Nothing can be done: the environment of a process does not change."""

    def check(self) -> None:
        """As `get`."""
        self.get()

    def abort(self) -> None:
        """Nothing is ever under way."""


class RenewedCredentials(ABC):
    """Temporary keys of a role, asked of an endpoint anew before they end. A kind of endpoint says how it is asked."""

    def __init__(self, what: str, fields: Sequence[str], clock: Clock, patience: Patience) -> None:
        """`fields` are the answer's names for access key, secret key, token and end."""
        self._what = what
        self._fields = fields
        self._clock = clock
        self._patience = patience
        self._keys: Keys | None = None
        self._renew_at = 0.0  # monotonic
        self._ends_at = 0.0
        self._transport: Transport | None = None
        self._lock = threading.Lock()  # one renewal at a time
        self._renewals = 0  # that failed
        self._failure: tuple[int, StoreError] | None = None  # the last that left no keys, and which it was

    @abstractmethod
    def _request(self) -> tuple[Peer, str, dict[str, str]]:
        """Whom to ask, for which path, with which headers.

        Raises:
            StoreError: that cannot be told.
        """

    def get(self) -> Keys:
        """The keys, asked for anew when their end is near.

        Raises:
            StoreError: there are none that hold.
        """
        asked = self._renewals
        with self._lock:
            if self._failure is not None and self._failure[0] > asked:
                raise StoreError(self._failure[1].verdict)  # of the renewal that was just waited for
            return self._get()

    def _get(self) -> Keys:
        now = self._clock.monotonic()
        if self._keys is not None and now < self._renew_at:
            return self._keys
        try:
            return self._renew()
        except StoreError as error:
            self._renewals += 1
            if self._keys is None or now >= self._ends_at:
                self._failure = self._renewals, error
                raise
            self._renew_at = now + RENEW_AGAIN_SECONDS
            log.warning("the credentials cannot be renewed yet: %s", error)
            return self._keys

    def reject(self, keys: Keys) -> None:
        """Forget these keys, unless they were replaced already."""
        with self._lock:
            if self._keys == keys:
                self._keys = None

    def check(self) -> None:
        """Whether the request can be made.

        Raises:
            StoreError: naming what is wrong, and how to fix it.
        """
        self._request()

    def abort(self) -> None:
        """End a request under way."""
        if (transport := self._transport) is not None:
            transport.abort()

    def _renew(self) -> Keys:
        peer, path, headers = self._request()
        transport = self._transport = Transport(peer, self._clock, self._patience)
        try:
            reply = transport.exchange("GET", path, {"host": peer.authority, "accept": "*/*", **headers})
        except TransportError as error:
            verdict = judge_fault(error.fault, error.detail)
            raise StoreError(Verdict(verdict.outcome, f"{self._what}: {verdict.reason}", slow=verdict.slow)) from None
        finally:
            self._transport = None
            transport.close()
        keys, expiration = _read(reply, self._fields, self._what)
        now = self._clock.monotonic()
        # The life is counted by the endpoint's own clock: this device's may be years off.
        date = read_date(reply.headers.get("date"))
        life = min(expiration - (self._clock.now() if date is None else date), MAX_LIFE_SECONDS)
        self._keys = keys
        self._ends_at = now + life
        self._renew_at = now + max(life - max(MARGIN_SECONDS, life * MARGIN_SHARE), life / 2)
        log.debug("credentials for %.0f s", life)
        return keys


@dataclass(frozen=True)
class IotSettings:
    """The device's identity towards AWS IoT; `endpoint` is https://HOST/role-aliases/ALIAS/credentials."""

    endpoint: str
    ca_file: str
    certificate_file: str
    key_file: str
    thing_name: str
    patience: Patience = field(default_factory=Patience)


class IotCredentials(RenewedCredentials):
    """Keys for the device's X.509 certificate."""

    def __init__(self, settings: IotSettings, clock: Clock) -> None:
        super().__init__("the IoT credentials endpoint", _IOT_FIELDS, clock, settings.patience)
        self._settings = settings

    def _request(self) -> tuple[Peer, str, dict[str, str]]:
        context = self._context()
        try:
            peer = Peer.of(self._settings.endpoint, context)
        except ValueError as error:
            raise _unusable(str(error)) from None
        return peer, urlsplit(self._settings.endpoint).path, {"x-amzn-iot-thingname": self._settings.thing_name}

    def _context(self) -> ssl.SSLContext:
        """A context with the device's identity, from the files as they are now: certificates are rotated in place.

        Raises:
            StoreError: naming the file that cannot be used, and how to fix it.
        """
        settings = self._settings
        try:
            context = ssl.create_default_context(cafile=settings.ca_file)
        except OSError as error:
            raise _unusable(f"the CA file {settings.ca_file} cannot be used: {_why(error)}") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        key_fd = _open_key(settings.key_file)
        try:
            # The descriptor that was checked is the one that is read.
            context.load_cert_chain(settings.certificate_file, f"/proc/self/fd/{key_fd}", password=lambda: "")
        except OSError as error:
            raise _unusable(
                f"the certificate {settings.certificate_file} and the private key {settings.key_file} cannot be used: "
                f"{_why(error)}"
            ) from None
        finally:
            os.close(key_fd)
        return context


class ContainerCredentials(RenewedCredentials):
    """Keys that a program on this machine hands out, such as the token exchange service of AWS IoT Greengrass.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
    """

    def __init__(
        self, clock: Clock, environment: Mapping[str, str] = os.environ, patience: Patience | None = None
    ) -> None:
        super().__init__("the credentials service of this machine", _CONTAINER_FIELDS, clock, patience or Patience())
        self._url = environment[CONTAINER_URI]
        self._token = environment.get(CONTAINER_TOKEN, "")

    def _request(self) -> tuple[Peer, str, dict[str, str]]:
        try:
            url = urlsplit(self._url)
            host, port = url.hostname or "", url.port or 80
        except ValueError:
            host = ""
        if not host or url.scheme != "http" or not is_loopback(host):
            raise _unusable(f"{CONTAINER_URI} is {shown(self._url)}; expected http:// and this machine's own address")
        if not self._token.isascii() or not self._token.isprintable():
            raise _unusable(f"{CONTAINER_TOKEN} has characters that a token cannot have")
        return Peer(host, port, None), url.path or "/", {"authorization": self._token} if self._token else {}


def _open_key(path: str) -> int:
    """Open a private key that nobody can use but its owner, root and this process.

    Raises:
        StoreError: with the command that mends it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unusable(f"the private key {path} cannot be read: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _unusable(f"the private key {path} is not a file")
        if others := access.others(f"/proc/self/fd/{fd}", os.geteuid()):
            raise _unusable(
                f"the private key {path} can be used by {', '.join(others)} (mode {access.mode_text(path)}); "
                f"{access.how_to_fix(path, os.geteuid())}"
            )
    except BaseException:
        os.close(fd)
        raise
    return fd


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key is not the certificate's"
        return f"not in PEM form, or encrypted ({error.reason or error})"
    return error.strerror or str(error)


def _unusable(text: str) -> StoreError:
    return StoreError(Verdict(Outcome.WAIT_CREDENTIALS, text, slow=True))


def _read(reply: Reply, names: Sequence[str], what: str) -> tuple[Keys, float]:
    """Keys and the unix seconds of their end."""
    try:
        given = json.loads(reply.body)
    except (ValueError, RecursionError):
        given = None
    fields = given.get("credentials", given) if isinstance(given, dict) and reply.status == 200 else None
    if isinstance(fields, dict):
        try:
            access, secret, token, end = (_text(fields.get(name)) for name in names)
            at = datetime.fromisoformat(end)
            return Keys(access, secret, token), (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        except ValueError:
            pass
    message = given.get("message") if isinstance(given, dict) else None
    date = read_date(reply.headers.get("date"))
    answer = Answer(
        reply.status,
        printable(reply.headers.get("x-amzn-errortype", "").partition(":")[0]),
        printable(message) if isinstance(message, str) else "",
        retry_after=read_retry_after(reply.headers.get("retry-after"), date),
    )
    verdict = judge_credentials(answer)
    raise StoreError(
        Verdict(verdict.outcome, f"{what}: {verdict.reason}", slow=verdict.slow, retry_after=verdict.retry_after)
    )


def _text(value: object) -> str:
    """A value that can stand in a header."""
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
        raise ValueError
    return value
