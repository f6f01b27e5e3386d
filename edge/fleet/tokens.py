"""Operators' keys in a PKCS#11 token or a cloud's key service, which never leave it (ADR 45).

securesystemslib's signers do the work, each with a package of its own, which only an operator's machine has.
"""

import os
import re
from collections.abc import Callable
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import AWSSigner, AzureSigner, GCPSigner, HSMSigner, Signer, SSlibKey

from edge.errors import EdgeError
from edge.text import printable, shown

MODULE = "PYKCS11LIB"  # the variable that names the PKCS#11 module of a token's maker
EXPECTED = (
    "pkcs11:token=LABEL;id=%02?module-path=FILE, hsm:ID?label=LABEL, awskms:KEY, "
    "gcpkms:projects/.../cryptoKeyVersions/N or azurekms://VAULT.vault.azure.net/keys/NAME"
)
_NEEDS = {
    "hsm": "python-pkcs11",
    "awskms": "boto3",
    "gcpkms": "google-cloud-kms",
    "azurekms": "azure-identity azure-keyvault-keys",
}
_VAULT = re.compile(r"//([A-Za-z0-9-]{1,63})\.vault\.azure\.net/keys/([A-Za-z0-9-]{1,127})(/[0-9a-f]+)?")
_MAX_ID_BYTES = 20
Ask = Callable[[str], str]  # gives the PIN


class TokenError(EdgeError):
    """A key in a token or a key service cannot be used."""


def find(uri: str, ask: Ask) -> tuple[str, SSlibKey]:
    """The key that a URI names: the URI to keep, and the public half.

    Raises:
        TokenError: there is none, it does not answer, or the package for it is not installed.
    """
    uri = _plain(uri)
    scheme, _, rest = uri.partition(":")
    try:
        if scheme == "hsm":
            number, label = _of_token(rest)
            found = HSMSigner.import_(number, label, ask)
        elif scheme == "awskms":
            found = AWSSigner.import_(rest)
        elif scheme == "gcpkms":
            found = GCPSigner.import_(rest)
        elif match := _VAULT.fullmatch(rest):
            found = AzureSigner.import_(match[1], match[2])
        else:
            raise TokenError(f"{shown(uri)} names no key; expected {EXPECTED}")
    except EdgeError:
        raise
    except Exception as error:  # whatever a token's module, or a cloud's client, has
        raise told(uri, error) from error
    kept, key = found
    return (uri if scheme == "hsm" else kept), key


def signer_of(uri: str, public: SSlibKey, ask: Ask) -> Signer:
    """What signs with a key.

    Raises:
        TokenError: as `find`.
    """
    uri = _plain(uri)
    try:
        return Signer.from_priv_key_uri(_without_module(uri), public, ask)
    except Exception as error:
        raise told(uri, error) from error


def told(what: str, error: BaseException) -> TokenError:
    """What went wrong, in words."""
    scheme = what.partition(":")[0]
    if isinstance(error, (UnsupportedLibraryError, ImportError)):
        return TokenError(
            f"{printable(what)}: keys of this kind need {_NEEDS.get(scheme, 'a package')} beside the agent's source "
            f"(pip install {_NEEDS.get(scheme, '')}); released programs do not have it"
        )
    return TokenError(f"{printable(what)}: {type(error).__name__}: {printable(str(error))}".rstrip(": "))


def _plain(uri: str) -> str:
    """A URI as it is kept: one of RFC 7512 becomes hsm:ID?label=LABEL&module=FILE.

    Raises:
        TokenError: it is none.
    """
    scheme, colon, rest = uri.partition(":")
    if not colon or not rest or (scheme not in _NEEDS and scheme != "pkcs11"):
        raise TokenError(f"{shown(uri)} names no key; expected {EXPECTED}")
    if scheme != "pkcs11":
        return uri
    path, _, query = rest.partition("?")
    given = dict(part.partition("=")[::2] for part in [*path.split(";"), *query.split("&")] if part)
    if unknown := sorted(set(given) - {"token", "id", "module-path"}):
        raise TokenError(f"{shown(uri)} has {shown(unknown[0])}; allowed are token, id and module-path")
    identity = unquote_to_bytes(given.get("id", ""))
    if not identity or identity[0] == 0 or len(identity) > _MAX_ID_BYTES:
        raise TokenError(f"{shown(uri)} has the id {shown(given.get('id', ''))}; expected one such as id=%02")
    words = {"label": "token", "module": "module-path"}
    more = {
        name: unquote_to_bytes(given[word]).decode("utf-8", "replace") for name, word in words.items() if word in given
    }
    return f"hsm:{int.from_bytes(identity, 'big')}{'?' * bool(more)}{urlencode(more, quote_via=quote)}"


def _of_token(rest: str) -> tuple[int | None, str | None]:
    """The number of a key in a token, and the token's label."""
    _without_module(f"hsm:{rest}")
    number, _, query = rest.partition("?")
    if number and not (number.isascii() and number.isdigit()):
        raise TokenError(f"hsm:{printable(rest)} names no key; expected hsm:ID?label=LABEL")
    return (int(number) if number else None), dict(parse_qsl(query)).get("label")


def _without_module(uri: str) -> str:
    """A URI as securesystemslib takes it: the module goes into the variable that it reads."""
    head, _, query = uri.partition("?")
    given = dict(parse_qsl(query)) if uri.startswith("hsm:") else {}
    if "module" not in given:
        return uri
    os.environ[MODULE] = given.pop("module")
    return f"{head}?{urlencode(given, quote_via=quote)}" if given else head
