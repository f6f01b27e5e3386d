"""Whom a bucket's client talks to, and which CAs it trusts then."""

import ssl
from collections.abc import Callable

from edge.clock import Clock
from edge.cloud.aws.dialling import Peer
from edge.cloud.retry import Outcome, Verdict
from edge.cloud.store import StoreError

TRUST_SECONDS = 300.0  # for which the CAs that were read are used: they are replaced while the agent runs


class Trusted:
    """The CAs that are trusted now, or were some minutes ago; `trust` reads them anew. For one thread at a time."""

    def __init__(self, trust: Callable[[], ssl.SSLContext], clock: Clock) -> None:
        self._trust = trust
        self._clock = clock
        self._context: ssl.SSLContext | None = None
        self._made = 0.0  # monotonic

    def context(self, url: str) -> ssl.SSLContext | None:
        """What to use for a URL; None where that is without TLS.

        Raises:
            StoreError: the CAs cannot be read.
        """
        if not url.startswith("https:"):
            return None
        now = self._clock.monotonic()
        if self._context is None or now - self._made > TRUST_SECONDS:
            try:
                self._context, self._made = self._trust(), now
            except OSError as error:
                raise _waits(f"the trusted CAs cannot be read: {error.strerror or error}") from None
        return self._context

    def forget(self) -> None:
        """Read the CAs again the next time."""
        self._context = None


def peer_of(url: str, tls: ssl.SSLContext | None) -> Peer:
    """Whom to ask for a URL.

    Raises:
        StoreError: it cannot be one.
    """
    try:
        return Peer.of(url, tls)
    except ValueError as error:
        raise _waits(str(error)) from None


def _waits(text: str) -> StoreError:
    """The error for a fault that only the operator can fix: uploads wait meanwhile."""
    return StoreError(Verdict(Outcome.RETRY_LATER, text, slow=True))
