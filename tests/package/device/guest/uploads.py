"""Destination Cloud over TLS: credentials by the device's certificate, captures to a store, all on this machine."""

import hashlib
import json
import re
import shutil
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from harness import CONFIG, NAME, SET, STAGE, check, client, configure, eventually, journal, load, picture, restart, run
from web import Handler, Web, server_context

PKI = STAGE / "pki"  # made by ../stage.py
DEVICE = Path(f"/etc/{NAME}/iot")
ROOTS = Path("/etc/ssl/certs")
THING, BUCKET = SET["thing"], "device-captures"
ACCESS, SECRET, TOKEN = "ASIADEVICECHECK", "not-a-secret/0123456789", "a-session-token"
CREDENTIALS = "/role-aliases/captures/credentials"


class Peer(Web):
    """The IoT credentials endpoint or the store; `seen` are the paths that were asked for, `bodies` what was put."""

    def __init__(self, handler: type[Handler], tls: ssl.SSLContext) -> None:
        super().__init__(tls)
        self.handler = handler
        self.seen: list[str] = []
        self.bodies: list[bytes] = []

    def now(self) -> float:
        return datetime.now(UTC).timestamp()


class Credentials(Handler):
    """Gives the key to the thing that its certificate names."""

    def do_GET(self) -> None:
        owner: Peer = self.server.owner  # type: ignore[attr-defined]
        owner.seen.append(self.path)
        certificate: Any = self.connection.getpeercert()  # type: ignore[attr-defined]
        names = dict(pair[0] for pair in certificate["subject"])
        if (self.path, names["commonName"], self.headers["x-amzn-iot-thingname"]) != (CREDENTIALS, THING, THING):
            self.answer(403, b"{}")
            return
        end = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        key = {"accessKeyId": ACCESS, "secretAccessKey": SECRET, "sessionToken": TOKEN, "expiration": end}
        self.answer(200, json.dumps({"credentials": key}).encode())


class Store(Handler):
    """Takes what is whole and carries the key; whether signatures are right, the tests from source say."""

    def do_PUT(self) -> None:
        owner: Peer = self.server.owner  # type: ignore[attr-defined]
        owner.seen.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        whole = hashlib.sha256(body).hexdigest() == self.headers["x-amz-content-sha256"]
        signed = self.headers["Authorization"].startswith(f"AWS4-HMAC-SHA256 Credential={ACCESS}/")
        if whole and signed and self.headers["x-amz-security-token"] == TOKEN:
            owner.bodies.append(body)
            self.answer(200, headers={"ETag": f'"{whole}"'})
        else:
            self.answer(403)


def install_device() -> None:
    """The certificates of the device, as docs/operate-cloud.md has them: the key is the agent's own."""
    shutil.copytree(PKI / "device", DEVICE)
    run("chown", "-R", f"{NAME}:root", str(DEVICE))
    (DEVICE / "device.key.pem").chmod(0o400)


def peers() -> tuple[Peer, Peer]:
    server = PKI / "server.cert.pem", PKI / "server.key.pem"
    iot = Peer(Credentials, server_context(*server, PKI / "device-ca.pem"))
    return iot, Peer(Store, server_context(PKI / "store.cert.pem", PKI / "store.key.pem"))


def capture(state: str) -> str:
    """The id of a Predict's capture, which has come to `state` (a pattern) when the client stops waiting for it."""
    found = re.search(rf"capture (\S+): {state}\b", text := picture("PredictAndCapture"))
    assert found, text
    return found[1]


@check("destination Cloud: an unknown store is refused, and once its root is known all captures arrive over TLS")
def _() -> None:
    config = CONFIG.read_text()
    made = [folder for folder in (ROOTS, ROOTS.parent) if not folder.exists()]
    link = ROOTS / (PKI / "store-ca.name").read_text().strip()
    ROOTS.mkdir(parents=True, exist_ok=True)
    install_device()
    iot, store = peers()
    iot.start()
    store.start()
    try:
        configure(
            core_capture_data_destination="Cloud",
            core_capture_data_disk_path=None,
            core_capture_data_batch_size=1,
            core_region="eu-west-1",
            core_endpoint_override=store.url,
            core_folder_prefix="captures",
            core_iot_thing_name=THING,
            provider_s3_bucket_name=BUCKET,
            provider_aws_ca_cert_file=str(DEVICE / "iot-ca.pem"),
            provider_aws_cert_file=str(DEVICE / "device.cert.pem"),
            provider_aws_cert_pk_file=str(DEVICE / "device.key.pem"),
            provider_aws_iot_cred_endpoint=f"{iot.url}{CREDENTIALS}",
        )
        restart()
        load()
        first = capture("IN_PROGRESS")
        eventually(lambda: "certificate" in client("status"), 60, "the status says that the certificate is not known")
        assert iot.seen == [CREDENTIALS] and store.seen == [], (iot.seen, store.seen)
        shutil.copy(PKI / "store-ca.pem", link)
        restart()
        load()
        second = capture("(IN_PROGRESS|SUCCESS)")
        for one in (first, second):
            eventually(lambda one=one: client("capture-status", one).strip() == "SUCCESS", 90, f"{one} arrives")
        lines = [json.loads(line) for body in store.bodies for line in body.splitlines()]
        assert sorted(line["eventMetadata"]["eventId"] for line in lines) == sorted((first, second)), lines
        assert all(path.startswith(f"/{BUCKET}/captures/") for path in store.seen), store.seen
        assert not [secret for secret in (SECRET, TOKEN) if secret in journal()]
    finally:
        iot.close()
        store.close()
        link.unlink(missing_ok=True)
        for folder in made:
            folder.rmdir()
        shutil.rmtree(DEVICE)
        CONFIG.write_text(config)
        restart()
        load()
