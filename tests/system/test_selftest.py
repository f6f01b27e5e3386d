"""A self-test from the maker's files to the agent that refuses what fails it (L-13, S-10)."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.package.selftest import SELFTEST_FILE
from tests.data import make_models
from tests.system.conftest import DIGITS, MODELS, Signer, run_tool
from tests.system.harness import ROOT, AgentProcess, Client, array_of, tensor_of

Refused = Callable[..., Any]


@pytest.fixture(scope="module")
def picture() -> np.ndarray[Any, Any]:
    grey = np.load(ROOT / "demo" / "data" / "held_out.npz")["grey"]
    return (grey[:3].astype(np.float32) / 255).reshape(3, 1, 8, 8, 1)


def make(signer: Signer, cases: Path, *words: str, model: Path = DIGITS, ok: bool = True) -> tuple[Path, str]:
    """The packaging tool on some cases: the package, and what it said."""
    out = Path(signer.folder / f"tested-{sum(1 for _ in signer.folder.iterdir())}")
    done = run_tool(
        "package", "--model", str(model), "--name", "digits", "--version", "1.0", "--key", str(signer.key), "--cert",
        str(signer.certificate), "--out", str(out), "--selftest", str(cases), *words, check=False,
    )  # fmt: skip
    assert (done.returncode == 0) is ok, done.stderr
    return out, done.stdout + done.stderr


def test_outputs_are_recorded_and_the_agent_runs_them(
    agent: AgentProcess, client: Client, signer: Signer, tmp_path: Path, picture: Any
) -> None:  # [L-13] [S-10]
    cases = tmp_path / "cases"
    cases.mkdir()
    np.save(cases / "one.npy", picture[0])
    np.savez(cases / "two.npz", image=picture[1])
    package, said = make(signer, cases)
    assert "self-test of 2 cases; the outputs are those that the model gave here" in said
    written = json.loads((package / SELFTEST_FILE).read_bytes())
    assert [case["name"] for case in written["cases"]] == ["one", "two"]
    (output,) = written["cases"][0]["outputs"]
    assert output == {"name": "probabilities", "dtype": "FLOAT32", "shape": [1, 10], "absolute": 1e-4, "relative": 1e-3}
    client.load(package, "digits")
    assert array_of(client.predict("digits", [tensor_of(picture[0], "image")])[0]).shape == (1, 10)


def test_what_a_case_says_must_hold_here(signer: Signer, tmp_path: Path, picture: Any) -> None:  # [L-13]
    wrong = np.full((1, 10), 0.1, np.float32)
    np.savez(tmp_path / "flat.npz", image=picture[0], probabilities=wrong)
    package, said = make(signer, tmp_path / "flat.npz", ok=False)
    assert "self-test case 'flat': output 'probabilities' is " in said and not package.exists()
    package, said = make(signer, tmp_path / "flat.npz", "--selftest-tolerance", "1", "0")
    assert "self-test of 1 case, passed here" in said


def test_the_agent_refuses_what_fails(
    agent: AgentProcess, client: Client, signer: Signer, tmp_path: Path, picture: Any, refused: Refused
) -> None:  # [L-13] [L-9]
    """Signed by somebody whose tool did not look."""
    np.save(tmp_path / "case.npy", picture[0])
    package, _ = make(signer, tmp_path / "case.npy")
    files = {path.name: path for path in package.iterdir() if path.name.startswith("selftest.")}
    bad = bytearray(files["selftest.bin"].read_bytes())
    bad[-40:] = np.full(10, 0.1, np.float32).tobytes()
    files["selftest.bin"].write_bytes(bad)
    words = ("--extra", *map(str, files.values()))
    broken = signer.package(DIGITS, "digits", *words)
    with refused("FAILED_PRECONDITION", "self-test case 'case': output 'probabilities' is"):
        client.load(broken, "digits")
    assert client.models() == []


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"picture": np.zeros((1, 8, 8, 1), np.float32)}, "'picture' is neither input nor output of the model"),
        ({"image": np.zeros((1, 8, 8, 1))}, "'image' is float64; the model has FLOAT32"),
        ({"probabilities": np.zeros((1, 10), np.float32)}, "there is no array for input 'image'"),
        ({"image": np.zeros((1, 8, 8), np.float32)}, "self-test case 'case': tensor 'image'"),
        ({"image": np.array([object()])}, "is not an .npy or .npz of numbers"),
    ],
)
def test_cases_that_do_not_fit(signer: Signer, tmp_path: Path, arrays: dict[str, Any], words: str) -> None:  # [S-10]
    np.savez(tmp_path / "case.npz", **arrays)
    _, said = make(signer, tmp_path / "case.npz", ok=False)
    assert words in said


@pytest.mark.parametrize(
    ("name", "words"), [("empty", "holds no .npz"), ("none", "cannot be read"), ("a.txt", "neither a folder")]
)
def test_cases_that_are_not_there(signer: Signer, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").touch()
    _, said = make(signer, tmp_path / name, ok=False)
    assert words in said


def test_a_case_whose_compressed_bytes_are_damaged(signer: Signer, tmp_path: Path, picture: Any) -> None:  # [S-10]
    case = tmp_path / "case.npz"
    np.savez_compressed(case, image=picture[0])
    data = bytearray(case.read_bytes())
    start = 30 + sum(struct.unpack_from("<HH", data, 26))  # behind the member's header
    data[start] = 0xFF  # no block begins so
    case.write_bytes(data)
    _, said = make(signer, case, ok=False)
    assert "is not an .npy or .npz of numbers, or damaged" in said


def test_integers_are_exact_and_several_inputs_need_names(signer: Signer, tmp_path: Path) -> None:  # [S-10]
    model = tmp_path / "two.tflite"
    model.write_bytes(make_models.two_by_two())
    np.save(tmp_path / "case.npy", np.zeros((2, 2), np.float32))
    _, said = make(signer, tmp_path / "case.npy", model=model, ok=False)
    assert "is one array, and the model has 2 inputs" in said
    np.save(tmp_path / "int.npy", np.arange(4, dtype=np.int32).reshape(1, 4))
    package, _ = make(signer, tmp_path / "int.npy", model=MODELS / "identity_int32.tflite")
    (output,) = json.loads((package / SELFTEST_FILE).read_bytes())["cases"][0]["outputs"]
    assert "absolute" not in output and "relative" not in output


def test_verify_runs_it_without_an_agent(signer: Signer, tmp_path: Path, picture: Any) -> None:  # [L-13]
    np.save(tmp_path / "case.npy", picture[0])
    package, _ = make(signer, tmp_path / "case.npy")
    trust = ("--trust", str(signer.roots))
    assert "self-test 1 case, not run (--run)" in run_tool("verify", str(package), *trust).stdout
    assert "self-test 1 case, passed" in run_tool("verify", str(package), *trust, "--run").stdout
    said = json.loads(run_tool("verify", str(package), *trust, "--run", "--json").stdout)
    assert said["ran"] and said["selftest"] == {"cases": 1, "passed": True}


def test_verify_run_says_what_fails(signer: Signer, tmp_path: Path, picture: Any) -> None:  # [L-13]
    np.savez(tmp_path / "flat.npz", image=picture[0], probabilities=np.full((1, 10), 0.1, np.float32))
    loose, _ = make(signer, tmp_path / "flat.npz", "--selftest-tolerance", "1", "0")
    value = json.loads((loose / SELFTEST_FILE).read_bytes())
    value["cases"][0]["outputs"][0]["absolute"] = 0.001
    (tmp_path / SELFTEST_FILE).write_text(json.dumps(value))
    (tmp_path / "selftest.bin").write_bytes((loose / "selftest.bin").read_bytes())
    strict = signer.package(DIGITS, "digits", "--extra", str(tmp_path / SELFTEST_FILE), str(tmp_path / "selftest.bin"))
    trust = ("--trust", str(signer.roots))
    assert run_tool("verify", str(strict), *trust).returncode == 0
    done = run_tool("verify", str(strict), *trust, "--run", check=False)
    assert done.returncode == 1 and "self-test case 'flat': output 'probabilities' is" in done.stderr


def test_verify_runs_a_package_without_one(signer: Signer, digits: Path) -> None:
    said = run_tool("verify", str(digits), "--trust", str(signer.roots), "--run").stdout
    assert "ran       as an agent would load it" in said and "self-test none" in said


def test_a_tolerance_needs_a_self_test(signer: Signer) -> None:
    with pytest.raises(AssertionError, match="means nothing without --selftest"):
        signer.package(DIGITS, "digits", "--selftest-tolerance", "1", "0")
