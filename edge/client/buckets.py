"""Buckets as people name them on a command line: `s3://BUCKET/PREFIX`, with options and the environment beside."""

import os
import re

from edge.client.outcome import InputError
from edge.cloud.retry import REGION

SCHEME = "s3://"
DEFAULT_REGION = "us-east-1"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


def parse(where: str) -> tuple[str, str]:
    """Bucket and prefix.

    Raises:
        InputError: it names no bucket.
    """
    bucket, _, prefix = where.removeprefix(SCHEME).partition("/")
    if not where.startswith(SCHEME) or not _BUCKET.fullmatch(bucket):
        raise InputError(f"{where!r} names no bucket; expected s3://BUCKET/PREFIX")
    return bucket, prefix


def region_and_endpoint(region: str, endpoint: str, *, configured: bool = False) -> tuple[str, str]:
    """What is given, or else what the environment says, unless an agent's configuration stands in for it.

    Raises:
        InputError: it cannot be one.
    """
    if not configured:
        region = region or _from_environment("AWS_REGION", "AWS_DEFAULT_REGION") or DEFAULT_REGION
        endpoint = endpoint or _from_environment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    if region and not REGION.fullmatch(region):
        raise InputError(f"region {region!r}; expected letters, digits and '-', such as eu-west-1")
    if endpoint and not re.match(r"https?://[^/]", endpoint):
        raise InputError(f"endpoint {endpoint!r}; expected http://HOST or https://HOST")
    return region, endpoint


def _from_environment(*names: str) -> str:
    return next((value for name in names if (value := os.environ.get(name, "").strip())), "")
