"""The whole product on real input: `make demo`, or `python -m demo.run [--out DIR]`.

Makes a throw-away CA, packages and signs the digits model, starts the agent, loads the model, has it read pictures it
never saw, inline and through shared memory, captures what it saw, stops the agent, and makes a page of what was captured. What it leaves is under build/demo.
"""

import argparse
import contextlib
import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from demo import cards
from edge.client import bmp, inputs
from edge.client.connection import Agent, peer_credentials
from edge.client.outcome import CommandError
from edge.client.segment import Segment
from edge.rpc._generated import agent_pb2 as pb

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "demo" / "data"
AGENT = [sys.executable, str(ROOT / "agent.py")]
MODEL, VERSION = "digits", "1"  # a number: applications of the original read it by int()
ROUNDS = 9  # calls a picture and way; the middle one is shown
START_SECONDS = 30.0
CAPTURE_SECONDS = 30.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.02
LOG_LINES = 12


class DemoError(Exception):
    """The demo cannot go on; the text says why, in a sentence."""


@dataclass
class Places:
    """Where the demo keeps its things; `out` stays afterwards."""

    out: Path
    socket: Path

    @property
    def captures(self) -> Path:
        """Where the agent writes captures."""
        return self.out / "captures"

    @property
    def log(self) -> Path:
        """The agent's log."""
        return self.out / "agent.log"


@contextlib.contextmanager
def places(out: Path) -> Iterator[Places]:
    """An empty `out`, or a new folder under /tmp where that cannot be had: something uses it, or the tree is read-only."""
    with contextlib.ExitStack() as stack:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(out.with_name("demo.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if agent_uses(out):
                raise OSError(f"an agent that captures to {show(out)} is running")
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
        except BlockingIOError:
            out = elsewhere(f"another demo is running in {show(out)}")
        except OSError as error:
            out = elsewhere(str(error))
        # A socket's path has room for about a hundred characters only; the tree may lie deeper than that.
        short = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-")))
        yield Places(out, short / "agent.sock")


def elsewhere(why: str) -> Path:
    """A new folder, which the reader is told of."""
    out = Path(tempfile.mkdtemp(prefix="sagemaker-edge-demo-"))
    print(f"  {why}:\n  this demo works in {out}\n", flush=True)
    return out


def agent_uses(out: Path) -> bool:
    """Whether an agent holds the captures of an earlier demo, started by hand with its configuration."""
    try:
        with (out / "captures" / ".spool" / "lock").open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def tool(*words: str) -> None:
    """Runs a command of the packaging tool.

    Raises:
        DemoError: with the tool's last word.
    """
    done = subprocess.run([*AGENT, *words], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise DemoError(f"`{words[0]}` ended with {done.returncode}: {last}")


def write_config(where: Places) -> Path:
    """A configuration as short as one can be."""
    path = where.out / "config.json"
    settings = {
        "core_device_name": "demo-device",
        "core_device_fleet_name": "demo-fleet",
        "core_root_certs_path": str(where.out / "ca" / "roots"),
        "core_capture_data_destination": "Disk",
        "core_capture_data_disk_path": str(where.captures),
        "core_capture_data_push_period_seconds": 1,
    }
    path.write_text(json.dumps({f"sagemaker_edge_{key}": value for key, value in settings.items()}, indent=2) + "\n")
    return path


@contextlib.contextmanager
def agent_process(where: Places, config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The agent, serving; ended if it still runs at the end of the block.

    Raises:
        DemoError: it does not start.
    """
    with where.log.open("wb") as log:
        command = [*AGENT, "-a", str(where.socket), "-c", str(config)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        end = time.monotonic() + START_SECONDS
        while not serving(where.socket):
            if process.poll() is not None:
                raise DemoError(f"the agent ended with {process.returncode} instead of starting")
            if time.monotonic() > end:
                raise DemoError(f"the agent does not answer after {START_SECONDS:g} s")
            time.sleep(POLL_SECONDS)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def serving(socket: Path) -> bool:
    """Whether the agent answers a first call."""
    if not socket.exists():
        return False
    try:
        with Agent(str(socket), timeout=5) as agent:
            agent.list_models()
    except CommandError:
        return False
    return True


def stop(process: "subprocess.Popen[bytes]", socket: Path) -> None:
    """Stops the agent as systemd would.

    Raises:
        DemoError: it did not end well.
    """
    process.terminate()
    try:
        code = process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        raise DemoError(f"the agent is still running {STOP_SECONDS:g} s after SIGTERM") from None
    if code or socket.exists():
        raise DemoError(f"the agent ended with {code}" + ", leaving its socket" * socket.exists())


def read_pictures(agent: Agent, socket: Path, model: pb.Model) -> list[cards.Card]:
    """Has every picture read, inline and through shared memory; captures each once.

    Raises:
        DemoError: the two ways do not agree.
    """
    wanted = model.input_tensor_metadatas[0]
    reader = peer_credentials(str(socket))
    made = []
    for file in sorted((DATA / "pictures").glob("*.bmp")):
        array = inputs.from_picture(bmp.read(file), wanted)
        inline = inputs.tensor(wanted.name, array)
        with Segment(array.nbytes) as segment:
            segment.write(array.data)
            segment.make_read_only(reader)
            shared = inputs.tensor(wanted.name, array, segment.segment_id)
            inline_seconds, answer = timed(agent, inline)
            shared_seconds, same = timed(agent, shared)
        if answer != same:
            raise DemoError(f"{file.name}: shared memory and inline do not give the same answer")
        capture_id = str(uuid.uuid4())
        agent.capture(
            pb.CaptureDataRequest(
                model_name=MODEL, capture_id=capture_id, input_tensors=[inline], output_tensors=[answer]
            )
        )
        scores = inputs.array_of(answer).reshape(-1)
        made.append(
            cards.Card(
                grey=array.reshape(8, 8),
                says=int(np.argmax(scores)),
                truth=int(file.name[0]),
                confidence=float(scores.max()),
                inline_ms=inline_seconds * 1e3,
                shared_ms=shared_seconds * 1e3,
                capture_id=capture_id,
            )
        )
    return made


def timed(agent: Agent, tensor: pb.Tensor) -> tuple[float, pb.Tensor]:
    """The median time of a Predict in seconds, and its answer."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        (answer,) = agent.predict(MODEL, [tensor])
        times.append(time.perf_counter() - start)
    return sorted(times)[ROUNDS // 2], answer


def await_captures(agent: Agent, ids: list[str]) -> None:
    """Waits until every capture is safe on disk.

    Raises:
        DemoError: one is not.
    """
    end = time.monotonic() + CAPTURE_SECONDS
    for capture_id in ids:
        while (state := agent.capture_status(capture_id)) != "SUCCESS":
            if state == "FAILURE" or time.monotonic() > end:
                raise DemoError(f"capture {capture_id} is {state} after {CAPTURE_SECONDS:g} s")
            time.sleep(POLL_SECONDS)


def capture_files(where: Places, ids: list[str]) -> list[Path]:
    """The files that hold the captures.

    Raises:
        DemoError: a capture is in none, or in two.
    """
    files = sorted(path for path in where.captures.rglob("*.jsonl") if ".spool" not in path.parts)
    found = [json.loads(line)["eventMetadata"]["eventId"] for path in files for line in path.read_text().splitlines()]
    if sorted(found) != sorted(ids):
        raise DemoError(f"{len(ids)} captures were made, the files under {where.captures} hold {len(found)}")
    return files


def say(what: str, result: str) -> None:
    """One finished step."""
    print(f"  {what:<44}{result}", flush=True)


def show(path: Path) -> str:
    """A path as short as it can be said from here."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def demonstrate(where: Places) -> None:
    """All steps, in order."""
    package = where.out / f"{MODEL}-{VERSION}"
    ca = where.out / "ca"
    tool("demo-ca", str(ca))
    say("a certificate authority, to throw away", show(ca))
    words = ["--model", str(DATA / "digits.tflite"), "--name", MODEL, "--version", VERSION]
    tool("package", *words, "--key", str(ca / "signing.key"), "--cert", str(ca / "signing.pem"), "--out", str(package))
    say("the digits model, packaged and signed", show(package))
    config = write_config(where)
    started = time.monotonic()
    with agent_process(where, config) as process:
        say(
            "the agent, started with -a and -c", f"process {process.pid}, serving in {time.monotonic() - started:.1f} s"
        )
        with Agent(str(where.socket), timeout=30) as agent:
            started = time.monotonic()
            model = agent.load(str(package), MODEL)
            say("the model, verified, loaded and warmed up", f"{time.monotonic() - started:.1f} s")
            read = read_pictures(agent, where.socket, model)
            say(f"{len(read)} pictures it never saw, read and captured", "inline, and through shared memory")
            print("\n" + cards.sheet(read) + "\n")
            ids = [card.capture_id for card in read]
            await_captures(agent, ids)
            files = capture_files(where, ids)
        stop(process, where.socket)
    right = sum(card.says == card.truth for card in read)
    say(f"{right} of {len(read)} read right; median of a call", cards.summary(read))
    say(f"{len(files)} capture file{'s' * (len(files) != 1)}, all captures SUCCESS", show(files[0].parent))
    say("the agent, stopped by SIGTERM", "exit code 0, socket removed")
    page = where.out / "report.html"
    tool("captures", "report", str(where.captures), "--html", str(page))
    agent_words = f"{show(Path(sys.executable))} {show(ROOT / 'agent.py')}"
    print(f"""
Go on from here:
  {agent_words} -a /tmp/edge.sock -c {show(config)} &
  {agent_words} load -a /tmp/edge.sock {show(package)} digits
  {agent_words} predict -a /tmp/edge.sock digits {show(DATA / "pictures" / "7_a.bmp")}

What it saw and said, to open in a browser:
  {show(page)}""")


def main(argv: Sequence[str] = ()) -> int:
    """Runs the demo; 1 with a sentence on stderr when it fails."""
    parser = argparse.ArgumentParser(prog="python -m demo.run", description="The whole product on real input.")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "build" / "demo", help="folder for what it leaves (build/demo)"
    )
    options = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may lack the blocks
    print("The agent, from signing a model to captured data\n", flush=True)
    with places(options.out) as where:
        try:
            demonstrate(where)
        except (DemoError, CommandError, OSError, subprocess.TimeoutExpired) as error:
            print(f"\nThe demo failed: {error}", file=sys.stderr)
            if where.log.exists() and (lines := where.log.read_text(errors="replace").splitlines()):
                print(f"The agent's last words ({show(where.log)}):", file=sys.stderr)
                print("\n".join("  " + line for line in lines[-LOG_LINES:]), file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nStopped.", file=sys.stderr)
            return 130
    return 0


if __name__ == "__main__":
    # A demo in a folder of its own must not be taken by what the caller's environment says.
    os.environ.pop("STATE_DIRECTORY", None)
    sys.exit(main(sys.argv[1:]))
