"""What goes wrong on the way to a peer, each as a `Fault`."""

import contextlib
import http.client
import io
import socket
import ssl
from collections.abc import Iterator

from edge.cloud.retry import Fault
from edge.text import printable

_VERIFY_FAULTS = {9: Fault.TLS_NOT_YET_VALID, 10: Fault.TLS_EXPIRED, 62: Fault.TLS_HOST_NAME, 64: Fault.TLS_HOST_NAME}


class TransportError(Exception):
    """There was no whole answer."""

    def __init__(self, fault: Fault, detail: str = "") -> None:
        super().__init__(f"{fault.value}: {detail}")
        self.fault = fault
        self.detail = printable(detail)


class StaleConnectionError(TransportError):
    """A kept connection was dead when it was used again: the same request on a new one is no second try."""


@contextlib.contextmanager
def faults(*, connecting: bool = False) -> Iterator[None]:
    """Name what goes wrong inside.

    Raises:
        TransportError: in place of what http.client, ssl and sockets raise.
    """
    fault, detail = Fault.NOT_HTTP, ""
    try:
        yield
        return
    except TransportError:
        raise
    except ssl.SSLCertVerificationError as error:
        fault, detail = _VERIFY_FAULTS.get(error.verify_code, Fault.TLS_UNTRUSTED), error.verify_message
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        fault = Fault.RESET
    except ssl.SSLError as error:
        refused = "ALERT" in (error.reason or "") and ("CERT" in (error.reason or "") or "CA" in (error.reason or ""))
        fault, detail = (Fault.TLS_CLIENT if refused else Fault.TLS), error.reason or ""
    except socket.gaierror as error:
        fault, detail = Fault.NAME, error.strerror or ""
    except TimeoutError:
        fault, detail = (Fault.UNREACHABLE, "no answer to connecting") if connecting else (Fault.STALLED, "")
    except (http.client.RemoteDisconnected, ConnectionError, http.client.NotConnected) as error:
        if connecting and not isinstance(error, ConnectionResetError):
            fault, detail = Fault.UNREACHABLE, getattr(error, "strerror", "") or ""
        else:
            fault = Fault.RESET
    except (http.client.IncompleteRead, io.UnsupportedOperation):
        fault = Fault.TRUNCATED
    except (http.client.HTTPException, ValueError) as error:
        fault, detail = Fault.NOT_HTTP, type(error).__name__
    except OSError as error:
        fault, detail = Fault.UNREACHABLE if connecting else Fault.RESET, error.strerror or ""
    raise TransportError(fault, detail)
