"""A stand-in for the AWS IoT credentials provider: TLS with client certificates, mapped to things and to keys."""

import json
import secrets
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.fakes.pki import Ca, Identity
from tests.fakes.s3_stub import Key, S3Stub
from tests.fakes.web import Handler, Web, server_context

ALIAS, THING = "capture-role", "thing-1"


class IotEndpoint(Web):
    """Gives a new key of the stub's for each request of the thing whose certificate is shown."""

    def __init__(self, folder: Path, stub: S3Stub, *, host: str = "localhost", life: float = 3600.0, **server: Any):
        self.server_ca = Ca(folder, "server-ca")
        self.device_ca = Ca(folder, "device-ca")
        self.device: Identity = self.device_ca.issue(THING)
        identity = self.server_ca.issue("iot-server", host=host, **server)
        super().__init__(server_context(identity.certificate_file, identity.key_file, self.device_ca.file))
        self.handler = _IotHandler
        self.stub = stub
        self.life = life
        self.given = 0
        self.requests = 0
        self.answers: list[Callable[[Handler], None]] = []  # instead of credentials
        self.lock = threading.Lock()

    def now(self) -> float:
        return self.stub.now()

    @property
    def credentials_url(self) -> str:
        """The setting `provider_aws_iot_cred_endpoint`."""
        return f"{self.url}/role-aliases/{ALIAS}/credentials"

    def new_key(self) -> dict[str, str]:
        """A key that the store knows from now on."""
        self.given += 1
        access, secret, token = f"ASIA{self.given:08d}", secrets.token_hex(20), secrets.token_urlsafe(300)
        self.stub.keys[access] = Key(secret, token)
        end = datetime.fromtimestamp(self.now() + self.life, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"accessKeyId": access, "secretAccessKey": secret, "sessionToken": token, "expiration": end}


class _IotHandler(Handler):
    def do_GET(self) -> None:
        iot: IotEndpoint = self.server.owner  # type: ignore[attr-defined]
        with iot.lock:
            iot.requests += 1
            instead = iot.answers.pop(0) if iot.answers else None
        if instead is not None:
            instead(self)
            return
        certificate: Any = self.connection.getpeercert()  # type: ignore[attr-defined]
        thing = dict(pair[0] for pair in certificate["subject"])["commonName"]
        if self.headers["x-amzn-iot-thingname"] != thing or thing != THING:
            refuse(self, 403, "Access Denied: the thing is not the certificate's")
        elif self.path != f"/role-aliases/{ALIAS}/credentials":
            refuse(self, 404, "Role alias does not exist")
        else:
            self.answer(200, json.dumps({"credentials": iot.new_key()}).encode())


def refuse(handler: Handler, status: int, message: str) -> None:
    """Answer as the endpoint does when it refuses."""
    handler.answer(status, json.dumps({"message": message}).encode(), {"x-amzn-errortype": "AccessDeniedException:x"})


def refusing(status: int, message: str) -> Callable[[Handler], None]:
    """An entry of `IotEndpoint.answers`."""
    return lambda handler: refuse(handler, status, message)
