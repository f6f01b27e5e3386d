"""The floor under any Predict: the bare engine in this process, set_tensor, invoke and the output's bytes.

Between calls it pauses as long as a client takes to come again (--pause-us): caches are colder after a pause, and on a
machine that does other things too the scheduler treats a process that never pauses worse than a server. With --segment
the input is copied out of a System V segment, as the agent's is: numpy's own arrays lie in huge pages where the system
has them, segments do not. With --asked-from CPU it waits between calls as a server does, in a read from a socket, until
a process on that core, which is busy for the pause, asks for the next.

`python -m bench.engine MODEL [--calls N] [--seconds S] [--threads N]` measures once for each line of its input and prints
latencies as JSON, in the load generator's words. It uses the interpreter package that the agent in this environment uses.
"""

import argparse
import ctypes
import importlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

PACKAGES = ("ai_edge_litert", "tflite_runtime")


def interpreter_package() -> tuple[str, ModuleType]:
    """The first interpreter package there is, as the agent chooses it."""
    for name in PACKAGES:
        try:
            return name, importlib.import_module(f"{name}.interpreter")
        except ImportError:
            continue
    raise SystemExit("no interpreter package is installed: " + ", ".join(PACKAGES))


def pattern(shape: Sequence[int], dtype: Any, int32: int) -> "np.ndarray[Any, Any]":
    """The input that the load generator sends."""
    count = int(np.prod(shape))
    if dtype == np.float32:
        return (np.arange(count) % 251 / np.float32(251)).astype(np.float32).reshape(shape)
    if dtype == np.int32:
        return np.full(shape, int32, np.int32)
    return (np.arange(count) % 100).astype(dtype).reshape(shape)


def in_segment(array: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """The same array in a segment of shared memory, which goes with this process."""
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    segment = libc.shmget(0, ctypes.c_size_t(array.nbytes), 0o600)
    address = libc.shmat(segment, None, 0)
    libc.shmctl(segment, 0, None)  # IPC_RMID: removed once nobody has it attached
    memory = (ctypes.c_ubyte * array.nbytes).from_address(address)
    copy = np.frombuffer(memoryview(memory), array.dtype).reshape(array.shape)
    copy[:] = array
    return copy


def asked_from(cpu: int, busy: float) -> Callable[[], None]:
    """Start a client on a core; what is returned answers it and waits until it asks again, after `busy` seconds of work.

    It ends with this process.
    """
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        os.sched_setaffinity(0, {cpu})
        while theirs.recv(1):
            until = time.perf_counter() + busy
            while time.perf_counter() < until:
                pass
            theirs.send(b"?")
        os._exit(0)
    theirs.close()

    def next_call() -> None:
        ours.send(b"!")
        ours.recv(1)

    return next_call


def pausing(seconds: float) -> Callable[[], None]:
    """What is returned sleeps that long."""
    return lambda: time.sleep(seconds) if seconds else None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--pause-us", type=int, default=100)
    parser.add_argument("--asked-from", type=int, metavar="CPU")
    parser.add_argument("--int32", type=int, default=0)
    parser.add_argument("--segment", action="store_true")
    options = parser.parse_args()
    pause = options.pause_us / 1e6
    wait = pausing(pause) if options.asked_from is None else asked_from(options.asked_from, pause)
    _, module = interpreter_package()
    interpreter = module.Interpreter(model_path=options.model, num_threads=options.threads)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    array = pattern(given["shape"], given["dtype"], options.int32)
    if options.segment:
        array = in_segment(array)
    for _ in sys.stdin:
        print(json.dumps(measure(interpreter, array, options, wait)), flush=True)


def measure(
    interpreter: Any, array: "np.ndarray[Any, Any]", options: argparse.Namespace, wait: Callable[[], None]
) -> dict[str, float]:
    """Some inferences, `wait` after each."""
    given, out = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    took: list[float] = []
    start = time.perf_counter()
    for turn in range(options.warmup + options.calls):
        if turn == options.warmup:
            start = time.perf_counter()
        before = time.perf_counter()
        interpreter.set_tensor(given, array)
        interpreter.invoke()
        interpreter.get_tensor(out).tobytes()
        after = time.perf_counter()
        if turn >= options.warmup:
            took.append((after - before) * 1e6)
            if after - start > options.seconds:
                break
        wait()
    seconds = time.perf_counter() - start
    latencies = {f"p{n}_us": float(np.percentile(took, n)) for n in (10, 50, 90, 99)}
    return {"calls": len(took), "seconds": seconds, "per_second": len(took) / seconds, "failed": 0, **latencies}


if __name__ == "__main__":
    main()
