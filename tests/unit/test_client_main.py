"""The words themselves."""

import argparse
import subprocess
import sys

import pytest

from edge.client import COMMANDS, main


def choices() -> set[str]:
    parser = main.make_parser("sagemaker-edge-agent")
    actions = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return set(actions[0].choices)


def test_the_program_knows_every_word() -> None:
    assert choices() == COMMANDS


@pytest.mark.parametrize("word", sorted(COMMANDS))
def test_every_command_has_help(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main([word, "--help"])
    assert ended.value.code == 0
    assert "usage: " in capsys.readouterr().out


def test_help_loads_neither_grpc_nor_numpy() -> None:
    code = (
        "import sys\nfrom edge.client.main import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n"
        "    assert not {'grpc', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "line", ["", "no-such-command", "LoadModel only-a-path", "Predict m p i wide 8 1", "load a b c"]
)
def test_wrong_usage_ends_with_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(line.split())
    assert ended.value.code == 2
    assert "usage:" not in capsys.readouterr().err


def test_wrong_usage_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["load", "only-a-path"])
    said = "the following arguments are required: name; try sagemaker-edge-agent load --help\n"
    assert capsys.readouterr().err == f"sagemaker-edge-agent load: {said}"


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ("224 112 3", (224, 112, 3, None)),
        ("NHWC 1 112 224 3", (224, 112, 3, "NHWC")),
        ("nchw 1 3 112 224", (224, 112, 3, "NCHW")),
    ],
)
def test_the_size_of_a_picture_in_the_words_of_2020_and_2022(words: str, size: tuple[int, int, int, str]) -> None:
    for command in main.ORIGINAL_PREDICTS:
        options = main.make_parser("x").parse_args([command, "m", "a.bmp", "in", *words.split(), "-a", "/s"])
        assert (options.size.width, options.size.height, options.size.channels, options.size.layout) == size


@pytest.mark.parametrize("words", ["8 8", "8 8 1 1", "NHWC", "NHWC 8 8 1", "NHWC 2 8 8 1", "CHW 1 8 8 1", "8 x 1"])
def test_a_size_that_is_none_gets_the_forms(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["Predict", "m", "a.bmp", "in", *words.split()])
    assert ended.value.code == 2
    assert "expected w h c, or NHWC 1 h w c, or NCHW 1 c h w" in capsys.readouterr().err
