"""The trust anchors on disk, and the time at which certificates are judged (S-3, S-4, S-6)."""

import datetime
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from edge.clock import Clock
from edge.errors import TrustError

log = logging.getLogger(__name__)

MAX_ROOT_FILE_BYTES = 1 << 20
WRITE_OR_EXECUTE = 0o333


def load_roots(folder: Path) -> list[x509.Certificate]:
    """Every certificate in every `*.pem` of the trust directory.

    Raises:
        TrustError: there is none, one cannot be read, or somebody may write to one (S-4); the text has the fix.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".pem")
    except OSError as error:
        raise TrustError(
            f"the trust directory cannot be read ({error.strerror}); see sagemaker_edge_core_root_certs_path"
        ) from None
    if not paths:
        raise TrustError(
            "the trust directory holds no *.pem: put the root certificate of your model signers there (mode 0444); see sagemaker_edge_core_root_certs_path"
        )
    return [certificate for path in paths for certificate in _read(path)]


def _read(path: Path) -> list[x509.Certificate]:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & WRITE_OR_EXECUTE:
                raise TrustError(
                    f"root certificate {path.name} has mode {mode:04o}, which lets somebody change or execute it; run: chmod 0444 {path.name}"
                )
            data = file.read(MAX_ROOT_FILE_BYTES + 1)
        if len(data) > MAX_ROOT_FILE_BYTES:
            raise TrustError(f"root certificate {path.name} is larger than {MAX_ROOT_FILE_BYTES} bytes")
        return x509.load_pem_x509_certificates(data)
    except OSError as error:
        raise TrustError(f"root certificate {path.name} cannot be read: {error.strerror}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise TrustError(f"root certificate {path.name} is not a PEM certificate") from None


def judgement_time(chain: Sequence[x509.Certificate], clock: Clock, build_date: int) -> datetime.datetime:
    """The time (UTC) to judge validity at.

    The system clock, unless it is before the build date or not yet synchronised: then the later of the build date and the
    leaf's notBefore, and the log says so (S-6).
    """
    now = datetime.datetime.fromtimestamp(clock.now(), datetime.UTC)
    built = datetime.datetime.fromtimestamp(build_date, datetime.UTC)
    if now >= built and clock.synchronised():
        return now
    at = max(built, chain[0].not_valid_before_utc)
    why = "is before the agent's build date" if now < built else "is not synchronised"
    log.warning(
        "the system clock (%s) %s: certificates are judged at %s", f"{now:%Y-%m-%d %H:%M}", why, f"{at:%Y-%m-%d %H:%M}"
    )
    return at
