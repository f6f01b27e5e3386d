"""An agent that is killed in the middle of an upload in parts leaves nothing that the store bills."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.link import Link
from tests.fakes.stores import BUCKET, StoreProcess, start_moto, start_rclone
from tests.system.harness import AgentProcess, eventually, tensor_of
from tests.system.test_cloud_agent import MODEL, cloud, waiting_files

SIZE = (16 << 20) + 1000
PART = 8 << 20


@pytest.fixture
def link(store: StoreProcess) -> Iterator[Link]:
    """The way to the store, which can be held up."""
    made = Link(int(store.url.rpartition(":")[2]))
    yield made
    made.close()


@pytest.fixture(scope="module", params=[start_moto, start_rclone], ids=["moto", "rclone"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    made: StoreProcess = request.param(tmp_path_factory.mktemp("store"))
    yield made
    made.close()


def uploads(client: Any) -> list[tuple[str, str]]:
    """What the store bills beside objects: key and id of each upload that is under way."""
    try:
        found = client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    except client.exceptions.NoSuchUpload:  # rclone, where there is none
        return []
    return [(entry["Key"], entry["UploadId"]) for entry in found]


def parts(client: Any) -> int:
    return sum(
        len(client.list_parts(Bucket=BUCKET, Key=key, UploadId=upload).get("Parts", []))
        for key, upload in uploads(client)
    )


def capture_one(agent: AgentProcess) -> None:
    data = np.arange(SIZE, dtype=np.uint32).astype(np.uint8).reshape(1, SIZE)
    agent.client.capture(model_name=MODEL, capture_id="big", input_tensors=[tensor_of(data, "input")])


def test_it_goes_on_at_the_next_start(
    agents: Callable[..., AgentProcess], digits: Path, store: StoreProcess, link: Link, tmp_path: Path
) -> None:
    """[R-17] Killed with no part there and with one; it ends with the object, and no upload is left."""
    client = store.boto()
    try:
        settings = cloud(link.url, tmp_path, core_region="us-east-1")
        agent = agents(**settings)
        agent.start(env=store.environment())
        agent.client.load(digits, MODEL)
        link.let_pass(PART // 2)
        capture_one(agent)
        # Killed before its note, an upload without parts stays, which no store bills.
        notes = tmp_path / "spool" / "uploads"
        eventually(lambda: list(notes.glob("*.json")), 60, "an upload is under way, and noted")
        [first] = uploads(client)
        agent.kill()
        link.drop()
        link.let_pass(PART * 3 // 2)
        agent.start(force=True, env=store.environment())
        eventually(lambda: parts(client) >= 1, 60, "a part is stored")
        agent.kill()
        link.drop()
        link.let_pass(None)
        agent.start(force=True, env=store.environment())
        agent.client.wait_captured("big")
        assert uploads(client) == []
        sizes = {key: len(body) for key, body in store.objects().items()}
        assert sizes[first[0]] == SIZE
        assert len(sizes) == 2
        eventually(lambda: not waiting_files(tmp_path), 10, "the spool is empty")
        assert not list(notes.glob("*.json"))
    finally:
        client.close()


@pytest.mark.parametrize("store", [start_moto], ids=["moto"], indirect=True)
def test_it_is_aborted_where_nobody_waits_for_it(
    agents: Callable[..., AgentProcess], digits: Path, store: StoreProcess, link: Link, tmp_path: Path
) -> None:
    """[R-17] The spool's files are gone when the agent starts again."""
    client = store.boto()
    try:
        settings = cloud(link.url, tmp_path, core_region="us-east-1")
        settings["core_folder_prefix"] = "nobody"
        agent = agents(**settings)
        agent.start(env=store.environment())
        agent.client.load(digits, MODEL)
        link.let_pass(PART * 3 // 2)
        capture_one(agent)
        eventually(lambda: parts(client) >= 1, 60, "a part is stored")
        agent.kill()
        link.drop()
        link.let_pass(None)
        assert parts(client) >= 1
        shutil.rmtree(tmp_path / "spool" / "sealed")
        agent.start(force=True, env=store.environment())
        eventually(lambda: uploads(client) == [], 60, "the upload is aborted")
        assert not any(key.startswith("nobody/") for key in store.objects())
    finally:
        client.close()
