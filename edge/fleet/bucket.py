"""A repository in a private bucket: the same GETs, signed with the credentials that captures are uploaded with (F-14)."""

import logging
from collections.abc import Mapping
from urllib.parse import urlsplit

from edge.clock import Clock
from edge.cloud.aws import sigv4
from edge.cloud.aws.credentials import CredentialSource
from edge.cloud.retry import SKEW_SECONDS
from edge.cloud.store import StoreError
from edge.config import Config
from edge.fleet.source import SourceError

log = logging.getLogger(__name__)

SCHEME = "s3://"


class Signing:
    """Signs GETs, by the store's time where this device's clock is far from it. One thread uses it."""

    def __init__(self, credentials: CredentialSource, region: str, clock: Clock) -> None:
        self._credentials = credentials
        self._region = region
        self._clock = clock
        self._ahead = 0.0  # of this device's clock, in seconds

    def signed(self, path: str, host: str) -> dict[str, str]:
        """The headers that a GET of an encoded path needs.

        Raises:
            SourceError: there are no credentials now.
        """
        try:
            keys = self._credentials.get()
        except StoreError as error:
            raise SourceError(f"there are no credentials for the repository's bucket: {error}") from None
        headers = {"host": host, "x-amz-content-sha256": sigv4.EMPTY_SHA256}
        at = self._clock.now() + self._ahead
        return sigv4.sign("GET", path, headers, sigv4.EMPTY_SHA256, keys=keys, region=self._region, service="s3", at=at)

    def learn(self, status: int, headers: Mapping[str, str], date: float | None) -> bool:
        """Whether a refusal may be about the clock, and the same request is to be signed by the store's time."""
        if status not in (400, 403) or date is None:
            return False
        ahead = date - self._clock.now()
        if abs(ahead - self._ahead) < SKEW_SECONDS:
            return False
        self._ahead = ahead
        log.warning("fleet: requests are signed with the store's time")
        return True


def url_of(repository: str, config: Config) -> str:
    """The URL of a bucket's part, given as s3://BUCKET/PREFIX."""
    parts = urlsplit(repository)
    bucket, region = parts.netloc, config.core_region
    if config.core_endpoint_override:
        return f"{config.core_endpoint_override.rstrip('/')}/{bucket}{parts.path}"
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    if "." in bucket:  # a wildcard certificate covers one label
        return f"https://s3.{region}.{domain}/{bucket}{parts.path}"
    return f"https://{bucket}.s3.{region}.{domain}{parts.path}"
