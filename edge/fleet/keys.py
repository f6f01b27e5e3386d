"""The operator's keys: files of a folder, `NAME.pem` (PKCS #8, encrypted) and `NAME.pub` (what others may see).

A key that is elsewhere, in a token or a key service, has `NAME.uri` in place of the first: where it is.
"""

import os
import re
from collections.abc import Callable, Collection, Sequence
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
ELSEWHERE = ".uri"
PRIVATE_MODE = 0o600


NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")


class KeyFileError(EdgeError):
    """A key cannot be read or made."""


def _no_pin(secret: str) -> str:
    raise KeyFileError(f"a token asks for its {secret}")


class Keys:
    """A folder of keys. Private ones are read when something is to be signed with them."""

    def __init__(self, folder: Path, passphrase: bytes | None, ask: Callable[[str], str] = _no_pin) -> None:
        """`ask` gives the PIN of a token."""
        self.folder = folder
        self._passphrase = passphrase
        self._ask = ask

    def make(self, name: str) -> SSlibKey:
        """Make a new key (ECDSA P-256), unless it exists.

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
        self._write([(name + PRIVATE, private, PRIVATE_MODE), (name + PUBLIC, public, 0o644)])
        return SSlibKey.from_crypto(key.public_key())

    def take(self, name: str, uri: str) -> SSlibKey:
        """A key that is in a token or a key service.

        Raises:
            KeyFileError: there is one of that name, or it cannot be written.
            TokenError: there is no such key there.
        """
        from edge.fleet import tokens  # their libraries, only for keys elsewhere

        if not NAME.fullmatch(name):
            raise KeyFileError(f"{shown(name)} is no key's name; expected letters, digits, '-' and '_'")
        kept, key = tokens.find(uri, self._ask)
        public = str(key.keyval["public"]).encode()
        if SSlibKey.from_crypto(serialization.load_pem_public_key(public)).keyid != key.keyid:
            raise KeyFileError(f"{uri} signs by {key.scheme}, which is not what is asked of such keys")
        self._write([(name + ELSEWHERE, kept.encode() + b"\n", 0o644), (name + PUBLIC, public, 0o644)])
        return key

    def _write(self, files: Sequence[tuple[str, bytes, int]]) -> None:
        """New files, all or none: their names, bytes and modes."""
        made: list[Path] = []
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, data, mode in files:
                path = self.folder / name
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
                raise KeyFileError(f"{error.filename} exists already; keys are never overwritten") from None
            raise KeyFileError(f"{error.filename or self.folder}: {durable.why(error)}") from None

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
            if any(path.with_suffix(suffix).exists() for suffix in (PRIVATE, ELSEWHERE)):
                found[read_public(path).keyid] = path.stem
        return found

    def signers(self, keyids: Collection[str]) -> list[Signer]:
        """The signers for some keys.

        Raises:
            KeyFileError: a private half is here and cannot be read.
        """
        names = self.names()
        return [self._signer(names[keyid]) for keyid in keyids if keyid in names]

    def _signer(self, name: str) -> Signer:
        path = self.folder / (name + PRIVATE)
        if not path.exists():
            return self._signer_elsewhere(name)
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

    def _signer_elsewhere(self, name: str) -> Signer:
        from edge.fleet import tokens

        path = self.folder / (name + ELSEWHERE)
        try:
            uri = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise KeyFileError(f"{path}: {error}") from None
        return tokens.signer_of(uri, self.public(name), self._ask)


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
