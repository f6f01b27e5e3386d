"""Which CAs a peer's certificate may lead to."""

import errno
import os
import ssl
from pathlib import Path

# Where distributions keep their CAs in one file, for where OpenSSL finds none by its own paths.
_CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_CA_LINKS = "*.[0-9]"  # OpenSSL reads no other files of a folder


def public_trust(*extra_ca_files: str) -> ssl.SSLContext:
    """A client context that trusts the system's CAs (SSL_CERT_FILE, SSL_CERT_DIR) and those in the extra files, "" being none.

    Raises:
        OSError: an extra file cannot be read, or has no certificate (ssl.SSLError); what a variable names is not there.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not _finds_own_cas():
        for path in _CA_FILES:
            if Path(path).exists():
                context.load_verify_locations(path)
                break
    for path in filter(None, extra_ca_files):
        context.load_verify_locations(path)
    return context


def _finds_own_cas() -> bool:
    """Whether OpenSSL finds CAs by its own paths. Where a site names others, nothing is added to them.

    Raises:
        FileNotFoundError: what the site names is not there; OpenSSL would go on without any CA.
    """
    paths = ssl.get_default_verify_paths()  # None: not there
    file, folders = (os.environ.get(name) for name in (paths.openssl_cafile_env, paths.openssl_capath_env))
    if file is not None and not Path(file).exists():
        raise FileNotFoundError(errno.ENOENT, f"{paths.openssl_cafile_env} names {file}, which is not there")
    if folders is not None and not any(Path(folder).exists() for folder in folders.split(os.pathsep)):
        raise FileNotFoundError(errno.ENOENT, f"{paths.openssl_capath_env} names {folders}, which is not there")
    if paths.cafile is not None or file is not None or folders is not None:
        return True
    return paths.capath is not None and any(Path(paths.capath).glob(_CA_LINKS))
