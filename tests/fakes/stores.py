"""Object stores that others wrote, as processes: rclone serve s3, and moto with authentication on."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config as BotoConfig

from tests.system.harness import eventually

BUCKET, REGION = "sagemaker-test", "us-east-1"
ROLE_POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
}
ALLOW_PUT = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["s3:PutObject", "s3:AbortMultipartUpload", "s3:GetObject", "s3:List*"],
            "Resource": "*",
        }
    ],
}


@dataclass
class StoreProcess:
    """A server with a bucket, and keys that it accepts."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path
    access: str = "AKIARCLONE"
    secret: str = "rclone-secret-0123456789"
    token: str = ""

    def environment(self) -> dict[str, str]:
        """The keys, as the agent takes them from its environment."""
        keys = {"AWS_ACCESS_KEY_ID": self.access, "AWS_SECRET_ACCESS_KEY": self.secret}
        return {**keys, "AWS_SESSION_TOKEN": self.token} if self.token else keys

    def boto(self) -> Any:
        """boto3's client, with the same keys."""
        return _boto("s3", self.url, self.access, self.secret, self.token)

    def objects(self) -> dict[str, bytes]:
        """All objects by key, read back by boto3."""
        client = self.boto()
        try:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
            keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
            return {key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}
        finally:
            client.close()

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(20)


def _boto(service: str, url: str, access: str, secret: str, token: str = "") -> Any:
    return boto3.client(
        service,
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        aws_session_token=token or None,
        # rclone answers with 500 for an object that is just being stored, and boto3 cannot read that answer where it checks sums.
        config=BotoConfig(
            s3={"addressing_style": "path"}, retries={"max_attempts": 4}, response_checksum_validation="when_required"
        ),
    )


def _command(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def start_rclone(folder: Path, port: int = 0) -> StoreProcess:
    """rclone serve s3 on a folder, with one key; `port` 0 takes a free one."""
    (folder / "data" / BUCKET).mkdir(parents=True, exist_ok=True)
    log = folder / "rclone.log"
    made = StoreProcess(None, "", log)  # type: ignore[arg-type]
    words = ["serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{made.access},{made.secret}"]
    made.process = _start([_command("rclone"), *words, str(folder / "data")], log, RCLONE_CONFIG="/dev/null")
    pattern = re.compile(r"http://127\.0\.0\.1:[0-9]+")
    eventually(lambda: pattern.search(log.read_text()), 30, "rclone serves")
    found = pattern.search(log.read_text())
    assert found
    made.url = found[0]
    return made


def start_moto(folder: Path, policy: Any = ALLOW_PUT) -> StoreProcess:
    """moto with a bucket and the temporary keys of a role with a policy; every other request is refused."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "moto.log"
    url = f"http://127.0.0.1:{port}"
    # These are done without authentication: bucket, role, policy, assuming the role.
    process = _start(
        [_command("moto_server"), "-H", "127.0.0.1", "-p", str(port)], log, INITIAL_NO_AUTH_ACTION_COUNT="4"
    )
    eventually(lambda: _listens(port), 60, "moto serves")
    admin = ("admin", "admin")
    s3, iam, sts = (_boto(service, url, *admin) for service in ("s3", "iam", "sts"))
    s3.create_bucket(Bucket=BUCKET)
    role = iam.create_role(RoleName="device", AssumeRolePolicyDocument=json.dumps(ROLE_POLICY))["Role"]
    iam.put_role_policy(RoleName="device", PolicyName="put", PolicyDocument=json.dumps(policy))
    keys = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="device")["Credentials"]
    for client in (s3, iam, sts):
        client.close()
    return StoreProcess(process, url, log, keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _start(words: Sequence[str], log: Path, **environment: str) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **environment}
        )
