"""Credentials by mutual TLS, against an endpoint that asks for the device's certificate."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.capture.statuses import CaptureState
from edge.cloud.aws.answer import Patience
from edge.cloud.aws.credentials import RENEW_AGAIN_SECONDS, IotCredentials, IotSettings
from edge.cloud.retry import Outcome
from edge.cloud.store import StoreError
from tests.fakes import iot_endpoint
from tests.fakes.acl import GROUP, USER, Acl, give
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import SkewedClock, assert_all_stored, pipeline, s3_store, submit_some
from tests.fakes.iot_endpoint import THING, IotEndpoint
from tests.fakes.pki import DAY, Ca
from tests.fakes.s3_stub import S3Stub
from tests.fakes.web import Handler, server_context

HOUR = 3600.0


@pytest.fixture
def stub() -> Iterator[S3Stub]:
    made = S3Stub()
    made.keys.clear()  # only keys of the endpoint's are known
    made.start()
    yield made
    made.close()


@pytest.fixture
def iot(stub: S3Stub, tmp_path: Path) -> Iterator[IotEndpoint]:
    made = IotEndpoint(tmp_path, stub)
    made.start()
    yield made
    made.close()


def settings_for(iot: IotEndpoint, **changes: Any) -> IotSettings:
    return replace(
        IotSettings(
            endpoint=iot.credentials_url,
            ca_file=str(iot.server_ca.file),
            certificate_file=str(iot.device.certificate_file),
            key_file=str(iot.device.key_file),
            thing_name=THING,
            patience=Patience(connect_seconds=2.0, stall_seconds=5.0),
        ),
        **changes,
    )


def source_for(iot: IotEndpoint, **changes: Any) -> IotCredentials:
    return IotCredentials(settings_for(iot, **changes), SkewedClock(0))


def refusal(source: IotCredentials) -> StoreError:
    with pytest.raises(StoreError) as raised:
        source.get()
    return raised.value


def test_keys_of_the_role_are_used(stub: S3Stub, iot: IotEndpoint, tmp_path: Path) -> None:
    """Once asked for, until their end is near."""
    with pipeline(tmp_path / "a", s3_store(stub.url, credentials=source_for(iot))) as made:
        ids = submit_some(made)
        made.wait_states(ids)
    assert_all_stored(stub, ids)
    assert iot.requests == 1


@pytest.mark.parametrize(
    ("life", "renewed_after"),
    [(HOUR, HOUR - 360), (12 * HOUR, 12 * HOUR * 0.9), (900, 600), (60, 30), (9e8, 12 * HOUR * 0.9)],
)
def test_renewed_before_they_end(stub: S3Stub, iot: IotEndpoint, life: float, renewed_after: float) -> None:
    """Five minutes before, or a tenth of their life, by a clock that nobody sets; none are believed to last for years."""
    clock = FakeClock(now=0.0)  # a board that believes it is 1970
    iot.life = life
    source = IotCredentials(settings_for(iot), clock)
    first = source.get()
    clock.advance(renewed_after - 3)
    assert source.get() == first
    clock.set(2e9)
    assert source.get() == first
    clock.advance(5)
    assert source.get() != first
    assert iot.requests == 2


def test_old_keys_hold_while_renewal_fails(stub: S3Stub, iot: IotEndpoint) -> None:
    clock = FakeClock()
    source = IotCredentials(settings_for(iot), clock)
    first = source.get()
    iot.close()
    clock.advance(HOUR - 300)
    assert source.get() == first
    asked = iot.requests
    iot.start()
    assert source.get() == first  # it is not asked with every object
    assert iot.requests == asked
    clock.advance(RENEW_AGAIN_SECONDS + 1)
    assert source.get() != first


def test_ended_keys_are_not_used(stub: S3Stub, iot: IotEndpoint) -> None:
    clock = FakeClock()
    source = IotCredentials(settings_for(iot), clock)
    source.get()
    iot.close()
    clock.advance(HOUR + 1)
    assert "cannot be reached" in str(refusal(source))


def test_expired_token_is_replaced_at_once(stub: S3Stub, iot: IotEndpoint, tmp_path: Path) -> None:
    with pipeline(tmp_path / "a", s3_store(stub.url, credentials=source_for(iot))) as made:
        first = submit_some(made)
        made.wait_states(first)
        for key in stub.keys.values():
            key.expired = True
        second = submit_some(made, start=100)
        made.wait_states(second)
    assert_all_stored(stub, first + second)
    assert (iot.requests, stub.refused["ExpiredToken"]) == (2, 1)


def test_a_key_that_is_not_known_any_more_is_replaced(stub: S3Stub, iot: IotEndpoint, tmp_path: Path) -> None:
    with pipeline(tmp_path / "a", s3_store(stub.url, credentials=source_for(iot))) as made:
        first = submit_some(made)
        made.wait_states(first)
        stub.keys.clear()
        second = submit_some(made, start=100)
        made.wait_states(second)
    assert_all_stored(stub, first + second)


@pytest.mark.parametrize("hours", [-3, 3])
def test_clock_off(stub: S3Stub, iot: IotEndpoint, tmp_path: Path, hours: int) -> None:
    clock = SkewedClock(hours * HOUR)
    source = IotCredentials(settings_for(iot), clock)
    with pipeline(tmp_path / "a", s3_store(stub.url, credentials=source, clock=clock)) as made:
        ids = submit_some(made)
        made.wait_states(ids)
    assert_all_stored(stub, ids)
    assert iot.requests == 1


def garbage(handler: Handler) -> None:
    handler.answer(200, b"<html>no</html>")


def half(handler: Handler) -> None:
    handler.answer(200, json.dumps({"credentials": {"accessKeyId": "AKIA", "secretAccessKey": "s"}}).encode())


def smuggling(handler: Handler) -> None:
    keys = {
        "accessKeyId": "AKIA",
        "secretAccessKey": "s",
        "sessionToken": "a\r\nb",
        "expiration": "2030-01-01T00:00:00Z",
    }
    handler.answer(200, json.dumps({"credentials": keys}).encode())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (iot_endpoint.refusing(403, "Invalid thing name"), "iot:AssumeRoleWithCertificate"),
        (iot_endpoint.refusing(404, "Role alias does not exist"), "does not know the role alias"),
        (iot_endpoint.refusing(500, "Internal"), "busy or out of order"),
        (iot_endpoint.refusing(429, "Slow down"), "busy or out of order"),
        (garbage, "has no credentials"),
        (half, "has no credentials"),
        (smuggling, "has no credentials"),
        (Handler.reset, "broke the connection"),
    ],
    ids=["403", "404", "500", "429", "garbage", "half", "smuggling", "reset"],
)
def test_endpoint_refuses_for_a_while(stub: S3Stub, iot: IotEndpoint, tmp_path: Path, answer: Any, words: str) -> None:
    """Its trouble is told, nothing is lost, and all arrive once it answers."""
    iot.answers += [answer] * 200
    with pipeline(tmp_path / "a", s3_store(stub.url, credentials=source_for(iot))) as made:
        ids = submit_some(made)
        made.wait(lambda: words in made.error(), "the error is told")
        assert "the IoT credentials endpoint" in made.error()
        assert all(made.service.status(i) is CaptureState.IN_PROGRESS for i in ids)
        with iot.lock:
            iot.answers.clear()
        made.wait_states(ids)
        made.wait(lambda: made.error() == "", "the error is over")
    assert_all_stored(stub, ids)


def test_endpoint_down_for_a_while(stub: S3Stub, iot: IotEndpoint, tmp_path: Path) -> None:
    iot.close()
    with pipeline(tmp_path / "a", s3_store(stub.url, credentials=source_for(iot))) as made:
        ids = submit_some(made)
        made.wait(lambda: "the IoT credentials endpoint: it cannot be reached" in made.error(), "the error is told")
        iot.start()
        made.wait_states(ids)
    assert_all_stored(stub, ids)


def test_endpoint_not_yet_valid(stub: S3Stub, tmp_path: Path) -> None:
    """A board whose clock is behind waits for the time."""
    iot = IotEndpoint(tmp_path, stub, starts_in=DAY)
    iot.start()
    try:
        with pipeline(tmp_path / "a", s3_store(stub.url, credentials=source_for(iot))) as made:
            ids = submit_some(made)
            made.wait(lambda: "not valid yet" in made.error(), "the error is told")
            iot.close()
            again = iot.server_ca.issue("again", host="localhost")
            iot._tls = server_context(again.certificate_file, again.key_file, iot.device_ca.file)
            iot.start()
            made.wait_states(ids)
        assert_all_stored(stub, ids)
    finally:
        iot.close()


# --- refused for good, with a clear reason -------------------------------------------


def test_wrong_ca(stub: S3Stub, iot: IotEndpoint, tmp_path: Path) -> None:
    other = Ca(tmp_path, "other-ca")
    error = refusal(source_for(iot, ca_file=str(other.file)))
    assert "does not lead to a trusted CA" in str(error)
    assert error.verdict.slow


def test_public_cas_are_not_trusted_for_the_endpoint(
    stub: S3Stub, iot: IotEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the configured CA file is."""
    monkeypatch.setenv("SSL_CERT_FILE", str(iot.server_ca.file))
    other = Ca(tmp_path, "other-ca")
    assert "does not lead to a trusted CA" in str(refusal(source_for(iot, ca_file=str(other.file))))


def test_another_host_name(stub: S3Stub, tmp_path: Path) -> None:
    iot = IotEndpoint(tmp_path, stub, host="elsewhere.example")
    iot.start()
    try:
        assert "for another host name" in str(refusal(source_for(iot)))
    finally:
        iot.close()


def test_a_device_that_is_not_known(stub: S3Stub, iot: IotEndpoint, tmp_path: Path) -> None:
    """A certificate of another CA: refused in the handshake."""
    stranger = Ca(tmp_path, "stranger-ca").issue("stranger")
    source = source_for(iot, certificate_file=str(stranger.certificate_file), key_file=str(stranger.key_file))
    error = refusal(source)
    assert "refuses this device's certificate" in str(error) or "broke the connection" in str(error)


def test_another_thing(stub: S3Stub, iot: IotEndpoint) -> None:
    error = refusal(source_for(iot, thing_name="thing-2"))
    assert error.verdict.outcome is Outcome.WAIT_CREDENTIALS
    assert "the thing is not the certificate's" in str(error)


def test_old_tls_is_refused(stub: S3Stub, iot: IotEndpoint) -> None:
    import ssl
    import warnings

    context = iot._tls
    assert context is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
    assert "TLS" in str(refusal(source_for(iot))) or "broke" in str(refusal(source_for(iot)))
    assert iot.requests == 0


# --- the device's files --------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o644, 0o620, 0o602, 0o610])
def test_a_private_key_that_others_can_use(stub: S3Stub, iot: IotEndpoint, mode: int) -> None:
    """Refused, with the command that mends it; then it works without a restart."""
    iot.device.key_file.chmod(mode)
    source = source_for(iot)
    error = refusal(source)
    assert f"chmod 0400 {iot.device.key_file}" in str(error)
    assert f"mode {mode:04o}" in str(error)
    assert iot.requests == 0
    with pytest.raises(StoreError):
        source.check()
    iot.device.key_file.chmod(0o400)
    source.check()
    assert source.get().access_key


def test_a_key_that_an_access_list_gives_to_the_agent(stub: S3Stub, iot: IotEndpoint) -> None:
    """As systemd's LoadCredential= passes it: root's, mode 0400 and a list, which shows as 0440."""
    give(iot.device.key_file, Acl(USER, 4, os.geteuid()))
    assert source_for(iot).get().access_key


@pytest.mark.parametrize(
    ("entry", "who"), [(Acl(USER, 4, 4711), "user 4711"), (Acl(GROUP, 2, 4712), "group 4712")], ids=["user", "group"]
)
def test_a_key_that_an_access_list_gives_to_others(
    stub: S3Stub, iot: IotEndpoint, entry: Acl, who: str
) -> None:
    give(iot.device.key_file, entry)
    error = str(refusal(source_for(iot)))
    assert f"can be used by {who}" in error
    assert f"setfacl -b {iot.device.key_file}; chmod 0400 {iot.device.key_file}" in error


def test_told_before_anything_is_captured(stub: S3Stub, iot: IotEndpoint, tmp_path: Path) -> None:
    iot.device.key_file.chmod(0o644)
    with pipeline(tmp_path / "a", s3_store(stub.url, credentials=source_for(iot))) as made:
        made.wait(lambda: "chmod 0400" in made.error(), "the error is told")
        iot.device.key_file.chmod(0o400)
        made.wait(lambda: made.error() == "", "the error is over")


def test_files_that_cannot_be_used(stub: S3Stub, iot: IotEndpoint, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch(0o400)
    other = iot.device_ca.issue("other")
    gone = str(tmp_path / "gone.pem")
    for changes, words in (
        ({"key_file": gone}, "No such file"),
        ({"key_file": str(tmp_path)}, "is not a file"),
        ({"key_file": str(empty)}, "not in PEM form"),
        ({"key_file": str(other.key_file)}, "the key is not the certificate's"),
        ({"certificate_file": gone}, "No such file"),
        ({"certificate_file": str(empty)}, "not in PEM form"),
        ({"ca_file": gone}, "No such file"),
        ({"ca_file": str(empty)}, "not in PEM form"),
    ):
        text = str(refusal(source_for(iot, **changes)))
        assert words in text, (changes, text)
        assert next(iter(changes.values())) in text


def test_an_encrypted_key_asks_nobody(stub: S3Stub, iot: IotEndpoint, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(iot.device.key_file.read_bytes(), None)
    path = tmp_path / "encrypted.pem"
    path.touch(0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"words"),
        )
    )
    assert "encrypted" in str(refusal(source_for(iot, key_file=str(path))))


def test_a_certificate_that_is_rotated_in_place(stub: S3Stub, iot: IotEndpoint) -> None:
    clock = FakeClock()
    source = IotCredentials(settings_for(iot), clock)
    first = source.get()
    new = iot.device_ca.issue(THING, file="new")
    new.certificate_file.replace(iot.device.certificate_file)
    new.key_file.replace(iot.device.key_file)
    clock.advance(HOUR)
    assert source.get() != first


def test_secrets_stay_out_of_the_log(
    stub: S3Stub, iot: IotEndpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    source = source_for(iot)
    with pipeline(tmp_path / "a", s3_store(stub.url, credentials=source)) as made:
        made.wait_states(submit_some(made))
        for key in stub.keys.values():
            key.expired = True
        made.wait_states(submit_some(made, start=50))
    told = caplog.text + repr(source.get()) + repr(source.__dict__)
    for key in stub.keys.values():
        assert key.secret not in told
        assert key.token not in told
