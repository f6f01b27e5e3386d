"""The packaging tool: make, sign and verify model packages, and a throw-away CA for trying things out."""

import argparse
import datetime
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.client.outcome import Exit
from edge.errors import EdgeError

_PACKAGE_EPILOG = """\
The package holds the model, a manifest and a signature in the OpenSSF Model Signing format, which the public tool
model_signing verifies too. Boards load it when the signer's root certificate is in their trust directory.

example:
  sagemaker-edge-agent package --model digits.tflite --name digits --version 1.0 \\
      --key signing.key --cert signing.pem --out digits-1.0.tar.gz
"""


def add_parsers(commands: Any) -> None:
    """Add the commands `package`, `verify` and `demo-ca`; each is run by its `run` default and returns an exit code."""
    _add_package(commands)
    one = _add(commands, "verify", "check a model package as an agent would, and say who signed it", _verify)
    one.add_argument("package", help="a folder or a .tar.gz")
    one.add_argument("--trust", type=Path, required=True, metavar="DIR", help="directory of trusted roots (*.pem)")
    one = _add(
        commands,
        "demo-ca",
        "make a throw-away CA and a signing certificate, for trying things out; never for boards in the field",
        _demo_ca,
    )
    one.add_argument("folder", type=Path, help="a new folder: roots/ (trust directory), signing.key, signing.pem")


def _add(commands: Any, name: str, text: str, run: Callable[[argparse.Namespace], int], epilog: str = "") -> Any:
    parser = commands.add_parser(
        name,
        help=text,
        description=text[:1].upper() + text[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object instead of text"
    )
    parser.set_defaults(run=lambda options: _reported(run, options))
    return parser


def _add_package(commands: Any) -> None:
    one = _add(commands, "package", "make and sign a model package", _package, _PACKAGE_EPILOG)
    one.add_argument("--model", type=Path, required=True, metavar="FILE", help="the model, such as digits.tflite")
    one.add_argument("--name", required=True, help="the model's name, in capture paths and records")
    one.add_argument("--version", required=True, help="the model's version, such as 1.0")
    one.add_argument("--key", type=Path, required=True, metavar="FILE", help="private key of the signer (PEM)")
    one.add_argument("--cert", type=Path, required=True, metavar="FILE", help="certificate of the signer (PEM)")
    one.add_argument("--chain", type=Path, metavar="FILE", help="intermediate certificates up to the root (PEM)")
    one.add_argument("--out", type=Path, required=True, metavar="PATH", help="a new folder, or a new .tar.gz")
    one.add_argument("--arch", default="any", help="the machine it is for, as `uname -m` says it (default any)")
    one.add_argument("--threads", type=int, metavar="N", help="threads of an interpreter")
    one.add_argument("--instances", type=int, metavar="N", help="interpreters that run at the same time")
    one.add_argument("--delegate", metavar="PATH", help="absolute path of a delegate library on the board")
    one.add_argument(
        "--extra", type=Path, action="append", default=[], metavar="FILE", help="another file to put in and sign"
    )


def _reported(run: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run a command; what it is refused for becomes a sentence."""
    try:
        return run(options)
    except EdgeError as error:
        if getattr(options, "json", False):
            print(json.dumps({"ok": False, "error": str(error)}))
        else:
            print(
                f"sagemaker-edge-agent {options.command_name if 'command_name' in options else ''}: {error}".replace(
                    " :", ":"
                ),
                file=sys.stderr,
            )
        return Exit.REFUSED


def _say(options: argparse.Namespace, facts: dict[str, Any], text: str) -> int:
    print(json.dumps({"ok": True, **facts}) if getattr(options, "json", False) else text)
    return Exit.OK


def _package(options: argparse.Namespace) -> int:
    from edge.models.making import load_identity, make_package
    from edge.models.manifest import Manifest

    manifest = Manifest(
        options.name,
        options.version,
        options.model.name,
        os="linux",
        arch=options.arch,
        engine="tflite",
        delegate=options.delegate,
        threads=options.threads,
        instances=options.instances,
    )
    identity = load_identity(options.key, options.cert, options.chain)
    make_package(manifest, options.model, options.extra, identity, options.out)
    return _say(
        options,
        {"package": str(options.out), "model_name": options.name, "model_version": options.version},
        f"{options.out}: model {options.name} {options.version}, signed by {identity.certificate.subject.rfc4514_string()}",
    )


def _verify(options: argparse.Namespace) -> int:
    from edge.clock import SystemClock
    from edge.models.package import open_package
    from edge.version import version

    url = str(options.package)
    if "://" not in url:
        url = str(Path(url).absolute())
    with open_package(url, trust_dir=options.trust, clock=SystemClock(), build_date=version()[1]) as package:
        manifest = package.manifest
        facts = {
            "model_name": manifest.model_name,
            "model_version": manifest.model_version,
            "signer": package.signer,
            "certificate_expires": package.expires.isoformat(),
            "files": package.files,
        }
        text = (
            f"{options.package}: good\n  model    {manifest.model_name} {manifest.model_version}\n  signer   {package.signer}"
            f" (certificate until {package.expires:%Y-%m-%d})\n  files    {len(package.files)}, all as signed"
        )
        return _say(options, facts, text)


def _demo_ca(options: argparse.Namespace) -> int:
    from edge.models.making import make_demo_ca

    made = make_demo_ca(options.folder, datetime.datetime.now(datetime.UTC))
    return _say(
        options,
        {"roots": str(made.roots), "key": str(made.key), "certificate": str(made.certificate)},
        f"{options.folder}: a throw-away CA, for trying things out only\n"
        f"  trust directory   {made.roots}  (sagemaker_edge_core_root_certs_path)\n"
        f"  signing key       {made.key}\n  certificate       {made.certificate}",
    )
