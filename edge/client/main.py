"""The words of the command-line client, the original one's and ours."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from edge.client.outcome import CommandError, Exit
from edge.selfexec import called_as

EXAMPLE_NAME = "sagemaker_edge_agent_client_example"
PEOPLE_TIMEOUT_SECONDS = 120.0
HEALTH_TIMEOUT_SECONDS = 5.0

_EPILOG = """\
The commands of the original example client (ListModels, LoadModel, UnloadModel, DescribeModel, Predict, PredictSHM,
PredictAndCapture, PredictSHMAndCapture) take the same words as before.

examples:
  %(prog)s load /data/digits-1.0 digits
  %(prog)s predict digits seven.bmp
  %(prog)s Predict digits seven.bmp image 8 8 1
  %(prog)s status --json

The socket is -a, else the environment's SAGEMAKER_EDGE_SOCKET, else /run/sagemaker-edge-agent/agent.sock or
/tmp/sagemaker_edge_agent_example.sock.

exit codes: 0 done; 1 the agent or a check said no; 2 wrong words or a file that cannot be used; 3 no agent answers.
"""

Parsers = Any  # argparse's subparsers action, which has no public name


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; `argv` is what follows the program's name. Returns the exit code."""
    program = called_as()
    parser = _parser(EXAMPLE_NAME if program == EXAMPLE_NAME else "sagemaker-edge-agent")
    options = parser.parse_args(argv)
    try:
        _fill_in(options, example=program == EXAMPLE_NAME)
        return int(options.run(options))
    except CommandError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return int(error.exit_code)
    except BrokenPipeError:  # `| head` has seen enough; keep the interpreter from complaining at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.OK)
    except KeyboardInterrupt:
        return 130


def _fill_in(options: argparse.Namespace, *, example: bool) -> None:
    for name in ("socket", "json", "timeout"):
        if not hasattr(options, name):
            setattr(options, name, None)
    if options.socket is None and getattr(options, "talks", False):
        from edge.client.connection import default_socket

        options.socket = default_socket(example=example)
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
    common.add_argument("-a", "--socket", metavar="SOCKET", help="the agent's Unix socket")
    common.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    common.add_argument("--timeout", type=float, metavar="SECONDS", help="give up on a call after so long")
    return common


def _parser(program: str) -> argparse.ArgumentParser:
    common = _common()
    parser = argparse.ArgumentParser(
        prog=program,
        description="Talks to a running agent, makes and checks model packages, and looks for what is wrong.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_calls(commands, common)
    _add_predict(commands, common)
    _add_original_predicts(commands, common)
    _add_checks(commands, common)
    from edge.client.packaging import add_parsers

    add_parsers(commands)
    return parser


def _add(commands: Parsers, common: argparse.ArgumentParser, names: tuple[str, ...], text: str, **more: Any) -> Any:
    """A command that talks to the agent. The first of its names is listed; the others work too."""
    parser = commands.add_parser(
        names[0],
        aliases=names[1:],
        help=text,
        description=text[:1].upper() + text[1:] + ".",
        parents=[common],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **more,
    )
    parser.set_defaults(talks=True)
    return parser


def _add_calls(commands: Parsers, common: argparse.ArgumentParser) -> None:
    name_help = "the name that the model is loaded under"
    one = _add(commands, common, ("list", "ListModels"), "show the loaded models with their inputs and outputs")
    one.set_defaults(run=_later("edge.client.commands", "list_models"))

    one = _add(commands, common, ("load", "LoadModel"), "load a model package")
    one.add_argument("path", help="the package: a folder or a .tar.gz, on the agent's machine")
    one.add_argument("name", help="the name to load it under")
    one.set_defaults(run=_later("edge.client.commands", "load_model"))

    one = _add(commands, common, ("unload", "UnloadModel", "UnLoadModel"), "unload a model")
    one.add_argument("name", help=name_help)
    one.set_defaults(run=_later("edge.client.commands", "unload_model"))

    one = _add(commands, common, ("describe", "DescribeModel"), "show one loaded model")
    one.add_argument("name", help=name_help)
    one.set_defaults(run=_later("edge.client.commands", "describe_model"))

    one = _add(commands, common, ("capture-status", "GetCaptureDataStatus"), "show how a capture stands")
    one.add_argument("capture_id", help="the id that it was captured under")
    one.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="wait so long for it to finish")
    one.set_defaults(run=_later("edge.client.commands", "capture_status"))


def _add_predict(commands: Parsers, common: argparse.ArgumentParser) -> None:
    one = _add(
        commands,
        common,
        ("predict",),
        "run a loaded model on files",
        epilog="""\
INPUT is a file, or NAME=FILE for the input of that name; without names, files go to the inputs in the model's order.
  .npy   an array; only 1s in the shape may differ from the model's
  .json  nested lists of numbers, or {"input name": lists, ...} for all inputs; - reads JSON from standard input
  .bmp   a picture, resized to what the model takes; 0..1 for float models, -128..127 for int8, else 0..255

examples:
  predict digits seven.bmp
  predict digits --shm --capture image=seven.npy
  echo '[[1, 2, 3, 4]]' | sagemaker-edge-agent predict adder -
""",
    )
    one.add_argument("name", help="the name that the model is loaded under")
    one.add_argument("inputs", nargs="*", metavar="INPUT", help="files to run it on, see below")
    one.add_argument("--shm", action="store_true", help="hand the inputs over in shared memory")
    one.add_argument("--capture", action="store_true", help="capture inputs and outputs, and wait for it up to 10 s")
    one.add_argument("--labels", metavar="FILE", help="names of the classes, one a line")
    one.add_argument("--top", type=int, default=5, metavar="N", help="how many classes to show (5)")
    one.add_argument("-o", "--output", metavar="FILE", help="also write the outputs to a .npz or .npy")
    one.set_defaults(run=_later("edge.client.commands", "predict"), patience=PEOPLE_TIMEOUT_SECONDS)


def _add_original_predicts(commands: Parsers, common: argparse.ArgumentParser) -> None:
    for word, shm, capture in (
        ("Predict", False, False),
        ("PredictSHM", True, False),
        ("PredictAndCapture", False, True),
        ("PredictSHMAndCapture", True, True),
    ):
        ways = " by shared memory" * shm + ", and capture what went in and came out" * capture
        one = _add(commands, common, (word,), "run a loaded model on a picture" + ways)
        one.add_argument("name", metavar="model_name", help="the name that the model is loaded under")
        one.add_argument("picture", metavar="input_bmp_image", help="a BMP file")
        one.add_argument("input_name", help="the model's input that takes it")
        one.add_argument("width", metavar="w", type=int, help="width to resize it to, in pixels")
        one.add_argument("height", metavar="h", type=int, help="height, in pixels")
        one.add_argument("channels", metavar="c", type=int, help="1 for grey, 3 for red green blue")
        one.set_defaults(run=_later("edge.client.commands", "predict_picture"), shm=shm, capture=capture)


def _add_checks(commands: Parsers, common: argparse.ArgumentParser) -> None:
    one = _add(commands, common, ("status",), "show what the agent is doing: models, calls, memory, waiting captures")
    one.set_defaults(run=_later("edge.client.status", "status"), patience=HEALTH_TIMEOUT_SECONDS)

    one = _add(commands, common, ("health",), "ask whether the agent, or one model, is ready to serve")
    one.add_argument("name", nargs="?", help="a model; without it, the agent as a whole")
    one.set_defaults(run=_later("edge.client.commands", "health"), patience=HEALTH_TIMEOUT_SECONDS)

    one = _add(commands, common, ("doctor",), "look for what is wrong, and say how to put it right")
    one.add_argument(
        "-c", "--config", metavar="CONFIG", help="the agent's configuration (/etc/sagemaker-edge-agent/config.json)"
    )
    one.set_defaults(run=_later("edge.client.doctor", "doctor"), patience=HEALTH_TIMEOUT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
