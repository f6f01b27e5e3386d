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
REPO is a folder, which any HTTPS server offers as it is and a stick carries, or s3://BUCKET/PREFIX, with keys of a role that may
read, list and write there in AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN. KEYS is a folder of key files,
NAME.pem and NAME.pub; each command uses those of the roles that it signs. The passphrase of encrypted ones is in
{PASSPHRASE}, or in the file that --passphrase-file names. import-key takes a key that is in a PKCS#11 token
(its PIN in {PIN}) or in a cloud's key service.

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
        one.add_argument("--region", metavar="REGION", help="of the bucket; else AWS_REGION")
        one.add_argument("--endpoint", metavar="URL", help="of a store other than S3; else AWS_ENDPOINT_URL_S3")
        if signs:
            one.add_argument("--keys", type=Path, required=True, metavar="KEYS", help="the folder of keys")
            one.add_argument("--passphrase-file", type=Path, metavar="FILE", help="its first line is the passphrase")
            one.add_argument("--dry-run", action="store_true", help="write nothing, and say what would be written")
        return one

    def makes_keys(one: Any) -> None:
        one.add_argument("--no-passphrase", action="store_true", help="write new keys unencrypted")

    device("check", "have the agent look for news of its fleet now")
    one = device("apply", "have the agent take over what a folder offers, such as a stick")
    one.add_argument("--from", dest="source", required=True, metavar="DIR", help="a repository's folder")
    makes_keys(operator("init", "make a repository and its keys, but for those that are there by their names"))
    _add_import(words, common, later)
    one = operator("add-fleet", "add a fleet, and make its operator's key")
    makes_keys(one)
    one.add_argument("name", metavar="FLEET", help="sagemaker_edge_core_device_fleet_name of its devices")
    one.add_argument("--public", type=Path, metavar="FILE", help="the operator's public key (PEM), made elsewhere")
    one = operator("publish", "publish packages, to be deployed by name and version")
    one.add_argument("packages", nargs="+", type=Path, metavar="PACKAGE", help="a signed package, a .tar.gz")
    _add_deploy(operator("deploy", "say which packages a fleet is to run"))
    _add_rollouts(operator)
    _add_upkeep(operator, makes_keys)


def _add_import(words: Any, common: Any, later: Callable[[str, str], Any]) -> None:
    text = "take up a key that is in a PKCS#11 token or a key service"
    one = words.add_parser("import-key", help=text, description=f"{text.capitalize()}.", parents=[common])
    one.set_defaults(run=later("edge.client.fleet_operator", "import_key"), talks=False)
    one.add_argument(
        "name", metavar="NAME", help="what it is called here: root-1, targets-1, packages, online, fleet-FLEET"
    )
    one.add_argument("uri", metavar="URI", help="pkcs11:token=LABEL;id=%%02, hsm:, awskms:, gcpkms: or azurekms:")
    one.add_argument("--keys", type=Path, required=True, metavar="KEYS", help="the folder of keys")


def _add_rollouts(operator: Callable[..., Any]) -> None:
    one = operator("promote", "roll out further what is rolled out in part")
    one.add_argument("fleet", metavar="FLEET")
    one.add_argument("--percent", type=percent, default=100.0, metavar="P", help="of the devices (100)")
    one.add_argument(
        "--if-failed-below",
        type=percent,
        metavar="P",
        help="only if on less of those that reported it has failed (--reports)",
    )
    _add_reports(one)
    _add_name(one)
    one = operator("take-back", "have the version before serve again")
    one.add_argument("fleet", metavar="FLEET")
    one.add_argument("alias", nargs="*", metavar="ALIAS", help="which; else all that have one before")
    _add_name(one)
    one = operator("status", "show fleets, progress, failures, silent devices, and what ends when", signs=False)
    _add_reports(one)
    one.add_argument("--html", type=Path, metavar="FILE", help="also write one page that stands by itself (--reports)")
    one.add_argument("--silent-after", type=count, default=2, metavar="DAYS", help="without a heartbeat (2)")


def _add_upkeep(operator: Callable[..., Any], makes_keys: Callable[[Any], None]) -> None:
    one = operator("timestamp", "sign the timestamp, and the snapshot where something is new: daily")
    one.add_argument("--trust-clock", action="store_true", help="although this machine's clock looks wrong")
    one = operator("renew", "sign a role again for another term")
    one.add_argument("role", metavar="ROLE", help="root, targets, packages or a fleet")
    one = operator("rotate", "give a role a new key in place of an old one")
    makes_keys(one)
    one.add_argument("role", metavar="ROLE", help="root, targets, snapshot, timestamp, packages or a fleet")
    one.add_argument(
        "--old", action="append", metavar="NAME", help="a key that goes, by name or id; else the role's first"
    )
    one.add_argument(
        "--new", action="append", default=[], metavar="NAME", help="a key of KEYS that comes; else one is made"
    )
    one = operator("prune", "remove files that nothing names any more", signs=False)
    one.add_argument("--older-than", type=count, default=7, metavar="DAYS", help="and that are older (7)")
    one.add_argument("--dry-run", action="store_true", help="remove nothing, and say what would go")
    operator("doctor", "check a repository as a device would", signs=False)


def _add_deploy(one: Any) -> None:
    one.add_argument("fleet", metavar="FLEET")
    one.add_argument("models", nargs="*", metavar="ALIAS=NAME/VERSION", help="a published package for each alias")
    one.add_argument("--percent", type=percent, default=100.0, metavar="P", help="of the devices only")
    one.add_argument("--device", action="append", default=[], metavar="GLOB", help="devices of such names only")
    one.add_argument("--arch", action="append", default=[], metavar="ARCH", help="machines as uname -m says only")
    one.add_argument("--min-agent", default="", metavar="VERSION", help="agents from that version on only")
    one.add_argument("--without", action="append", default=[], metavar="ALIAS", help="take an alias out of the fleet")
    one.add_argument(
        "--on-failure",
        choices=("rollback", "keep"),
        default="rollback",
        help="where one alias fails: all go back (rollback), or the others stay",
    )
    one.add_argument("--file", type=Path, metavar="DOCUMENT", help="the whole document instead, JSON")
    _add_name(one)


def _add_reports(one: Any) -> None:
    one.add_argument(
        "--reports",
        metavar="WHERE",
        help="what devices told: s3://BUCKET, or a folder that has its reports/ and heartbeats/",
    )


def _add_name(one: Any) -> None:
    one.add_argument("--name", metavar="DEPLOYMENT", help="what reports call it; else the day and a number")
