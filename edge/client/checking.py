"""Whether the agent answers as the bare engine does: `package --check` for one model, `python -m edge.client.checking` for many.

Both run the same inputs, each in processes of its own, and the bytes of the answers are compared. The agent is this program,
started for it with a throw-away CA.
"""

import datetime
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from edge.arrays import numpy_dtype
from edge.client import inputs, show
from edge.client.connection import Agent
from edge.client.outcome import CommandError, Exit, InputError, UnreachableError
from edge.engine.bare import FLAG, answer_of
from edge.engine.sample_inputs import values
from edge.engine.samples import MADE_UP
from edge.errors import PackageError
from edge.package.identity import load_identity, make_demo_ca
from edge.package.making import make_package
from edge.package.manifest import Manifest
from edge.rpc._generated import agent_pb2 as pb
from edge.selfexec import self_command
from edge.settings import full_key
from edge.tensors import DType, TensorSpec

START_SECONDS = 60.0
OPENING_SECONDS = 10.0  # of the bare engine
CALL_SECONDS = 120.0
ENDLESS = "does not end in time on"
NAME = "checked"
SAME, DIFFERS, REFUSED, DIED = "same", "differs", "refused", "died"


@dataclass(frozen=True)
class Verdict:
    """How the agent compares with the bare engine on one model: in a word, and why."""

    model: Path
    word: str
    why: str = ""


class Checker:
    """An agent to compare with; it is started anew after a model that ended it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="edge-check-")
        self._path = Path(self._folder.name)
        ca = make_demo_ca(self._path / "ca", datetime.datetime.now(datetime.UTC))
        self._identity = load_identity(ca.key, ca.certificate, None, None)
        config = {
            "core_device_name": "check",
            "core_device_fleet_name": "check",
            "core_root_certs_path": str(ca.roots),
            "core_capture_data_disk_path": str(self._path / "captures"),
        }
        (self._path / "config.json").write_text(json.dumps({full_key(key): value for key, value in config.items()}))
        self._agent: subprocess.Popen[bytes] | None = None
        self._packages = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._agent is not None:
            self._agent.terminate()
            self._agent.wait()
        self._folder.cleanup()

    def check(self, model: Path, manifest: Manifest, extra: Sequence[Path] = ()) -> Verdict:
        """Compare on one model; of the manifest what concerns the engine."""
        self._packages += 1
        package = self._path / f"package-{self._packages}"
        make_package(replace(manifest, model=model.name), model, extra, self._identity, package)
        with Agent(self._socket(), timeout=CALL_SECONDS) as agent:
            try:
                described = agent.load(str(package), NAME)
            except UnreachableError:
                return Verdict(model, DIED, "while the model was loaded")
            except CommandError as error:
                return Verdict(model, REFUSED, str(error))
            try:
                return self._compare(agent, model, manifest, list(described.input_tensor_metadatas))
            finally:
                with suppress(CommandError):
                    agent.unload(NAME)

    def _compare(self, agent: Agent, model: Path, manifest: Manifest, wanted: list[pb.TensorMetadata]) -> Verdict:
        files = list(self._inputs(manifest, wanted))
        compared, reasons = 0, []
        for kind, file in files:
            ended = self._run_bare(model, manifest, str(file))
            if ended == ENDLESS:
                reasons.append(f"the engine {ENDLESS} {kind}")
                continue
            expected = _arrays(Path(answer_of(str(file))))
            try:
                given = _arrays(file) or []
                if manifest.state == "keep":
                    agent.reset(NAME)
                answers = agent.predict(
                    NAME, [inputs.tensor(one.name, array) for one, array in zip(wanted, given, strict=True)]
                )
            except UnreachableError:
                return Verdict(model, DIED, f"on {kind}")
            except CommandError as error:
                if expected is not None:
                    return Verdict(model, DIFFERS, f"on {kind} the agent refuses what the engine answers: {error}")
                reasons.append(str(error))
                continue
            if expected is None:
                return Verdict(model, DIFFERS, f"on {kind} the agent answers what the engine {ended or 'refuses'}")
            difference = _difference(expected, [inputs.array_of(answer) for answer in answers])
            if difference:
                return Verdict(model, DIFFERS, f"on {kind}: {difference}")
            compared += 1
        if not compared:
            why = f"neither answers on {', '.join(kind for kind, _ in files)}: {reasons[0]}; give --sample"
            return Verdict(model, REFUSED, why)
        return Verdict(
            model, SAME, f"{compared} of {len(files)} inputs have an answer" if compared < len(files) else ""
        )

    def _inputs(self, manifest: Manifest, wanted: list[pb.TensorMetadata]) -> Iterator[tuple[str, Path]]:
        """Files of inputs, each with what is in it."""
        shapes = dict(manifest.sample_shapes)
        specs = [TensorSpec(one.name, DType(one.data_type), tuple(one.shape), tuple(one.shape)) for one in wanted]
        for number, kind in enumerate(MADE_UP):
            arrays = []
            for spec in specs:
                shape = shapes.get(spec.name, spec.shape)
                arrays.append(np.frombuffer(values(spec, shape, kind), numpy_dtype(spec.dtype)).reshape(shape))
            file = self._path / f"inputs-{self._packages}-{number}.npz"
            named: dict[str, Any] = {str(position): array for position, array in enumerate(arrays)}
            np.savez(file, **named)
            yield kind, file

    def _run_bare(self, model: Path, manifest: Manifest, file: str) -> str:
        """Have the bare engine answer; how its process ended, in a word, if that was not well."""
        task = json.dumps({"model": str(model), "threads": manifest.threads or 1, "inputs": file})
        seconds = OPENING_SECONDS + manifest.trial_seconds
        try:
            done = subprocess.run([*self_command(), FLAG, task], capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return ENDLESS
        return "crashes on" if done.returncode else ""

    def _socket(self) -> str:
        """The agent's, which is started if need be."""
        path = self._path / "agent.sock"
        if self._agent is not None and self._agent.poll() is None:
            return str(path)
        words = [*self_command(), "-a", str(path), "-c", str(self._path / "config.json"), "-f"]
        self._agent = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=(self._path / "log").open("ab"))
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with Agent(str(path), timeout=1) as agent:
                    agent.list_models()
                return str(path)
            except CommandError:
                if self._agent.poll() is not None or time.monotonic() > deadline:
                    said = (self._path / "log").read_text(errors="replace").splitlines()[-1:]
                    raise InputError(f"no agent can be started to check with: {''.join(said)}") from None
                time.sleep(0.05)


def check_one(model: Path, manifest: Manifest, extra: Sequence[Path]) -> None:
    """Compare on one model, by its own tensors and its first graph.

    Raises:
        PackageError: the agent answers otherwise than the bare engine, or not at all.
    """
    with Checker() as checker:
        verdict = checker.check(model, replace(manifest, signature=None, names="tensor", inputs=(), outputs=()), extra)
    if verdict.word != SAME:
        raise PackageError(f"{model} does not pass the check ({verdict.word}): {verdict.why}")


def _arrays(file: Path) -> list[Any] | None:
    if not file.exists():
        return None
    with np.load(file, allow_pickle=False) as arrays:
        return [arrays[str(position)] for position in range(len(arrays.files))]


def _difference(expected: list[Any], found: list[Any]) -> str:
    """What differs between two lists of outputs; empty where not a byte does."""
    for number, (one, other) in enumerate(zip(expected, found, strict=True)):
        if one.shape != other.shape or one.dtype != other.dtype:
            return f"output {number} is {other.dtype} {list(other.shape)}, not {one.dtype} {list(one.shape)}"
        if one.tobytes() != other.tobytes():
            with np.errstate(all="ignore"):
                most = np.nanmax(np.abs(one.astype(np.float64) - other.astype(np.float64)))
            return f"output {number} differs by up to {most:.3g}"
    return ""


def main(words: Sequence[str]) -> int:
    """Compare on every .tflite file below some folders, and print a table."""
    models = sorted(file for word in words for file in Path(word).rglob("*.tflite"))
    if not models:
        print("no .tflite files there; name folders that hold some", file=sys.stderr)
        return Exit.USAGE
    verdicts = []
    with Checker() as checker:
        for model in models:
            verdicts.append(checker.check(model, Manifest("model", "1", model.name, threads=1)))
            print(f"{verdicts[-1].word:<8} {model}", file=sys.stderr)
    print(show.table([[one.word, str(one.model), one.why] for one in verdicts], ["VERDICT", "MODEL", "WHY"]))
    counts = [f"{sum(one.word == word for one in verdicts)} {word}" for word in (SAME, DIFFERS, REFUSED, DIED)]
    print(f"{len(verdicts)} models: {', '.join(counts)}")
    return Exit.OK if all(one.word in (SAME, REFUSED) for one in verdicts) else Exit.REFUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
