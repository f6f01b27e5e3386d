"""TLS with client certificates for edge_listen (X-16): the files, read once at the start."""

import os
import stat
from typing import TYPE_CHECKING

import grpc

from edge import access
from edge.durable import why
from edge.errors import ConfigError
from edge.settings import LISTEN_TLS

if TYPE_CHECKING:
    from edge.config import Config

MAX_FILE_BYTES = 1 << 20  # of a file with a certificate, a key, or the clients' CAs


def credentials(config: "Config") -> grpc.ServerCredentials | None:
    """What `edge_listen` proves itself by, and whose clients it takes; None where it has no TLS.

    Raises:
        ConfigError: a file cannot be used, with what to do.
    """
    if not config.edge_listen or not config.edge_listen_cert_file:
        return None
    paths = {name: access.credential_path(getattr(config, name)) for name in LISTEN_TLS}
    certificate, key, client_ca = (_read(name, path) for name, path in paths.items())
    _check(paths)
    return grpc.ssl_server_credentials([(key, certificate)], root_certificates=client_ca, require_client_auth=True)


def _read(name: str, path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"{name}: {path} cannot be read: {why(error)}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ConfigError(f"{name}: {path} is not a file")
        if name == "edge_listen_key_file" and (others := access.others(f"/proc/self/fd/{fd}", os.geteuid())):
            raise ConfigError(
                f"{name}: the private key {path} can be used by {', '.join(others)} (mode {access.mode_text(path)}); "
                f"{access.how_to_fix(path, os.geteuid())}"
            )
        data = os.read(fd, MAX_FILE_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{name}: {path} has more than {MAX_FILE_BYTES} bytes, which no such file has")
    return data


def _check(paths: dict[str, str]) -> None:
    """gRPC takes anything, and then refuses every client without a word."""
    import ssl  # with TLS only: it is 5 MiB of an idle agent's memory

    certificate, key, client_ca = paths.values()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # of an encrypted key: nobody is asked
    except ssl.SSLError as error:
        said = (
            "it is not the key of edge_listen_cert_file"
            if error.reason == "KEY_VALUES_MISMATCH"
            else "not in PEM form, or encrypted"
        )
        raise ConfigError(f"edge_listen_key_file: {key}, with {certificate}: {said}") from None
    try:
        context.load_verify_locations(client_ca)
    except ssl.SSLError:
        raise ConfigError(f"edge_listen_client_ca_file: {client_ca}: no certificate in PEM form is in it") from None
