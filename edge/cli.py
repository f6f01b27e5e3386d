"""The program's words: the daemon's flags, and the doors to the client and the packaging tool (X-1 to X-6)."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge import stdio
from edge.client import command_among, listing
from edge.errors import ConfigError, EdgeError
from edge.selfexec import called_as

if TYPE_CHECKING:
    import argparse

PROGRAM = "sagemaker-edge-agent"
CLIENT_NAMES = ("sagemaker_edge_agent_client_example",)
PROBE_FLAG = "--probe-model"  # edge.engine.child.FLAG, which it takes long to import
SELFTEST_FLAG = "--self-test"  # edge.serving.selftest.FLAG, likewise
BARE_FLAG = "--bare-model"  # edge.engine.bare.FLAG, likewise
DEFAULT_MAX_MESSAGE_BYTES = 64 << 20
LEAST_MAX_MESSAGE_BYTES = 4096
MOST_MAX_MESSAGE_BYTES = (1 << 31) - 1  # gRPC keeps the limit in an int

_EPILOG = """\
commands (each has its own --help):
{commands}

example:
  sagemaker-edge-agent -a /run/sagemaker-edge-agent/agent.sock -c /etc/sagemaker-edge-agent/config.json -f
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    stdio.fill()
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] == PROBE_FLAG:
        from edge.engine import trial

        os._exit(
            trial.main(words[1])
        )  # all is said: what an engine does at the exit of a process takes time, and may fail
    if words and words[0] == SELFTEST_FLAG:
        from edge.serving import golden

        return golden.main(words[1])
    if words and words[0] == BARE_FLAG:
        from edge.engine import bare

        return bare.main(words[1])
    return stdio.run(lambda: _command(words), PROGRAM)


def _command(words: list[str]) -> int:
    if called_as() in CLIENT_NAMES or command_among(words):
        from edge.client.main import main as client

        return client(words)
    return _daemon(words)


def make_parser() -> "argparse.ArgumentParser":
    import argparse  # here and below: a trial, which is begun for each load, needs none of it

    from edge.usage import Parser

    parser = Parser(
        prog=PROGRAM,
        description="Serves signed models to local applications over gRPC on a Unix socket, and captures what they saw.",
        epilog=_EPILOG.format(commands=listing()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-a", dest="socket", metavar="SOCKET", help="the Unix socket to create: a path, unix:PATH or unix-abstract:NAME"
    )
    parser.add_argument("-c", dest="config", metavar="CONFIG", help="path of the JSON configuration file")
    parser.add_argument("-f", dest="force", action="store_true", help="remove a stale socket first")
    parser.add_argument("-d", dest="ignored", action="store_true", help="accepted for compatibility; does nothing")
    parser.add_argument(
        "-m",
        "--max-message-bytes",
        type=_message_bytes,
        default=DEFAULT_MAX_MESSAGE_BYTES,
        metavar="N",
        help=f"largest gRPC message, both directions, in bytes (default {DEFAULT_MAX_MESSAGE_BYTES})",
    )
    parser.add_argument(
        "--check-config",
        action="store_true",
        help="check the configuration (without -c the installed one), show what is in effect, exit",
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    return parser


def _message_bytes(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not LEAST_MAX_MESSAGE_BYTES <= number <= MOST_MAX_MESSAGE_BYTES:
        import argparse

        raise argparse.ArgumentTypeError(
            f"{text!r} is not allowed; expected a number of bytes from {LEAST_MAX_MESSAGE_BYTES} to {MOST_MAX_MESSAGE_BYTES}"
        )
    return number


def _daemon(words: list[str]) -> int:
    parser = make_parser()
    options = parser.parse_args(words)
    if options.version:
        from edge.version import version

        print(version()[0])
        return 0
    if not options.check_config and not (options.socket and options.config):
        parser.error("-a SOCKET and -c CONFIG are both needed")
    if options.ignored:
        print(f"{PROGRAM}: -d means nothing to this agent and is ignored", file=sys.stderr)
    try:
        return _check(options.config) if options.check_config else _run(options)
    except ConfigError as error:
        for line in str(error).splitlines():
            print(f"{PROGRAM}: {line}", file=sys.stderr)
        for warning in error.warnings:
            print(f"{PROGRAM}: warning: {warning}", file=sys.stderr)
    except EdgeError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
    return 1


def _check(path: str | None) -> int:
    from edge.capture.settings import unusable_folders
    from edge.config import INSTALLED_CONFIG, describe, load_config

    loaded = load_config(path or INSTALLED_CONFIG)
    print(describe(loaded))
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    unusable = list(unusable_folders(loaded.config))
    for key, why in unusable:
        print(f"{PROGRAM}: {key}: {why}; name another folder, or ask as the agent's user", file=sys.stderr)
    return 1 if unusable else 0


def _run(options: "argparse.Namespace") -> int:
    from edge import log
    from edge.config import load_config
    from edge.host import signals

    loaded = load_config(options.config)
    signals.block()
    log.setup(loaded.config.log_verbose, loaded.config.edge_log_stream, apart=True)
    from edge.app import App

    App(loaded, socket=options.socket, replace_socket=options.force, max_message_bytes=options.max_message_bytes).run()
