"""Stores that others wrote take what the client sends, and boto3 reads it back."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.capture.statuses import CaptureState
from edge.cloud.aws.credentials import EnvironmentCredentials
from edge.tensors import DType
from tests.fakes import captures, stores
from tests.fakes.cloud import SkewedClock, pipeline, s3_store, submit_some
from tests.fakes.stores import StoreProcess, start_moto, start_rclone


@pytest.fixture(scope="module", params=[start_rclone, start_moto], ids=["rclone", "moto"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    made: StoreProcess = request.param(tmp_path_factory.mktemp("store"))
    yield made
    made.close()


def client(store: StoreProcess, **changes: Any) -> Any:
    options = {"credentials": EnvironmentCredentials(store.environment()), "region": stores.REGION, **changes}
    return s3_store(store.url, **options)


def test_what_was_captured_is_read_back(store: StoreProcess, tmp_path: Path) -> None:
    """[R-1] [R-2] [R-3] [R-4] A model's odd name, a tensor of each size, and auxiliary data, parsed as readers do."""
    pixels, scores = bytes(range(256)) * 40, bytes(range(8))
    made_request = captures.request(
        "whole-1",
        model="Gas turbine (β) 50%+",
        input_tensors=(captures.CapturedTensor("pixels", DType.UINT8, (1, 64, 160), pixels),),
        output_tensors=(captures.CapturedTensor("scores", DType.FLOAT32, (2,), scores),),
        inputs=(captures.auxiliary("note", 1, b'{"line": 3}'), captures.auxiliary("raw", 2, b"\xff" * 5000)),
    )
    with pipeline(tmp_path, client(store)) as made:
        made.service.submit(made_request)
        made.wait_states(["whole-1"])
    objects = store.objects()
    record = next(
        event
        for key, body in objects.items()
        if key.endswith(".jsonl")
        for event in map(json.loads, body.splitlines())
        if event["eventMetadata"]["eventId"] == "whole-1"
    )
    prefix = f"s3://{stores.BUCKET}/"
    entry = record["deviceFleetInputs"][0]
    assert captures.parse_content_type(entry["observedContentType"]) == ("UINT8", (1, 64, 160))
    assert objects[entry["data-ref"].removeprefix(prefix)] == pixels
    assert base64.b64decode(record["deviceFleetOutputs"][0]["data"]) == scores
    assert record["deviceFleetAuxiliaryInputs"][0]["data"] == '{"line": 3}'
    assert objects[record["deviceFleetAuxiliaryInputs"][1]["data-ref"].removeprefix(prefix)] == b"\xff" * 5000


def test_many(store: StoreProcess, tmp_path: Path) -> None:
    with pipeline(tmp_path, client(store), folder_prefix="many") as made:
        ids = submit_some(made, 30)
        made.wait_states(ids)
        made.wait(lambda: not made.waiting_files(), "the spool is empty")
    lines = [
        line
        for key, body in store.objects().items()
        if key.startswith("many/") and key.endswith(".jsonl")
        for line in body.splitlines()
    ]
    assert sorted(json.loads(line)["eventMetadata"]["eventId"] for line in lines) == sorted(ids)


def test_each_object_is_asked_for(store: StoreProcess, tmp_path: Path) -> None:
    with pipeline(tmp_path, client(store, verify=True), folder_prefix="asked") as made:
        ids = submit_some(made)
        made.wait_states(ids)
    assert any(key.startswith("asked/") for key in store.objects())


def test_wrong_secret(store: StoreProcess, tmp_path: Path) -> None:
    """Refused with a clear reason, and the captures wait."""
    wrong = {**store.environment(), "AWS_SECRET_ACCESS_KEY": "wrong-secret-0123456789"}
    with pipeline(tmp_path, client(store, credentials=EnvironmentCredentials(wrong)), folder_prefix="wrong") as made:
        ids = submit_some(made)
        made.wait(lambda: "SignatureDoesNotMatch" in made.error(), "the error is told")
        assert all(made.service.status(i) is CaptureState.IN_PROGRESS for i in ids)
    assert not any(key.startswith("wrong/") for key in store.objects())


def test_unknown_key(store: StoreProcess, tmp_path: Path) -> None:
    wrong = {**store.environment(), "AWS_ACCESS_KEY_ID": "AKIANOBODY"}
    with pipeline(tmp_path, client(store, credentials=EnvironmentCredentials(wrong)), folder_prefix="nobody") as made:
        ids = submit_some(made)
        made.wait(lambda: "the access key is not known" in made.error() or "403" in made.error(), "the error is told")
        assert all(made.service.status(i) is CaptureState.IN_PROGRESS for i in ids)


@pytest.mark.parametrize("store", [start_rclone], ids=["rclone"], indirect=True)
@pytest.mark.parametrize("hours", [-3, 3])
def test_clock_off(store: StoreProcess, tmp_path: Path, hours: int) -> None:
    """rclone checks the time of a request; the client learns it."""
    with pipeline(tmp_path, client(store, clock=SkewedClock(hours * 3600.0))) as made:
        ids = submit_some(made)
        made.wait_states(ids)


@pytest.mark.parametrize("store", [start_moto], ids=["moto"], indirect=True)
def test_a_token_that_is_missing(store: StoreProcess, tmp_path: Path) -> None:
    """moto knows temporary keys by their token."""
    stripped = {name: value for name, value in store.environment().items() if name != "AWS_SESSION_TOKEN"}
    with pipeline(tmp_path, client(store, credentials=EnvironmentCredentials(stripped))) as made:
        ids = submit_some(made)
        made.wait(made.error, "the error is told")
        assert all(made.service.status(i) is CaptureState.IN_PROGRESS for i in ids)


def test_no_such_bucket(store: StoreProcess, tmp_path: Path) -> None:
    with pipeline(tmp_path, client(store, bucket="sagemaker-elsewhere")) as made:
        ids = submit_some(made)
        made.wait(lambda: "the bucket does not exist" in made.error(), "the error is told")
        assert all(made.service.status(i) is CaptureState.IN_PROGRESS for i in ids)
