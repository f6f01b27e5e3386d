"""What each answer and fault means."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.cloud import retry
from edge.cloud.retry import Answer, Fault, Outcome, Refusals, Verdict, judge_answer, judge_credentials, judge_fault

NOW, REGION = 1_750_000_000.0, "eu-west-1"


def judged(status: int, code: str = "", **more: object) -> Verdict | None:
    return judge_answer(Answer(status, code, **more), signed_at=NOW, region=REGION)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (500, "InternalError", Outcome.RETRY_SOON),
        (500, "", Outcome.RETRY_SOON),
        (502, "", Outcome.RETRY_SOON),
        (503, "SlowDown", Outcome.RETRY_SOON),
        (504, "", Outcome.RETRY_SOON),
        (429, "TooManyRequests", Outcome.RETRY_SOON),
        (408, "", Outcome.RETRY_SOON),
        (409, "OperationAborted", Outcome.RETRY_SOON),
        (400, "RequestTimeout", Outcome.RETRY_SOON),
        (400, "BadDigest", Outcome.RETRY_SOON),
        (400, "XAmzContentSHA256Mismatch", Outcome.RETRY_SOON),
        (307, "TemporaryRedirect", Outcome.RETRY_SOON),
        (200, "InternalError", Outcome.RETRY_SOON),
        (301, "PermanentRedirect", Outcome.RETRY_LATER),
        (302, "", Outcome.RETRY_LATER),
        (403, "RequestTimeTooSkewed", Outcome.RETRY_LATER),
        (403, "InvalidAccessKeyId", Outcome.RETRY_LATER),
        (403, "SignatureDoesNotMatch", Outcome.RETRY_LATER),
        (404, "NoSuchBucket", Outcome.RETRY_LATER),
        (403, "", Outcome.RETRY_LATER),
        (400, "", Outcome.RETRY_LATER),
        (404, "", Outcome.RETRY_LATER),
        (405, "MethodNotAllowed", Outcome.RETRY_LATER),
        (407, "", Outcome.RETRY_LATER),
        (501, "NotImplemented", Outcome.RETRY_LATER),
        (507, "", Outcome.RETRY_LATER),
        (400, "ExpiredToken", Outcome.WAIT_CREDENTIALS),
        (403, "InvalidToken", Outcome.WAIT_CREDENTIALS),
        (403, "AccessDenied", Outcome.REFUSED),
        (400, "InvalidArgument", Outcome.REFUSED),
        (400, "EntityTooLarge", Outcome.GIVE_UP),
        (400, "KeyTooLongError", Outcome.GIVE_UP),
        (413, "RequestTooLarge", Outcome.GIVE_UP),
        (413, "", Outcome.REFUSED),
    ],
)
def test_each_answer_has_its_outcome(status: int, code: str, outcome: Outcome) -> None:
    verdict = judged(status, code)
    assert verdict is not None
    assert verdict.outcome is outcome
    assert str(status) in verdict.reason or outcome is Outcome.SWITCH_REGION


def test_stored() -> None:
    assert judged(200) is None


@pytest.mark.parametrize(
    ("status", "headers", "body", "words"),
    [
        (200, {"etag": '"d41d8"'}, b"", ""),
        (200, {"etag": ""}, b"", ""),
        (200, {"x-amz-request-id": "1"}, b"\r\n", ""),
        (200, {"server": "nginx", "content-type": "text/html"}, b"", "neither an ETag nor any x-amz- header"),
        (200, {"etag": '"d41d8"', "content-type": "text/plain"}, b"ok", "2 bytes of content (text/plain)"),
        (200, {"etag": '"d41d8"'}, b"\xef\xbb\xbf<html>", "9 bytes of content (of no type)"),
        (200, {"x-amz-request-id": "1"}, b'{"login": true}', "15 bytes of content"),
        (202, {"etag": '"d41d8"'}, b"", "got status 202, expected 200"),
        (204, {"etag": '"d41d8"'}, b"", "got status 204, expected 200"),
    ],
)
def test_what_an_acknowledgement_lacks(status: int, headers: dict[str, str], body: bytes, words: str) -> None:
    lacks = retry.lacking(status, headers, body)
    assert words in lacks and bool(words) == bool(lacks)
    verdict = judged(status, lacks=lacks)
    assert (verdict is None) == (not words)
    assert verdict is None or (verdict.outcome is Outcome.RETRY_LATER and words in verdict.reason)


@given(st.integers(100, 599), st.text(max_size=20))
def test_no_answer_without_a_code_counts_against_an_object(status: int, message: str) -> None:
    verdict = judged(status, message=message)
    assert (verdict is None) == (200 <= status < 300)
    if verdict is not None:
        assert verdict.outcome is not Outcome.GIVE_UP
        assert verdict.outcome is not Outcome.REFUSED or not verdict.counts


@pytest.mark.parametrize("hours", [-3, 3])
@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", "AccessDenied", "SignatureDoesNotMatch", "ExpiredToken"])
def test_a_refusal_at_another_time_is_about_the_clock(hours: int, code: str) -> None:
    verdict = judged(403, code, date=NOW + hours * 3600)
    assert verdict is not None
    assert verdict.outcome is Outcome.FIX_CLOCK
    assert f"{-hours * 3600:+.0f} s" in verdict.reason


def test_a_busy_store_is_not_about_the_clock() -> None:
    verdict = judged(503, "SlowDown", date=NOW + 9999, retry_after=7.0)
    assert verdict is not None
    assert (verdict.outcome, verdict.retry_after) == (Outcome.RETRY_SOON, 7.0)


@pytest.mark.parametrize(
    ("status", "code"), [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed"), (307, "")]
)
def test_the_region_that_an_answer_names(status: int, code: str) -> None:
    verdict = judged(status, code, region="us-east-2", date=NOW)
    assert verdict is not None
    assert verdict.outcome is Outcome.SWITCH_REGION
    same = judged(status, code, region=REGION, date=NOW)
    assert same is not None
    assert same.outcome is not Outcome.SWITCH_REGION


@pytest.mark.parametrize(
    ("fault", "outcome", "slow"),
    [
        (Fault.NAME, Outcome.RETRY_LATER, False),
        (Fault.UNREACHABLE, Outcome.RETRY_LATER, False),
        (Fault.STALLED, Outcome.RETRY_SOON, False),
        (Fault.RESET, Outcome.RETRY_SOON, False),
        (Fault.TRUNCATED, Outcome.RETRY_SOON, False),
        (Fault.NOT_HTTP, Outcome.RETRY_SOON, False),
        (Fault.ENDLESS, Outcome.RETRY_LATER, False),
        (Fault.SLOW, Outcome.RETRY_LATER, False),
        (Fault.TLS_NOT_YET_VALID, Outcome.RETRY_LATER, False),
        (Fault.TLS_EXPIRED, Outcome.RETRY_LATER, True),
        (Fault.TLS_UNTRUSTED, Outcome.RETRY_LATER, True),
        (Fault.TLS_HOST_NAME, Outcome.RETRY_LATER, True),
        (Fault.TLS_CLIENT, Outcome.RETRY_LATER, True),
        (Fault.TLS, Outcome.RETRY_LATER, False),
        (Fault.PROXY_REFUSES, Outcome.RETRY_LATER, True),
        (Fault.PROXY_FAILS, Outcome.RETRY_LATER, False),
    ],
)
def test_each_fault_has_its_outcome(fault: Fault, outcome: Outcome, slow: bool) -> None:
    verdict = judge_fault(fault, "detail")
    assert (verdict.outcome, verdict.slow) == (outcome, slow)
    assert verdict.reason == f"{fault.value} (detail)"


def test_every_fault_is_in_the_table_above() -> None:
    marks = test_each_fault_has_its_outcome.pytestmark  # type: ignore[attr-defined]
    assert {row[0] for row in marks[0].args[1]} == set(Fault)


@pytest.mark.parametrize(
    ("status", "outcome", "slow"),
    [
        (403, Outcome.WAIT_CREDENTIALS, True),
        (404, Outcome.WAIT_CREDENTIALS, True),
        (200, Outcome.WAIT_CREDENTIALS, True),
        (400, Outcome.WAIT_CREDENTIALS, True),
        (429, Outcome.RETRY_SOON, False),
        (500, Outcome.RETRY_SOON, False),
        (503, Outcome.RETRY_SOON, False),
    ],
)
def test_refusals_of_the_credentials_endpoint(status: int, outcome: Outcome, slow: bool) -> None:
    verdict = judge_credentials(Answer(status, "Code", "words"))
    assert (verdict.outcome, verdict.slow) == (outcome, slow)
    assert "words" in verdict.reason


# --- parts of answers ----------------------------------------------------------------


def test_an_error_document() -> None:
    body = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>No &lt;way&gt;\n</Message><Region>us-east-2</Region></Error>'
    assert retry.read_error(body) == ("AccessDenied", "No <way>", "us-east-2")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", ""),
        (b"<html>", ""),
        (b"<Error>", "Error"),
        (b"<Error><Code></Code></Error>", "Error"),
        (b"\xff<Error\xff", "Error"),
    ],
)
def test_other_bodies(body: bytes, code: str) -> None:
    assert retry.read_error(body)[0] == code


@pytest.mark.parametrize("text", ["evil.example/", "", None, "a" * 64, "US-EAST-1", "us-east-1\n"])
def test_what_is_no_region_is_none(text: str | None) -> None:
    assert retry.read_region(text) == ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("7", 7.0),
        ("99999999", 3600.0),
        ("Sun, 15 Jun 2025 15:07:10 GMT", 30.0),
        ("Sun, 15 Jun 2025 15:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("1e9", None),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert retry.read_retry_after(text, NOW) == seconds


@pytest.mark.parametrize(
    ("text", "plausible"),
    [
        ("Sun, 15 Jun 2025 15:00:00 GMT", True),
        ("Fri, 31 Dec 9999 23:59:59 GMT", False),
        ("Fri, 01 Jan 2100 00:00:00 GMT", False),
        ("Thu, 01 Jan 1970 00:00:00 GMT", False),
    ],
)
def test_a_date_that_no_store_has_is_none(text: str, plausible: bool) -> None:
    assert (retry.read_date(text) is not None) == plausible


@given(st.text(max_size=40))
@example("0\x1f")  # str.strip knows more blanks than float
def test_any_text_may_stand_where_a_date_should(text: str) -> None:
    retry.read_date(text)
    retry.read_retry_after(text, NOW)


# --- waiting ---------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_full_jitter_is_bounded(attempt: int, chance: float) -> None:
    assert 0 <= retry.soon_delay(attempt, chance) <= retry.SOON_MOST_SECONDS
    assert retry.soon_delay(0, 1.0) == retry.SOON_BASE_SECONDS


@given(st.integers(0, 10_000), st.floats(0, 1), st.booleans())
def test_later_is_bounded_and_never_at_once(failures: int, chance: float, slow: bool) -> None:
    delay = retry.later_delay(failures, slow, chance)
    assert retry.LATER_BASE_SECONDS / 2 <= delay <= (retry.SLOW_MOST_SECONDS if slow else retry.LATER_MOST_SECONDS)


def test_five_tries() -> None:
    verdict = Verdict(Outcome.RETRY_SOON, "")
    assert [retry.next_try(verdict, n, 1.0) for n in range(1, 6)] == [0.2, 0.4, 0.8, 1.6, None]


def test_retry_after_is_honoured() -> None:
    assert retry.next_try(Verdict(Outcome.RETRY_SOON, "", retry_after=7.0), 1, 0.0) == 7.0
    assert retry.next_try(Verdict(Outcome.RETRY_SOON, "", retry_after=600.0), 1, 0.0) is None


@pytest.mark.parametrize("outcome", [Outcome.FIX_CLOCK, Outcome.SWITCH_REGION])
def test_what_is_learned_is_used_at_once(outcome: Outcome) -> None:
    assert retry.next_try(Verdict(outcome, ""), 1, 1.0) == 0.0
    assert retry.next_try(Verdict(outcome, ""), retry.TRIES, 1.0) is None


def test_new_credentials_are_used_at_once_but_not_for_ever() -> None:
    verdict = Verdict(Outcome.WAIT_CREDENTIALS, "", fresh=True)
    assert [retry.next_try(verdict, n, 1.0) for n in (1, 2, 3)] == [0.0, 0.0, None]


@pytest.mark.parametrize("outcome", [Outcome.RETRY_LATER, Outcome.WAIT_CREDENTIALS, Outcome.REFUSED, Outcome.GIVE_UP])
def test_others_are_not_tried_at_once(outcome: Outcome) -> None:
    assert retry.next_try(Verdict(outcome, ""), 1, 1.0) is None


def test_refusals_count_only_once_others_were_taken() -> None:
    refusals = Refusals(stored_before=10)
    assert not any(refusals.add(10) for _ in range(100))  # the account is refused, not the object
    assert [refusals.add(11) for _ in range(3)] == [False, False, True]


def test_a_refusal_that_no_store_wrote_never_counts() -> None:
    refusals = Refusals(stored_before=10)
    assert not any(refusals.add(11, counts=False) for _ in range(100))


def test_refused_objects_are_offered_less_and_less_often() -> None:
    delays = [retry.refused_delay(n) for n in range(1, 20)]
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (retry.REFUSED_BASE_SECONDS, retry.REFUSED_MOST_SECONDS)
