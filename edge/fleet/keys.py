"""The operator's keys: files of a folder, `NAME.pem` (PKCS #8, encrypted) and `NAME.pub` (what others may see)."""

import os
from collections.abc import Collection
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from securesystemslib.signer import CryptoSigner, Signer, SSlibKey

from edge import durable
from edge.errors import EdgeError
from edge.text import shown

PRIVATE = ".pem"
PUBLIC = ".pub"
PRIVATE_MODE = 0o600


class KeyFileError(EdgeError):
    """A key cannot be read or made."""


class Keys:
    """A folder of keys. Private ones are read when something is to be signed with them."""

    def __init__(self, folder: Path, passphrase: bytes | None) -> None:
        self.folder = folder
        self._passphrase = passphrase

    def make(self, name: str) -> SSlibKey:
        """A new key (ECDSA P-256); what is there stays.

        Raises:
            KeyFileError: there is one of that name, or it cannot be written.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        how: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if self._passphrase:
            how = serialization.BestAvailableEncryption(self._passphrase)
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        files = (
            (self.folder / (name + PRIVATE), private, PRIVATE_MODE),
            (self.folder / (name + PUBLIC), public, 0o644),
        )
        made: list[Path] = []
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path, data, mode in files:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
                made.append(path)
                with os.fdopen(fd, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            durable.fsync_folder(self.folder)
        except OSError as error:
            for path in made:  # half a key would be in the way of a whole one
                path.unlink(missing_ok=True)
            if isinstance(error, FileExistsError):
                raise KeyFileError(f"{error.filename} is there already; no key is ever written over") from None
            raise KeyFileError(f"{error.filename or self.folder}: {durable.why(error)}") from None
        return SSlibKey.from_crypto(key.public_key())

    def public(self, name: str) -> SSlibKey:
        """A key's public half.

        Raises:
            KeyFileError: it cannot be read.
        """
        return read_public(self.folder / (name + PUBLIC))

    def has(self, name: str) -> bool:
        """Whether a key of that name is here."""
        return (self.folder / (name + PUBLIC)).exists()

    def names(self) -> dict[str, str]:
        """The keys whose private half is here: names by key id."""
        found = {}
        for path in sorted(self.folder.glob("*" + PUBLIC)):
            if path.with_suffix(PRIVATE).exists():
                found[read_public(path).keyid] = path.stem
        return found

    def signers(self, keyids: Collection[str]) -> list[Signer]:
        """What can sign as one of those keys.

        Raises:
            KeyFileError: a private half is here and cannot be read.
        """
        names = self.names()
        return [self._signer(names[keyid]) for keyid in keyids if keyid in names]

    def _signer(self, name: str) -> Signer:
        path = self.folder / (name + PRIVATE)
        try:
            data = path.read_bytes()
            is_plain = b"ENCRYPTED" not in data
            key = serialization.load_pem_private_key(data, None if is_plain else self._passphrase)
        except OSError as error:
            raise KeyFileError(f"{path}: {error.strerror}") from None
        except TypeError:
            raise KeyFileError(f"{path} is encrypted; give its passphrase") from None
        except (ValueError, UnsupportedAlgorithm):
            raise KeyFileError(f"{path} is no private key, or its passphrase is another") from None
        return CryptoSigner(key, self.public(name))


def read_public(path: Path) -> SSlibKey:
    """The public key in a PEM file.

    Raises:
        KeyFileError: it is none.
    """
    try:
        return SSlibKey.from_crypto(serialization.load_pem_public_key(path.read_bytes()))
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFileError(f"{shown(str(path))} holds no public key that can be used; expected PEM") from None
