"""The words of `captures`, apart from what it does: --help needs no more than this."""

import argparse
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from edge.client.numbers import count

_AGO = re.compile(r"([0-9]{1,9})(s|min|h|d)")
_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}

_EPILOG = """\
WHERE is the agent's capture folder, its spool or a copy of a bucket, or a bucket itself: s3://BUCKET/PREFIX. For a bucket the
credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN) or from an agent's
configuration (-c). They need s3:ListBucket and s3:GetObject.

A record that cannot be read is reported on stderr and skipped; the exit code is then 1.

examples:
  captures ls /var/lib/sagemaker-edge-agent/captures --since 2h --class 7
  captures show /var/lib/sagemaker-edge-agent/captures
  captures stats captures --model digits --json
  captures export captures digits.npz --model digits --class 7
  captures report captures --html report.html --since 7d
  captures ls s3://acme-captures/captures/plant-north/digits/ --region eu-west-1
"""


def moment(text: str) -> datetime:
    """A time: YYYY-MM-DD, with THH:MM:SS or not, in UTC where no zone is said; or so long ago, 30min, 2h, 7d."""
    try:
        if ago := _AGO.fullmatch(text):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not allowed; expected a time such as 2026-01-31T12:00:00 (UTC), or how long ago: 90s, 30min, 2h, 7d"
        ) from None


def add_parser(parser: Any, parser_class: Any, later: Callable[[str, str], Any]) -> None:
    """The words below `captures`; none talks to an agent."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    words = parser.add_subparsers(
        dest="captures_word", metavar="{ls,show,stats,export,report}", required=True, parser_class=parser_class
    )

    def add(word: str, text: str) -> Any:
        one = words.add_parser(word, help=text, description=f"{text[:1].upper()}{text[1:]}.", parents=[common])
        one.add_argument("where", metavar="WHERE", help="a folder of captures, or s3://BUCKET/PREFIX")
        _add_filters(one)
        module = {"report": "report", "export": "exporting"}.get(word, "commands")
        one.set_defaults(run=later(f"edge.client.captures.{module}", word))
        return one

    one = add("ls", "list captures, a line each")
    one.add_argument("--limit", type=count, metavar="N", help="list at most N captures")
    one = add("show", "show a capture: its picture, what the model said, why it was kept")
    one.add_argument(
        "capture_id", nargs="?", metavar="ID", help="its id, or the beginning of it (default: the newest capture)"
    )
    one.add_argument("--top", type=count, default=5, metavar="N", help="how many classes to show (5)")
    add("stats", "count captures and sum up summaries: classes, confidence, latency, reasons")
    one = add("export", "write captures as .npz, .csv or .parquet, or their pictures as a folder by class")
    one.add_argument("out", metavar="OUT", help="FILE.npz, FILE.csv, FILE.parquet, or a new folder for pictures")
    one.add_argument(
        "--format", choices=("npz", "csv", "parquet", "images"), help="the format (default: by the ending of OUT)"
    )
    one.add_argument("--force", action="store_true", help="replace an existing file; a folder is never replaced")
    one = add("report", "write one page with pictures, classes over time, confidence and latency")
    one.add_argument("--html", required=True, metavar="FILE", help="the page to write")
    one.add_argument("--force", action="store_true", help="replace FILE if it exists")
    one.add_argument(
        "--pictures",
        type=count,
        default=60,
        metavar="N",
        help="how many of the newest captures of each model to show (60)",
    )


def _add_filters(one: Any) -> None:
    filters = one.add_argument_group("filters; all but --since and --until may be given several times")
    filters.add_argument(
        "--model", action="append", metavar="NAME", help="captures of this model, by its package's name"
    )
    filters.add_argument("--version", action="append", metavar="VERSION", help="captures of this version")
    filters.add_argument(
        "--since",
        type=moment,
        metavar="TIME",
        help="from this time on: 2026-01-31T12:00:00 (UTC), or how long ago: 90s, 30min, 2h, 7d",
    )
    filters.add_argument("--until", type=moment, metavar="TIME", help="before this time")
    filters.add_argument(
        "--class",
        dest="classes",
        action="append",
        metavar="CLASS",
        help="captures with this top class: a number, or a label",
    )
    filters.add_argument(
        "--reason", action="append", metavar="REASON", help="captures kept for this reason (captureReason)"
    )
    one.add_argument("--labels", metavar="FILE", help="names of the classes, one a line")
    bucket = one.add_argument_group("for a bucket")
    bucket.add_argument(
        "-c", "--config", metavar="CONFIG", help="an agent's configuration, for the region, endpoint and credentials"
    )
    bucket.add_argument("--region", metavar="REGION", help="the bucket's region (default: AWS_REGION, else us-east-1)")
    bucket.add_argument(
        "--endpoint", metavar="URL", help="endpoint of a store other than S3 (default: AWS_ENDPOINT_URL)"
    )
