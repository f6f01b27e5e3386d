"""The words of `fleet`: those for a device, and those for whoever keeps a repository."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.client import SUMMARIES
from edge.client.numbers import count, percent

PASSPHRASE = "SAGEMAKER_EDGE_FLEET_PASSPHRASE"  # noqa: S105 - the name of a variable
PIN = "SAGEMAKER_EDGE_FLEET_PIN"
_WORDS = "{check,apply,init,import-key,add-fleet,publish,deploy,promote,take-back,status,timestamp,renew,rotate,prune,doctor}"
_EPILOG = f"""\
REPO is a folder, which any HTTPS server can serve as it is and which can be carried on a USB stick, or s3://BUCKET/PREFIX. For a
bucket, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN hold credentials that may read, list and write there. KEYS is
a folder of key files, NAME.pem and NAME.pub; each command uses the keys of the roles that it signs for. The passphrase of encrypted
keys is read from {PASSPHRASE}, or from the file that --passphrase-file names. import-key makes a key usable
that is in a PKCS#11 token (its PIN is in {PIN}) or in a cloud's key service.

examples:
  %(prog)s init repo --keys keys
  %(prog)s add-fleet repo plant-north --keys keys
  %(prog)s publish repo digits-1.1.tar.gz --keys keys
  %(prog)s deploy repo plant-north digits=digits/1.1 --percent 10 --keys keys
  %(prog)s promote repo plant-north --percent 100 --keys keys
  %(prog)s take-back repo plant-north --keys keys
  %(prog)s timestamp repo --keys keys
  %(prog)s status s3://models/repo --reports s3://captures --html fleet.html
"""


def add(commands: Any, parser_class: Any, common: Any, later: Callable[[str, str], Any], patience: float) -> None:
    """Add `fleet` and its words; `later` gives the function of a command, imported when it runs."""
    parser = commands.add_parser(
        "fleet",
        description=f"{SUMMARIES['fleet'].capitalize()}.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    words = parser.add_subparsers(dest="fleet_word", metavar=_WORDS, required=True, parser_class=parser_class)

    def device(word: str, text: str) -> Any:
        one = words.add_parser(word, help=text, description=f"{text[:1].upper()}{text[1:]}.", parents=[common])
        one.set_defaults(run=later("edge.client.fleet", word), talks=True, patience=patience)
        return one

    def operator(word: str, text: str, *, signs: bool = True) -> Any:
        one = words.add_parser(word, help=text, description=f"{text[:1].upper()}{text[1:]}.", parents=[common])
        one.set_defaults(run=later("edge.client.fleet_operator", word.replace("-", "_")), talks=False)
        one.add_argument("repo", metavar="REPO", help="the repository: a folder, or s3://BUCKET/PREFIX")
        one.add_argument("--region", metavar="REGION", help="the bucket's region (default: AWS_REGION)")
        one.add_argument(
            "--endpoint", metavar="URL", help="endpoint of a store other than S3 (default: AWS_ENDPOINT_URL_S3)"
        )
        if signs:
            one.add_argument("--keys", type=Path, required=True, metavar="KEYS", help="the folder of keys")
            one.add_argument(
                "--passphrase-file", type=Path, metavar="FILE", help="a file whose first line is the passphrase"
            )
            # init refuses it, with the reason.
            says = argparse.SUPPRESS if word == "init" else "only show what would be written"
            one.add_argument("--dry-run", action="store_true", help=says)
        return one

    def makes_keys(one: Any) -> None:
        one.add_argument("--no-passphrase", action="store_true", help="write new keys unencrypted")

    device("check", "have the agent check its fleet's repository now")
    one = device("apply", "have the agent take models from a repository in a folder, such as a USB stick")
    one.add_argument("--from", dest="source", required=True, metavar="DIR", help="a repository's folder")
    makes_keys(operator("init", "make a repository and its keys; keys that exist already are used"))
    _add_import(words, common, later)
    one = operator("add-fleet", "add a fleet, and make its operator's key")
    makes_keys(one)
    one.add_argument("name", metavar="FLEET", help="sagemaker_edge_core_device_fleet_name of its devices")
    one.add_argument("--public", type=Path, metavar="FILE", help="the operator's public key (PEM), made elsewhere")
    one = operator("publish", "publish packages, to be deployed by name and version")
    one.add_argument("packages", nargs="+", type=Path, metavar="PACKAGE", help="a signed package, a .tar.gz")
    _add_deploy(operator("deploy", "set the packages that a fleet runs"))
    _add_rollouts(operator)
    _add_upkeep(operator, makes_keys)


def _add_import(words: Any, common: Any, later: Callable[[str, str], Any]) -> None:
    text = "make a key in a PKCS#11 token or a key service usable here"
    one = words.add_parser("import-key", help=text, description=f"{text[:1].upper()}{text[1:]}.", parents=[common])
    one.set_defaults(run=later("edge.client.fleet_operator", "import_key"), talks=False)
    one.add_argument("name", metavar="NAME", help="its name here: root-1, targets-1, packages, online or fleet-FLEET")
    one.add_argument("uri", metavar="URI", help="pkcs11:token=LABEL;id=%%02, hsm:, awskms:, gcpkms: or azurekms:")
    one.add_argument("--keys", type=Path, required=True, metavar="KEYS", help="the folder of keys")


def _add_rollouts(operator: Callable[..., Any]) -> None:
    one = operator("promote", "roll a deployment out to more devices")
    one.add_argument("fleet", metavar="FLEET")
    one.add_argument("--percent", type=percent, default=100.0, metavar="P", help="percentage of the devices (100)")
    one.add_argument(
        "--if-failed-below",
        type=percent,
        metavar="P",
        help="only if it failed on fewer than P percent of the devices that reported it (--reports)",
    )
    _add_reports(one)
    _add_name(one)
    one = operator("take-back", "go back to the previous version")
    one.add_argument("fleet", metavar="FLEET")
    one.add_argument(
        "alias", nargs="*", metavar="ALIAS", help="the aliases to take back (default: all with a previous version)"
    )
    _add_name(one)
    one = operator("status", "show fleets, progress, failures, silent devices, and when signatures expire", signs=False)
    _add_reports(one)
    one.add_argument("--html", type=Path, metavar="FILE", help="also write a self-contained HTML page (--reports)")
    one.add_argument(
        "--silent-after",
        type=count,
        default=2,
        metavar="DAYS",
        help="a device counts as silent after so many days without a heartbeat (2)",
    )


def _add_upkeep(operator: Callable[..., Any], makes_keys: Callable[[Any], None]) -> None:
    one = operator("timestamp", "sign the timestamp, and the snapshot if anything changed; run it daily")
    one.add_argument("--trust-clock", action="store_true", help="sign although this machine's clock looks wrong")
    one = operator("renew", "extend the validity of a role's signature")
    one.add_argument("role", metavar="ROLE", help="root, targets, packages or a fleet")
    one = operator("rotate", "replace a key of a role")
    makes_keys(one)
    one.add_argument("role", metavar="ROLE", help="root, targets, snapshot, timestamp, packages or a fleet")
    one.add_argument(
        "--old", action="append", metavar="NAME", help="the key to remove, by name or id (default: the role's first)"
    )
    one.add_argument(
        "--new", action="append", default=[], metavar="NAME", help="the key in KEYS to add (default: a new one is made)"
    )
    one = operator("prune", "remove files that are no longer referenced", signs=False)
    one.add_argument("--older-than", type=count, default=7, metavar="DAYS", help="only files older than this (7)")
    one.add_argument("--dry-run", action="store_true", help="only show what would be removed")
    operator("doctor", "check a repository as a device would", signs=False)


def _add_deploy(one: Any) -> None:
    one.add_argument("fleet", metavar="FLEET")
    one.add_argument("models", nargs="*", metavar="ALIAS=NAME/VERSION", help="a published package for each alias")
    one.add_argument(
        "--percent", type=percent, default=100.0, metavar="P", help="only on this percentage of the devices (100)"
    )
    one.add_argument("--device", action="append", default=[], metavar="GLOB", help="only on devices with such names")
    one.add_argument(
        "--arch",
        action="append",
        default=[],
        metavar="ARCH",
        help="only on machines with this architecture, as uname -m prints it",
    )
    one.add_argument("--min-agent", default="", metavar="VERSION", help="only on agents of this version or later")
    one.add_argument("--without", action="append", default=[], metavar="ALIAS", help="take an alias out of the fleet")
    one.add_argument(
        "--on-failure",
        choices=("rollback", "keep"),
        default="rollback",
        help="if one alias fails: all go back (rollback), or the others stay (keep)",
    )
    one.add_argument("--file", type=Path, metavar="DOCUMENT", help="use this JSON document as a whole instead")
    _add_name(one)


def _add_reports(one: Any) -> None:
    one.add_argument(
        "--reports",
        metavar="WHERE",
        help="the devices' reports: s3://BUCKET, or a folder with its reports/ and heartbeats/",
    )


def _add_name(one: Any) -> None:
    one.add_argument(
        "--name", metavar="DEPLOYMENT", help="name of the deployment in reports (default: the date and a number)"
    )
