"""Captures read again from buckets of stores that others wrote, and refusals of a store in words."""

import contextlib
import json
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from edge.client import captures
from edge.clock import SystemClock
from edge.cloud.aws.client import S3Location
from edge.cloud.aws.credentials import EnvironmentCredentials
from edge.cloud.aws.reading import S3Reader
from tests.fakes import stores
from tests.fakes.captures import large, small
from tests.fakes.cloud import pipeline, s3_store
from tests.fakes.stores import StoreProcess, start_moto, start_rclone
from tests.fakes.written import record
from tests.system.harness import client_command

WHERE = f"s3://{stores.BUCKET}"


@pytest.fixture(scope="module", params=[start_rclone, start_moto], ids=["rclone", "moto"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    made: StoreProcess = request.param(tmp_path_factory.mktemp("store"))
    yield made
    made.close()


def run(store: StoreProcess, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(
        [*client_command(), "captures", *words],
        env=clean | store.environment() | {"AWS_ENDPOINT_URL": store.url, "AWS_REGION": stores.REGION} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("compress", [False, True])
def test_what_an_agent_uploaded(
    store: StoreProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress: bool
) -> None:  # [V-7]
    credentials = EnvironmentCredentials(store.environment())
    prefix = "packed + ü" if compress else "up + ü"
    with pipeline(
        tmp_path,
        s3_store(store.url, credentials=credentials, region=stores.REGION),
        folder_prefix=prefix,
        compress=compress,
    ) as made:
        made.service.submit(small("a", model="Gas turbine (β) 50%+"))
        made.service.submit(large("b", 9000))
        made.wait_states(["a", "b"])
    for name, value in store.environment().items():
        monkeypatch.setenv(name, value)
    where = f"{WHERE}/{prefix}/"
    found = {one.capture_id: one for one in captures.read(where, endpoint=store.url, region=stores.REGION)}
    assert all(one.origin.endswith(".jsonl.gz") == compress for one in found.values())
    assert set(found) == {"a", "b"}
    assert found["b"].inputs[0].array().shape == (1, 9000)
    assert found["b"].inputs[0].array().tobytes().startswith(b"b-xxx")
    assert found["a"].model_name == "Gas turbine (β) 50%+"


def test_the_commands(store: StoreProcess, tmp_path: Path) -> None:  # [V-7] [V-2]
    client = store.boto()
    for number in range(3):
        body = json.dumps(record(f"c{number}", number)).encode() + b"\n" + b"no record\n" * (number == 1)
        key = f"commands/fleet/digits/2026/01/31/12/{number}.jsonl"
        client.put_object(Bucket=stores.BUCKET, Key=key, Body=body)
    big = record("big") | {
        "deviceFleetInputs": [record("x", picture=np.zeros((1, 64, 64, 1), np.float32))["deviceFleetInputs"][0]]
    }
    del big["deviceFleetInputs"][0]["data"]
    big["deviceFleetInputs"][0]["data-ref"] = "s3://another/place/raw-data/input-tensors/gone.bin"
    client.put_object(
        Bucket=stores.BUCKET, Key="commands/fleet/digits/2026/01/31/13/b.jsonl", Body=json.dumps(big).encode()
    )
    client.close()
    done = run(store, "ls", f"{WHERE}/commands/", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, [one["id"] for one in told["captures"]]) == (1, ["c0", "c1", "c2", "big"])
    assert told["refusals"] == [
        "commands/fleet/digits/2026/01/31/12/1.jsonl:2: not JSON: Expecting value: line 1 column 1 (char 0)"
    ]
    assert run(store, "ls", f"{WHERE}/commands/", "--class", "2").stdout.splitlines()[1].endswith("c2")
    done = run(store, "report", f"{WHERE}/commands/", "--html", str(tmp_path / "r.html"))
    assert done.returncode == 1
    assert "gone.bin cannot be read: " in done.stderr and "NoSuchKey" in done.stderr
    assert (tmp_path / "r.html").read_text().count("data:image/png") == 6
    assert "no capture passes the filters" in run(store, "ls", f"{WHERE}/nothing/").stdout


def test_refusals_in_words(store: StoreProcess) -> None:  # [V-7]
    done = run(store, "ls", "s3://no-such-bucket-here/")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the bucket does not exist: 404 NoSuchBucket" in done.stderr
    done = run(store, "ls", WHERE, AWS_SECRET_ACCESS_KEY="wrong-secret-of-nobody")
    assert done.returncode == 1 and "403" in done.stderr and "wrong-secret" not in done.stderr
    done = run(store, "ls", WHERE, AWS_SECRET_ACCESS_KEY="")
    assert done.returncode == 1 and "AWS_SECRET_ACCESS_KEY" in done.stderr


class Web(ThreadingHTTPServer):
    daemon_threads = False


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"<html>log in</html>", "not that of an object store"),
        (b"<ListBucketResult><Contents><Key>a.jsonl</Key></Contents></ListBucketResult>", "a.jsonl cannot be read"),
        (b"x" * (9 << 20), "expected at most"),
        (b"<ListBucketResult>" + b"<Contents>" * 100_000, ""),
    ],
    ids=["login page", "no object", "endless", "unclosed"],
)
def test_a_store_that_is_none(answer: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> None:  # [V-7]
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listing = "list-type" in self.path
            self.send_response(200 if listing else 418)
            self.send_header("content-length", str(len(answer) if listing else 0))
            self.end_headers()
            if listing:
                self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):
                super().handle()

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-nobody")
    server = Web(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    refused: list[str] = []
    try:
        found = captures.read(
            "s3://bucket/",
            lambda r: refused.append(str(r)),
            endpoint=f"http://127.0.0.1:{server.server_port}",
            region="x",
        )
        assert list(found) == []
    except captures.CommandError as error:
        refused.append(str(error))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert said in "".join(refused)
    assert bool(refused) == bool(said)


def test_a_list_goes_on_page_by_page(store: StoreProcess) -> None:  # [V-7]
    client = store.boto()
    keys = [f"many/{name}.jsonl" for name in ("a&b", "c d", "e+f", "g%20h", "ü", "z")]
    for key in keys:
        client.put_object(Bucket=stores.BUCKET, Key=key, Body=b"")
    client.close()
    location = S3Location(stores.BUCKET, stores.REGION, store.url)
    reader = S3Reader(location, EnvironmentCredentials(store.environment()), SystemClock(), ssl.create_default_context)
    with contextlib.closing(reader):
        assert sorted(one.key for one in reader.objects("many/", page_keys=2)) == sorted(keys)
