"""A key service as AWS KMS is asked: one key (ECDSA P-256), its public half and signatures of digests.

https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html; moto signs no digests.
"""

import base64
import json
import time

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from tests.fakes.web import Handler, Web

KEY = "alias/fleet-online"


class _Calls(Handler):
    def do_POST(self) -> None:
        owner: KeyService = self.server.owner  # type: ignore[attr-defined]
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        call = self.headers["X-Amz-Target"].partition(".")[2]
        if asked["KeyId"] != KEY or not owner.allowed:
            kind = "AccessDeniedException" if asked["KeyId"] == KEY else "NotFoundException"
            self.answer(400, json.dumps({"__type": kind, "message": "not so"}).encode())
            return
        if call == "GetPublicKey":
            form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            given = {"PublicKey": owner.key.public_key().public_bytes(*form)}
        else:
            assert (call, asked["MessageType"], asked["SigningAlgorithm"]) == ("Sign", "DIGEST", "ECDSA_SHA_256")
            how = ec.ECDSA(Prehashed(hashes.SHA256()))
            given = {"Signature": owner.key.sign(base64.b64decode(asked["Message"]), how)}
        plain = {name: base64.b64encode(data).decode() for name, data in given.items()}
        self.answer(200, json.dumps({"KeyId": KEY, "SigningAlgorithms": ["ECDSA_SHA_256"], **plain}).encode())


class KeyService(Web):
    """The service; while not `allowed` it refuses everything."""

    handler = _Calls

    def __init__(self) -> None:
        super().__init__()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.allowed = True

    def now(self) -> float:
        return time.time()
