"""The command-line client as people and scripts run it: the original words, ours, and the exit codes. [X-6]"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.system.harness import ROOT, AgentProcess, agent_command, client_command, from_source

PICTURE = ROOT / "demo" / "data" / "pictures" / "7_a.bmp"
EXAMPLE_NAME = "sagemaker_edge_agent_client_example"
Run = Callable[..., "subprocess.CompletedProcess[str]"]
PackageOf = Callable[[str], Path]


def run(
    words: list[str], *, code: int = 0, socket: str | None = None, text: str = ""
) -> "subprocess.CompletedProcess[str]":
    environment = {key: value for key, value in os.environ.items() if key != "SAGEMAKER_EDGE_SOCKET"}
    if socket:
        environment["SAGEMAKER_EDGE_SOCKET"] = socket
    done = subprocess.run(words, env=environment, input=text, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def ours(agent: AgentProcess) -> Run:
    """Runs one of our commands on the module's agent; `code` is the exit code expected."""

    def command(*words: str, code: int = 0, text: str = "") -> "subprocess.CompletedProcess[str]":
        return run([*client_command(), *words], code=code, socket=agent.socket, text=text)

    return command


@pytest.fixture
def original(tmp_path: Path) -> list[str]:
    """The program under the original client's name."""
    *before, program = agent_command()
    link = tmp_path / EXAMPLE_NAME
    link.symlink_to(Path(shutil.which(program) or program).resolve())
    return [*before, str(link)]


def test_the_original_words_give_the_recorded_lines(agent: AgentProcess, original: list[str], digits: Path) -> None:
    def say(*words: str) -> list[str]:
        return run([*original, "-a", agent.socket, *words]).stdout.splitlines()

    assert say("ListModels") == ["There are 0 models", "ListModels succeeded"]
    loaded = say("LoadModel", str(digits), "digits")
    assert (loaded[0], loaded[-1]) == (f"Model digits located at  {digits} loaded", "LoadModel succeeded")
    assert "  in   image  FLOAT32 [1, 8, 8, 1]" in loaded
    assert say("ListModels") == ["There are 1 models", "Model 0  digits", "ListModels succeeded"]
    described = say("DescribeModel", "digits")
    assert (described[0], described[-1]) == ("Model digits has been loaded", "DescribeModel succeeded")
    for word in ("Predict", "PredictSHM", "PredictAndCapture", "PredictSHMAndCapture"):
        for size in (("8", "8", "1"), ("NHWC", "1", "8", "8", "1")):
            shown = say(word, "digits", str(PICTURE), "image", *size)
            captured = ["Capture Data succeeded"] if "Capture" in word else []
            head = ["Done reading the image", "Predict succeeded", *captured, "Flattened RAW Output Tensor:1"]
            assert shown[: len(head)] == head
            scores = [float(value) for value in shown[len(head)].split(" ")[:-1]]
            assert scores.index(max(scores)) == 7 and len(scores) == 10
            assert ("by shared memory" in shown[len(head) + 1]) == ("SHM" in word)
            assert shown[-1].endswith(": SUCCESS") == ("Capture" in word)
    assert say("UnloadModel", "digits") == ["Model digits has been unloaded", "UnLoadModel succeeded"]


def test_the_original_words_fail_in_the_recorded_lines(
    agent: AgentProcess, original: list[str], digits: Path, tmp_path: Path
) -> None:
    def say(*words: str) -> list[str]:
        return run([*original, "-a", agent.socket, *words], code=1).stdout.splitlines()

    unknown = "Model ghost has not been loaded"
    assert say("UnloadModel", "ghost") == [unknown, "UnLoadModel failed"]
    assert say("DescribeModel", "ghost") == [unknown, "DescribeModel failed"]
    assert say("Predict", "ghost", str(PICTURE), "image", "8", "8", "1") == [unknown, "Predict failed"]
    assert say("LoadModel", str(tmp_path / "none"), "digits") == ["LoadModel failed"]
    run([*original, "-a", agent.socket, "LoadModel", str(digits), "digits"])
    assert say("LoadModel", str(digits), "digits") == ["Alias digits has been used", "LoadModel failed"]
    wide = say("Predict", "digits", str(PICTURE), "image", "9", "8", "1")
    assert wide == ["Done reading the image", "Predict failed"]
    run([*original, "-a", agent.socket, "UnloadModel", "digits"])


def test_the_socket_comes_from_the_environment_too(agent: AgentProcess, original: list[str]) -> None:
    assert run([*original, "list"], socket=agent.socket).stdout.strip() == "no models are loaded"


def test_options_stand_before_or_after_the_command(agent: AgentProcess, original: list[str]) -> None:
    for words in (["-a", agent.socket, "--json", "ListModels"], ["ListModels", "-a", agent.socket, "--json"]):
        assert json.loads(run([*original, *words]).stdout) == {"ok": True, "models": []}


def test_predict_takes_npy_json_and_bmp(ours: Run, digits: Path, tmp_path: Path) -> None:
    ours("load", str(digits), "digits")
    try:
        image = np.load(ROOT / "demo" / "data" / "held_out.npz")
        grey, digit = image["grey"][0].astype(np.float32) / 255, int(image["digit"][0])
        np.save(tmp_path / "one.npy", grey)
        (tmp_path / "one.json").write_text(json.dumps({"image": grey.reshape(1, 8, 8, 1).tolist()}))
        for words, text in (
            ([f"{tmp_path}/one.npy"], ""),
            ([f"image={tmp_path}/one.npy", "--shm"], ""),
            ([f"{tmp_path}/one.json"], ""),
            (["-"], json.dumps(grey.tolist())),
        ):
            found = json.loads(ours("predict", "digits", *words, "--json", text=text).stdout)
            (output,) = found["outputs"]
            assert (output["name"], output["data_type"], output["shape"]) == ("probabilities", "FLOAT32", [1, 10])
            assert int(np.argmax(output["data"])) == digit
        (tmp_path / "labels").write_text("zero one two three four five six seven eight nine".replace(" ", "\n"))
        out = tmp_path / "out.npz"
        shown = ours(
            "predict", "digits", str(PICTURE), "--labels", str(tmp_path / "labels"), "--top", "1", "-o", str(out)
        )
        assert shown.stdout.splitlines()[1].split()[0] == "seven"
        assert np.load(out)["probabilities"].shape == (1, 10)
        captured = json.loads(ours("predict", "digits", str(PICTURE), "--capture", "--json").stdout)["capture"]
        assert captured["status"] == "SUCCESS"
        assert ours("capture-status", captured["id"]).stdout.strip() == "SUCCESS"
    finally:
        ours("unload", "digits")


def test_status_health_and_doctor(agent: AgentProcess, ours: Run, digits: Path) -> None:
    ours("load", str(digits), "digits")
    try:
        ours("predict", "digits", str(PICTURE))
        shown = ours("status").stdout
        assert "READY" in shown
        assert "captures to Disk" in shown
        (model,) = json.loads(ours("status", "--json").stdout)["models"]
        assert (model["name"], model["package_name"], model["package_version"]) == ("digits", "digits", "1.0")
        assert model["predicted"] >= 1
        assert ours("health").stdout.strip() == "SERVING"
        assert ours("health", "digits").stdout.strip() == "SERVING"
        checked = ours("doctor", "-c", str(agent.config_path)).stdout
        assert "FAIL" not in checked
        assert f"socket: {agent.socket}" in checked
    finally:
        ours("unload", "digits")


def test_the_agent_says_no(ours: Run, tmp_path: Path) -> None:  # exit code 1
    assert "NOT_FOUND: " in ours("describe", "none", code=1).stderr
    assert "NOT_FOUND: " in ours("load", str(tmp_path / "none"), "none", code=1).stderr
    assert "INVALID_ARGUMENT: " in ours("load", str(tmp_path), "-not a name-".strip("-"), code=1).stderr
    assert "NOT_FOUND: " in ours("health", "none", code=1).stderr
    assert "NOT_FOUND: " in ours("capture-status", "none", code=1).stderr


def test_wrong_usage_and_files(ours: Run, digits: Path, tmp_path: Path) -> None:  # exit code 2
    ours("load", str(digits), "digits")
    try:
        ours("predict", code=2)
        ours("status", "--no-such-option", code=2)
        assert "No such file" in ours("predict", "digits", str(tmp_path / "none.bmp"), code=2).stderr
        (tmp_path / "bad.bmp").write_bytes(b"BM" + bytes(100))
        assert "bad.bmp" in ours("predict", "digits", str(tmp_path / "bad.bmp"), code=2).stderr
        assert "it takes image" in ours("Predict", "digits", str(PICTURE), "picture", "8", "8", "1", code=2).stderr
        assert "a side" in ours("Predict", "digits", str(PICTURE), "image", "0", "8", "1", code=2).stderr
    finally:
        ours("unload", "digits")


def test_a_relative_path_is_the_callers(ours: Run, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(digits.parent)
    ours("load", digits.name, "digits")
    ours("unload", "digits")


@pytest.mark.parametrize("command", [["list"], ["status"], ["health"], ["predict", "digits", str(PICTURE)]])
def test_nobody_answers(command: list[str], tmp_path: Path) -> None:  # exit code 3
    done = run([*client_command(), *command], code=3, socket=str(tmp_path / "none.sock"))
    assert "there is no such file" in done.stderr


def test_doctor_without_an_agent(tmp_path: Path) -> None:
    done = run([*client_command(), "doctor"], code=1, socket=str(tmp_path / "none.sock"))
    assert "FAIL  agent: no agent answers" in done.stdout


def test_help_teaches_and_needs_no_agent() -> None:
    shown = run([*client_command(), "predict", "--help"]).stdout
    assert ".npy" in shown
    assert "examples:" in shown


COMMAND_LINES = {
    "list": ["list"],
    "predict": ["predict", "digits", str(PICTURE)],
    "status": ["status", "--json"],
    "verify": ["verify", "PACKAGE", "--trust", "ROOTS"],
    "help": ["--help"],
    "help of a command": ["predict", "--help"],
    "version": ["--version"],
    "check-config": ["--check-config", "-c", "CONFIG"],
}


@pytest.fixture
def command_line(request: pytest.FixtureRequest, agent: AgentProcess, digits: Path, signer: Any) -> Iterator[list[str]]:
    """One of COMMAND_LINES, on an agent that has the digits model."""
    agent.client.load(digits, "digits")
    places = {"PACKAGE": str(digits), "ROOTS": str(signer.roots), "CONFIG": str(agent.config_path)}
    yield [*client_command(), *(places.get(word, word) for word in request.param)]
    agent.client.unload("digits")


def plain_environment(socket: str, **more: str) -> dict[str, str]:
    """As a user's shell has it: output is buffered."""
    return {**{k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}, "SAGEMAKER_EDGE_SOCKET": socket, **more}


@pytest.mark.parametrize("command_line", COMMAND_LINES.values(), ids=COMMAND_LINES, indirect=True)
def test_reader_that_has_seen_enough(agent: AgentProcess, command_line: list[str]) -> None:
    command = subprocess.Popen(
        command_line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=plain_environment(agent.socket)
    )
    assert command.stdout is not None
    assert command.stderr is not None
    with command:
        command.stdout.close()
        assert command.stderr.read() == ""
        assert command.wait(60) in (0, -signal.SIGPIPE)


@pytest.mark.parametrize("command_line", COMMAND_LINES.values(), ids=COMMAND_LINES, indirect=True)
def test_a_full_disk_is_one_line(agent: AgentProcess, command_line: list[str]) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device, not a path of ours
        done = subprocess.run(
            command_line, stdout=full, stderr=subprocess.PIPE, text=True, env=plain_environment(agent.socket), timeout=60,
            check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "sagemaker-edge-agent: the output cannot be written: No space left on device\n"


def test_a_locale_without_the_characters(agent: AgentProcess, digits: Path) -> None:
    agent.client.load(digits, "digits")
    done = subprocess.run(
        [*client_command(), "predict", "digits", str(PICTURE)],
        capture_output=True,
        env=plain_environment(
            agent.socket, PYTHONIOENCODING="latin-1", PYTHONUTF8="0", LC_ALL="C", PYTHONCOERCECLOCALE="0"
        ),
        timeout=60,
        check=False,
    )
    agent.client.unload("digits")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"probabilities  FLOAT32 [1, 10]" in done.stdout


def test_options_stand_between_the_words_of_a_command(agent: AgentProcess, ours: Run, digits: Path) -> None:
    agent.client.load(digits, "digits")
    try:
        shown = ours("predict", "digits", "--top", "1", str(PICTURE), "--shm").stdout
        assert len(shown.splitlines()) == 3
        assert shown.endswith("by shared memory\n")
        ours("predict", "--top", "1", "digits", str(PICTURE))
        ours("--json", "-a", agent.socket, "predict", "digits", str(PICTURE))
    finally:
        agent.client.unload("digits")


def test_failures_as_json(agent: AgentProcess, ours: Run, tmp_path: Path) -> None:
    """One object, whatever failed: the agent said no, a file cannot be used, nobody answers."""
    for words, code in (
        (["describe", "none"], 1),
        (["unload", "none"], 1),
        (["load", str(tmp_path / "none"), "none"], 1),
        (["predict", "none", str(PICTURE)], 1),
        (["list", "-a", str(tmp_path / "none.sock")], 3),
        (["verify", str(tmp_path / "none"), "--trust", str(tmp_path)], 2),
        (["doctor", "-a", str(tmp_path / "none.sock")], 1),
        (["describe", "\udcff"], 2),  # a byte that is no text
        (["lod", "x", "y"], 2),
        (["load", "x"], 2),
    ):
        said = json.loads(ours(*words, "--json", code=code).stdout)
        assert said["ok"] is False
        assert said["error"]


def test_hints_name_commands(ours: Run, digits: Path) -> None:
    said = ours("describe", "none", code=1).stderr
    assert "model 'none' is not loaded; `load PATH NAME` loads it, `list` shows what is loaded" in said
    ours("load", str(digits), "digits")
    said = ours("load", str(digits), "digits", code=1).stderr
    assert (
        "model 'digits' is already loaded and serves; to load another package under that name, `unload NAME` first"
        in said
    )
    ours("unload", "digits")


def test_numbers_that_mean_nothing(ours: Run) -> None:
    for words in (["list", "--timeout", "nan"], ["list", "--timeout", "-1"], ["predict", "m", "f", "--top", "-3"]):
        assert "is not allowed; expected" in ours(*words, code=2).stderr


def test_an_unknown_command_is_shown_the_list() -> None:
    said = run([*client_command(), "lod", "x", "y"], code=2).stderr
    assert "no command 'lod'; did you mean load" in said
    assert "capture-status  show the status of a capture" in said
    said = run([*client_command(), "-a", "/s", "lod", "x", "y"], code=2).stderr
    assert "no command 'lod'; did you mean load" in said
    assert "did you mean captures or capture-status?" in run([*client_command(), "capture", "--help"], code=2).stderr


def test_a_reader_of_all_output_that_went_away(agent: AgentProcess) -> None:
    """`2>&1 | true`."""
    gone, end = os.pipe()
    os.close(gone)
    with open(end, "wb") as nobody:  # noqa: PTH123
        for words in (["list"], ["describe", "none"], ["--no-such-option"]):
            command, environment = [*client_command(), *words], plain_environment(agent.socket)
            done = subprocess.run(command, stdout=nobody, stderr=nobody, env=environment, timeout=60, check=False)
            assert done.returncode in (0, 2), words


@pytest.mark.skipif(not from_source(), reason="a compiled program does not tell its imports")
@pytest.mark.parametrize("module", ["argparse", "edge.cli", "edge.client.main", "grpc._cython", "numpy.linalg"])
def test_control_c_while_modules_are_imported(agent: AgentProcess, module: str) -> None:
    """No traceback, and an exit code that says what ended it."""
    command = subprocess.Popen(
        [*client_command(), "capture-status", "none", "--wait", "60", "-a", agent.socket],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=plain_environment(agent.socket, PYTHONPROFILEIMPORTTIME="1"),
    )  # fmt: skip
    assert command.stderr is not None
    with command:
        assert any(line.endswith(f" {module}\n") for line in command.stderr)
        command.send_signal(signal.SIGINT)
        said = [line for line in command.stderr if not line.startswith("import time:")]
        code = command.wait(60)
    assert said == [] or "NOT_FOUND" in said[0], said
    assert code in (1, 130, -signal.SIGINT)
