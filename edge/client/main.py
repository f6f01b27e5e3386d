"""The words of the command-line client, the original one's and ours."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from edge.client import (
    COMMANDS,
    ORIGINAL,
    ORIGINAL_PREDICTS,
    SUMMARIES,
    command_among,
    fleet_words,
    listing,
    original,
    unknown,
)
from edge.client.numbers import count, seconds
from edge.client.outcome import CommandError, InputError
from edge.selfexec import called_as
from edge.usage import Parser

EXAMPLE_NAME = "sagemaker_edge_agent_client_example"
PEOPLE_TIMEOUT_SECONDS = 120.0
HEALTH_TIMEOUT_SECONDS = 5.0

_EPILOG = """\
commands (each has its own --help):
{commands}

The commands of the original example client (ListModels, LoadModel, UnloadModel, DescribeModel, Predict, PredictSHM,
PredictAndCapture, PredictSHMAndCapture) take the same words and print the same lines as before.

examples:
  {program} load /data/digits-1.0 digits
  {program} predict digits seven.bmp
  {program} Predict digits seven.bmp image 8 8 1
  {program} status --json

The socket is -a, else the environment's SAGEMAKER_EDGE_SOCKET, else /run/sagemaker-edge-agent/agent.sock or
/tmp/sagemaker_edge_agent_example.sock.

exit codes: 0 done; 1 the agent refused, or a check failed; 2 wrong usage, or a file that cannot be used; 3 no agent answers.
With --json a failure is an object too: {{"ok": false, "error": "..."}}.
"""

Parsers = Any  # argparse's subparsers action, which has no public name


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; `argv` is what follows the program's name. Returns the exit code."""
    program = called_as()
    parser = make_parser(EXAMPLE_NAME if program == EXAMPLE_NAME else "sagemaker-edge-agent")
    options = parser.parse_args(argv)
    try:
        _fill_in(options, example=program == EXAMPLE_NAME)
        return int(options.run(options))
    except CommandError as error:
        return _failed(parser.prog, options, error)
    except UnicodeEncodeError as error:  # bytes of a word that are no text cannot go into a message
        return _failed(parser.prog, options, InputError(f"{error.object[:40]!r} is not UTF-8 text"))


def _failed(program: str, options: argparse.Namespace, error: CommandError) -> int:
    if options.json:
        print(json.dumps({"ok": False, "error": str(error), **error.details}))
    else:
        if original.is_original(options):
            print(original.failed(options, error))
        print(f"{program}: {error}", file=sys.stderr)
    return int(error.exit_code)


def _fill_in(options: argparse.Namespace, *, example: bool) -> None:
    for name in ("socket", "json", "timeout"):
        if not hasattr(options, name):
            setattr(options, name, None)
    if getattr(options, "talks", False):
        from edge.client.connection import socket_of

        options.socket = socket_of(options.socket, example=example)
    if options.timeout is None:
        options.timeout = getattr(options, "patience", None)


def _later(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """The function of a command, imported when it runs: --help needs no gRPC and no numpy."""

    def run(options: argparse.Namespace) -> int:
        from importlib import import_module

        return int(getattr(import_module(module), function)(options))

    return run


def _common() -> argparse.ArgumentParser:
    """Options that stand before or after the command; SUPPRESS keeps the later default from undoing the earlier value."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument(
        "-a", "--socket", metavar="SOCKET", help="the agent's Unix socket: a path, unix:PATH or unix-abstract:NAME"
    )
    common.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    common.add_argument("--timeout", type=seconds, metavar="SECONDS", help="give up on a call after this long")
    return common


class _Parser(Parser):
    """A parser that takes options between the words of a command, as Python's own does from 3.12 on only in part."""

    _inside = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._inside or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._inside = True  # the intermixed one calls this method
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._inside = False

    def error(self, message: str) -> NoReturn:
        word = command_among(sys.argv[1:])
        is_unknown = self._subparsers is not None and "invalid choice" in message and word not in COMMANDS
        if "--json" in sys.argv:
            print(json.dumps({"ok": False, "error": unknown(word).splitlines()[0] if is_unknown else message}))
            self.exit(2)
        if is_unknown:
            self.exit(2, f"{self.prog}: {unknown(word)}\n")
        super().error(message)


def make_parser(program: str) -> argparse.ArgumentParser:
    common = _common()
    parser = _Parser(
        prog=program,
        description="Talks to a running agent, makes and checks model packages, and diagnoses problems.",
        epilog=_EPILOG.format(commands=listing(), program=program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    commands = parser.add_subparsers(dest="word", metavar="COMMAND", required=True, parser_class=_Parser)
    _add_calls(commands, common)
    _add_predict(commands, common)
    _add_original_predicts(commands, common)
    _add_checks(commands, common)
    _add_models(commands, common)
    _add_captures(commands)
    fleet_words.add(commands, _Parser, common, _later, PEOPLE_TIMEOUT_SECONDS)
    _add_greengrass(commands, common)
    from edge.client.packaging import add_parsers

    add_parsers(commands)
    return parser


def _add(commands: Parsers, common: argparse.ArgumentParser, word: str, text: str = "", **more: Any) -> Any:
    """A command that talks to the agent, under its own word and the original client's."""
    text = text or SUMMARIES[word]
    parser = commands.add_parser(
        word,
        aliases=ORIGINAL.get(word, ()),
        description=text[:1].upper() + text[1:] + ".",
        parents=[common],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **more,
    )
    parser.set_defaults(talks=True)
    return parser


def _add_calls(commands: Parsers, common: argparse.ArgumentParser) -> None:
    name_help = "the name that the model is loaded under"
    one = _add(commands, common, "list")
    one.set_defaults(run=_later("edge.client.commands", "list_models"))

    one = _add(commands, common, "load")
    one.add_argument("path", help="the package: a folder or a .tar.gz, on the agent's machine")
    one.add_argument("name", help="the name to load it under")
    one.set_defaults(run=_later("edge.client.commands", "load_model"))

    one = _add(commands, common, "unload")
    one.add_argument("name", help=name_help)
    one.set_defaults(run=_later("edge.client.commands", "unload_model"))

    one = _add(commands, common, "describe")
    one.add_argument("name", help=name_help)
    one.set_defaults(run=_later("edge.client.commands", "describe_model"))

    one = _add(commands, common, "reset")
    one.add_argument("name", help=name_help)
    one.set_defaults(run=_later("edge.client.commands", "reset_state"))

    one = _add(commands, common, "capture-status")
    one.add_argument("capture_id", help="the capture's id")
    one.add_argument(
        "--wait", type=seconds, default=0.0, metavar="SECONDS", help="wait up to this long for it to finish"
    )
    one.set_defaults(run=_later("edge.client.commands", "capture_status"))


def _add_predict(commands: Parsers, common: argparse.ArgumentParser) -> None:
    one = _add(
        commands,
        common,
        "predict",
        epilog="""\
INPUT is a file, or NAME=FILE for the input of that name; without names, files go to the inputs in the model's order.
  .npy   an array; only 1s in the shape may differ from the model's
  .json  nested lists of numbers, or {"input name": lists, ...} for all inputs; - reads JSON from standard input
  .bmp   a picture, resized to what the model takes; 0..1 for float models, -128..127 for int8, else 0..255;
         .png, .jpg and others too where Python's Pillow is installed

examples:
  predict digits seven.bmp
  predict digits --shm --capture image=seven.npy
  echo '[[1, 2, 3, 4]]' | sagemaker-edge-agent predict adder -
""",
    )
    one.add_argument("name", help="the name that the model is loaded under")
    one.add_argument("inputs", nargs="*", metavar="INPUT", help="files to run it on, see below")
    one.add_argument("--shm", action="store_true", help="pass the inputs in shared memory")
    one.add_argument("--capture", action="store_true", help="capture inputs and outputs, and wait for it up to 10 s")
    one.add_argument("--labels", metavar="FILE", help="names of the classes, one a line")
    one.add_argument("--top", type=count, default=5, metavar="N", help="how many classes to show (5)")
    one.add_argument("-o", "--output", metavar="FILE", help="also write the outputs to a .npz or .npy")
    one.set_defaults(run=_later("edge.client.commands", "predict"), patience=PEOPLE_TIMEOUT_SECONDS)


def _add_original_predicts(commands: Parsers, common: argparse.ArgumentParser) -> None:
    for word in ORIGINAL_PREDICTS:
        shm, capture = "SHM" in word, "Capture" in word
        ways = " by shared memory" * shm + ", and capture what went in and came out" * capture
        one = _add(commands, common, word, "run a loaded model on a picture" + ways)
        one.add_argument("name", metavar="model_name", help="the name that the model is loaded under")
        one.add_argument("picture", metavar="input_bmp_image", help="a BMP file")
        one.add_argument("input_name", help="the model's input that takes it")
        one.add_argument(
            "size",
            metavar="w h c",
            nargs="+",
            action=original.SizeAction,
            help="pixels to resize it to and channels (1 grey, 3 red green blue), or NHWC 1 h w c, or NCHW 1 c h w",
        )
        one.set_defaults(run=_later("edge.client.commands", "predict_picture"), shm=shm, capture=capture)


def _add_models(commands: Parsers, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("models", description=f"{SUMMARIES['models'].capitalize()}.", parents=[common])
    words = parser.add_subparsers(
        dest="models_word", metavar="{list,set,apply,rollback,forget}", required=True, parser_class=_Parser
    )

    def add(word: str, text: str) -> Any:
        one = words.add_parser(word, help=text, description=f"{text[:1].upper()}{text[1:]}.", parents=[common])
        run = _later("edge.client.models", f"{word}_model{'s' if word in ('list', 'apply') else ''}")
        one.set_defaults(run=run, talks=True, patience=PEOPLE_TIMEOUT_SECONDS)
        return one

    add("list", "show every model: its version, why and since when it serves, and what was refused")
    one = add(
        "set",
        "declare the package that serves under an alias, now and after every start; of several, all switch or none",
    )
    one.add_argument(
        "pairs",
        nargs="+",
        metavar="alias package",
        help="the name that applications call the model by, and a folder or a .tar.gz on the agent's machine; more such pairs switch together",
    )
    one.add_argument(
        "--root", type=Path, metavar="DIR", help="write into the image whose file system is in DIR; needs no agent"
    )
    one.add_argument("--copy", action="store_true", help="give the agent a copy, if its user cannot read the package")
    one.add_argument(
        "--wait",
        type=seconds,
        metavar="SECONDS",
        help="wait this long for the agent to start, and for the model to serve",
    )
    one.add_argument(
        "--allow-changed-tensors", action="store_true", help="let the new model have other inputs and outputs"
    )
    one.add_argument(
        "--allow-gap", action="store_true", help="if there is no memory for both, unload the old model first"
    )
    add("apply", "read the declarations again and put them into effect").add_argument("alias", nargs="*")
    _add_alias(add("rollback", "go back to the previous version"))
    one = add("forget", "remove the declaration of an alias, and unload its model")
    _add_alias(one)


def _add_alias(parser: Any) -> None:
    parser.add_argument("alias", help="the name that applications call the model by")


def _add_captures(commands: Parsers) -> None:
    from edge.client.capture_words import add_parser

    parser = commands.add_parser("captures", description=f"{SUMMARIES['captures'].capitalize()}.")
    add_parser(parser, _Parser, _later)


def _add_greengrass(commands: Parsers, common: argparse.ArgumentParser) -> None:
    one = _add(commands, common, "greengrass")
    one.add_argument(
        "--work",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="the component's work folder, where config.json is written",
    )
    one.add_argument("--thing", metavar="NAME", help="the core device's AWS IoT thing (AWS_IOT_THING_NAME)")
    one.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="the component's configuration; empty: its default")
    one.set_defaults(run=_later("edge.client.greengrass", "greengrass"), talks=False)


def _add_checks(commands: Parsers, common: argparse.ArgumentParser) -> None:
    one = _add(commands, common, "status")
    one.add_argument(
        "--watch",
        type=seconds,
        nargs="?",
        const=2.0,
        default=0.0,
        metavar="SECONDS",
        help="on a terminal, show it again every so often (2), until Ctrl-C",
    )
    one.set_defaults(run=_later("edge.client.status", "status"), patience=HEALTH_TIMEOUT_SECONDS)

    one = _add(commands, common, "top")
    one.add_argument("--interval", type=seconds, default=2.0, metavar="SECONDS", help="time between updates (2)")
    one.set_defaults(run=_later("edge.client.top", "top"), patience=HEALTH_TIMEOUT_SECONDS)

    one = _add(commands, common, "health")
    one.add_argument("name", nargs="?", help="a model; without it, the agent as a whole")
    one.set_defaults(run=_later("edge.client.commands", "health"), patience=HEALTH_TIMEOUT_SECONDS)

    one = _add(commands, common, "doctor")
    one.add_argument(
        "-c", "--config", metavar="CONFIG", help="the agent's configuration (/etc/sagemaker-edge-agent/config.json)"
    )
    one.set_defaults(run=_later("edge.client.doctor", "doctor"), patience=HEALTH_TIMEOUT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
