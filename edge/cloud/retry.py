"""What an answer or a fault of the cloud means, and how long to wait after it. Pure.

    RETRY_SOON        the same request again, after a fraction of a second to seconds
    RETRY_LATER       nothing will go through for a while, or until a person acts: leave all in the spool
    WAIT_CREDENTIALS  as RETRY_LATER; only new credentials can help
    FIX_CLOCK         sign with the store's time and try at once
    SWITCH_REGION     sign for the region that the answer names and try at once
    REFUSED           this object is refused, perhaps for good: go on with the others (see `Refusals`)
    GIVE_UP           the store will never take this object

Codes are those of the S3 API's error responses; an answer without one was not written by an object store, and never
counts against an object. Success is what bears the marks of an object store's acknowledgement, and nothing else: login
pages, proxies and wrong addresses answer 200 too. Full jitter: Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
"""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum

from edge.text import printable

TRIES = 5  # of one request, before it is left for later
FRESH_TRIES = 2  # after which new credentials are not asked for again at once
SOON_BASE_SECONDS = 0.2
SOON_MOST_SECONDS = 20.0
LATER_BASE_SECONDS = 1.0
LATER_MOST_SECONDS = 30.0  # between looks at a network that is down
SLOW_MOST_SECONDS = 300.0  # between attempts at what only the operator can fix
RETRY_AFTER_MOST_SECONDS = 3600.0
SKEW_SECONDS = 240.0  # a refusal with a Date this far from the time signed is about the clock; AWS allows 900
REFUSALS = 3  # after other objects were taken, before an object is given up
REFUSED_BASE_SECONDS = 3.0
REFUSED_MOST_SECONDS = 3600.0
# A date outside is a server's fault or a lie, and no time to sign with.
_PLAUSIBLE_DATES = (datetime(2024, 1, 1, tzinfo=UTC).timestamp(), datetime(2100, 1, 1, tzinfo=UTC).timestamp())


class Outcome(Enum):
    """What to do after a failure."""

    RETRY_SOON = "retry soon"
    RETRY_LATER = "retry later"
    WAIT_CREDENTIALS = "wait for credentials"
    FIX_CLOCK = "fix the clock"
    SWITCH_REGION = "switch region"
    REFUSED = "refused"
    GIVE_UP = "give up"


class Fault(Enum):
    """Why there was no answer."""

    NAME = "its name cannot be resolved"
    UNREACHABLE = "it cannot be reached"
    STALLED = "it does not answer"
    RESET = "it broke the connection"
    TRUNCATED = "its answer was cut short"
    ENDLESS = "its answer does not end"
    SLOW = "its answer comes too slowly"
    NOT_HTTP = "its answer is not HTTP"
    TLS_NOT_YET_VALID = "its certificate is not valid yet, or this device's clock is behind"
    TLS_EXPIRED = "its certificate has expired, or this device's clock is ahead"
    TLS_UNTRUSTED = (
        "its certificate does not lead to a trusted CA; add its CA to this device's, unless somebody is in between"
    )
    TLS_HOST_NAME = "its certificate is for another host name"
    TLS_CLIENT = "it refuses this device's certificate"
    TLS = "TLS failed"
    PROXY_REFUSES = "the proxy refuses"
    PROXY_FAILS = "the proxy cannot reach it"


_SOON_FAULTS = frozenset({Fault.STALLED, Fault.RESET, Fault.TRUNCATED, Fault.NOT_HTTP})
_SLOW_FAULTS = frozenset(
    {Fault.TLS_EXPIRED, Fault.TLS_UNTRUSTED, Fault.TLS_HOST_NAME, Fault.TLS_CLIENT, Fault.PROXY_REFUSES}
)


@dataclass(frozen=True)
class Answer:
    """What a store answered. `date` in unix seconds, `retry_after` in seconds; empty and None where it says nothing.

    `lacks`: what an object store's acknowledgement has and this has not, in words (see `lacking`).
    """

    status: int
    code: str = ""
    message: str = ""
    region: str = ""
    date: float | None = None
    retry_after: float | None = None
    lacks: str = ""


@dataclass(frozen=True)
class Verdict:
    """What to do, and why. `slow`: only the operator can fix it; `retry_after` in seconds; `fresh`: ask for new
    credentials first; `counts`: a refusal that counts against the object."""

    outcome: Outcome
    reason: str
    slow: bool = False
    retry_after: float = 0.0
    fresh: bool = False
    counts: bool = True


_SOON_CODES = {
    "BadDigest", "BandwidthLimitExceeded", "ConditionalRequestConflict", "IncompleteBody", "InternalError",
    "OperationAborted", "RequestLimitExceeded", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling",
    "ThrottlingException", "TooManyRequests", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch",
}  # fmt: skip
_TOKEN_CODES = {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"}
_CLOCK_CODES = {"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"}
_REGION_CODES = {
    "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect", "TemporaryRedirect",
}  # fmt: skip
_OBJECT_CODES = {"EntityTooLarge", "KeyTooLongError", "MaxMessageLengthExceeded"}
_WIDE_CODES = {
    "InvalidAccessKeyId": "the access key is not known",
    "SignatureDoesNotMatch": "the secret key does not match the access key",
    "NoSuchBucket": "the bucket does not exist",
    "InvalidBucketName": "the bucket's name is not allowed",
    "AllAccessDisabled": "the bucket's owner has closed it",
    "AccountProblem": "the account has a problem",
    "NotSignedUp": "the account is not signed up",
    "QuotaExceeded": "the store is full",
    "XMinioStorageFull": "the store is full",
}
_FORBIDDEN, _TOO_LARGE = 403, 413
_NO_STORE = "its answer is not that of an object store, so nothing counts as stored; is there a login page or a proxy in between?"
_SOON_STATUS = {408, 409, 425, 429}
_LASTING_STATUS = {501, 505, 507}  # of the 5xx


def judge_fault(fault: Fault, detail: str = "") -> Verdict:
    """What a missing answer means."""
    reason = f"{fault.value} ({detail})" if detail else fault.value
    outcome = Outcome.RETRY_SOON if fault in _SOON_FAULTS else Outcome.RETRY_LATER
    return Verdict(outcome, reason, slow=fault in _SLOW_FAULTS)


def judge_answer(answer: Answer, *, signed_at: float, region: str) -> Verdict | None:
    """What a store's answer to a PUT means; None: the object is stored.

    `signed_at`: the unix seconds, and `region`: the region, that the request was signed for.
    """
    code, status = answer.code, answer.status
    said = _said(answer)
    after = answer.retry_after or 0.0
    if 200 <= status < 300:
        if code:
            return Verdict(Outcome.RETRY_SOON, f"it answers success with an error in it: {said}")
        return Verdict(Outcome.RETRY_LATER, f"{_NO_STORE}: {answer.lacks}") if answer.lacks else None
    if status in (400, 401, _FORBIDDEN) and (clock := _judge_clock(answer, signed_at, said)):
        return clock
    if code in _TOKEN_CODES:
        return Verdict(Outcome.WAIT_CREDENTIALS, f"the session token is not accepted: {said}", fresh=True)
    if code in _REGION_CODES or 300 <= status < 400:
        return _judge_region(answer, region, said)
    if status == _TOO_LARGE and code in ("", NO_CODE):  # a proxy's: the store itself might take it
        return Verdict(
            Outcome.REFUSED, f"it, or a proxy on the way, accepts nothing of this size: {said}", counts=False
        )
    if code in _OBJECT_CODES or status == _TOO_LARGE:
        return Verdict(Outcome.GIVE_UP, f"it will not take this object: {said}")
    if code in _WIDE_CODES:
        return Verdict(
            Outcome.RETRY_LATER, f"{_WIDE_CODES[code]}: {said}", slow=True, fresh=code == "InvalidAccessKeyId"
        )
    if code in _SOON_CODES or status in _SOON_STATUS or (status >= 500 and status not in _LASTING_STATUS):
        return Verdict(Outcome.RETRY_SOON, f"it is busy or out of order: {said}", retry_after=after)
    if code not in ("", NO_CODE) and status in (400, _FORBIDDEN, 412):
        return Verdict(Outcome.REFUSED, f"it refuses this object: {said}")
    return Verdict(Outcome.RETRY_LATER, f"it refuses the request: {said}", slow=True, retry_after=after)


def _judge_clock(answer: Answer, signed_at: float, said: str) -> Verdict | None:
    if answer.date is not None and abs(answer.date - signed_at) > SKEW_SECONDS:
        return Verdict(Outcome.FIX_CLOCK, f"this device's clock is {signed_at - answer.date:+.0f} s off: {said}")
    if answer.code in _CLOCK_CODES:
        return Verdict(Outcome.RETRY_LATER, f"this device's clock or the store's is off: {said}")
    return None


def _judge_region(answer: Answer, region: str, said: str) -> Verdict:
    if answer.region and answer.region != region:
        return Verdict(Outcome.SWITCH_REGION, f"the bucket is in region {answer.region}, not {region}")
    if answer.status == 307:  # a new bucket's names take time to spread
        return Verdict(Outcome.RETRY_SOON, f"it redirects temporarily: {said}", retry_after=answer.retry_after or 0.0)
    return Verdict(Outcome.RETRY_LATER, f"the bucket is elsewhere: {said}", slow=True)


def judge_credentials(answer: Answer) -> Verdict:
    """What a refusal of the IoT credentials endpoint means (any answer but a 200 with credentials)."""
    said = _said(answer)
    if answer.status in _SOON_STATUS or answer.status >= 500:
        return Verdict(Outcome.RETRY_SOON, f"it is busy or out of order: {said}", retry_after=answer.retry_after or 0.0)
    if answer.status == _FORBIDDEN:
        why = "it refuses this device: is the certificate active, attached to the thing and to a policy with iot:AssumeRoleWithCertificate?"
        return Verdict(Outcome.WAIT_CREDENTIALS, f"{why} {said}", slow=True)
    if answer.status == 404:
        return Verdict(Outcome.WAIT_CREDENTIALS, f"it does not know the role alias or the thing: {said}", slow=True)
    return Verdict(Outcome.WAIT_CREDENTIALS, f"its answer has no credentials: {said}", slow=True)


def _said(answer: Answer) -> str:
    return " ".join(part for part in (str(answer.status), answer.code, answer.message) if part)


# --- what answers are made of ------------------------------------------------


NO_CODE = "Error"  # of an error document without one
_PARTS = {name: re.compile(rb"<%s>([^<]{0,2000})</%s>" % (name, name)) for name in (b"Code", b"Message", b"Region")}
REGION = re.compile(r"[a-z0-9-]{1,63}")


def read_error(body: bytes) -> tuple[str, str, str]:
    """Code, message and region of an S3 error document; each empty where it has none.

    By pattern: the document is from outside, and an XML parser would do more than is asked.
    """
    if b"<Error" not in body:
        return "", "", ""
    found = {name: _part(pattern, body) for name, pattern in _PARTS.items()}
    return found[b"Code"] or NO_CODE, found[b"Message"], read_region(found[b"Region"])


def _part(pattern: re.Pattern[bytes], body: bytes) -> str:
    match = pattern.search(body)
    return printable(html.unescape(match[1].decode("utf-8", "replace")).strip()) if match else ""


def read_region(text: str | None) -> str:
    """A region's name, or nothing where the text cannot be one: it becomes part of a host name."""
    return text if text and REGION.fullmatch(text) else ""


def lacking(status: int, headers: Mapping[str, str], body: bytes) -> str:
    """What the answer to a PUT or HEAD lacks of an object store's acknowledgement, in words; empty: it is one.

    That is status 200, no content, and one header at least that the protocol has: ETag (which some leave empty), or one
    of `x-amz-`, such as the request's id. Header names are in lower case.
    """
    if status != 200:
        return f"got status {status}, expected 200"
    if body.strip():
        kind = printable(headers.get("content-type", "")) or "of no type"
        return f"got {len(body)} bytes of content ({kind}), expected none"
    if not any(name == "etag" or name.startswith("x-amz-") for name in headers):
        return "got neither an ETag nor any x-amz- header"
    return ""


def read_date(text: str | None) -> float | None:
    """Unix seconds of an HTTP date, or None, also where no clock can be so far off."""
    try:
        at = parsedate_to_datetime(text or "")
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    first, last = _PLAUSIBLE_DATES
    return seconds if first <= seconds < last else None


def read_retry_after(text: str | None, date: float | None) -> float | None:
    """Seconds of a Retry-After header: a number, or an HTTP date beside the answer's own `date`; at most an hour."""
    if text is None:
        return None
    number = text.strip()
    if re.fullmatch(r"[0-9]{1,9}", number):
        return min(float(number), RETRY_AFTER_MOST_SECONDS)
    at = read_date(text)
    if at is None or date is None:
        return None
    return min(max(0.0, at - date), RETRY_AFTER_MOST_SECONDS)


# --- how long to wait --------------------------------------------------------


def soon_delay(attempt: int, chance: float) -> float:
    """Seconds before try `attempt` + 1 (the first is 0), with full jitter; `chance` from 0 to 1."""
    return chance * min(SOON_MOST_SECONDS, SOON_BASE_SECONDS * 2.0 ** min(attempt, 20))


def next_try(verdict: Verdict, tries: int, chance: float) -> float | None:
    """Seconds until the same request is sent again after so many tries; None: not now."""
    if tries >= TRIES:
        return None
    if verdict.outcome in (Outcome.FIX_CLOCK, Outcome.SWITCH_REGION):
        return 0.0
    if verdict.fresh:
        return 0.0 if tries <= FRESH_TRIES else None
    if verdict.outcome is not Outcome.RETRY_SOON or verdict.retry_after > SOON_MOST_SECONDS:
        return None
    return max(verdict.retry_after, soon_delay(tries - 1, chance))


def later_delay(failures: int, slow: bool, chance: float) -> float:
    """Seconds to leave the store alone after so many failures in a row; half of it is jitter."""
    most = SLOW_MOST_SECONDS if slow else LATER_MOST_SECONDS
    delay = min(most, LATER_BASE_SECONDS * 2.0 ** min(max(failures - 1, 0), 20))
    return delay * (1 + chance) / 2


def refused_delay(refusals: int) -> float:
    """Seconds until an object is offered again that was refused so many times."""
    return min(REFUSED_MOST_SECONDS, REFUSED_BASE_SECONDS * 2.0 ** min(max(refusals - 1, 0), 20))


@dataclass
class Refusals:
    """How often an object was refused, and how often while the store took others.

    A policy that is wrong for the account refuses everything, so a refusal counts against the object only once another
    object was taken after its first refusal.
    """

    stored_before: int  # objects taken in all, when it was first refused
    count: int = 0
    counted: int = 0

    def add(self, stored: int, *, counts: bool = True) -> bool:
        """Note a refusal, with the objects taken so far; true if the object is to be given up."""
        self.count += 1
        self.counted += counts and stored > self.stored_before
        return self.counted >= REFUSALS
