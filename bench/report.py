"""bench/REPORT.md: the figures of a run, the aims beside them, and the machine. What stands under
"## Why" is written by hand and kept."""

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import grpc

from bench.engine import interpreter_package
from tests.system.harness import agent_command, from_source

PATH = Path(__file__).parent / "REPORT.md"
KEPT_FROM = "## Why"

Median = Callable[[str], float]


class Ratio(Protocol):
    """See `Bench.ratio`."""

    def __call__(self, top: tuple[str, ...], bottom: tuple[str, ...], *, quiet: bool = False) -> float | None: ...


# What is measured and divided, with the aim; what a C++ server has that does as much stands beneath, and has no aim.
AIMS: tuple[tuple[str, tuple[str, ...], tuple[str, ...], float | None, bool], ...] = (
    ("Predict tiny inline / empty call", ("tiny inline",), ("tiny empty",), 1.30, True),
    ("Predict tiny inline / the same bytes to a bare grpcio server", ("tiny inline",), ("tiny python",), 1.30, True),
    ("Predict tiny inline / (empty call + engine)", ("tiny inline",), ("tiny empty", "tiny engine"), 1.30, True),
    ("empty call / bare grpcio server", ("empty agent",), ("empty python",), 1.05, True),
    ("MobileNetV2 float32 shared / (engine + empty call)", ("float32 shared",), ("float32 engine", "float32 empty"), 1.05, True),
    ("… the C++ server that works as long as the engine", ("float32 model cpp",), ("float32 engine", "float32 empty"), None, True),
    ("MobileNetV2 float32 inline / (engine + C++ echo)", ("float32 inline",), ("float32 engine", "float32 cpp"), 1.10, True),
    ("12.6 MB shared / (engine + empty call)", ("large shared",), ("large engine", "large empty"), 1.10, True),
    ("12.6 MB inline / (engine + C++ echo)", ("large inline",), ("large engine", "large cpp"), 2.00, True),
    ("2 clients, 2 instances / two bare processes", ("clients 2 instances 2",), ("bare 2",), 0.90, False),
    ("… the C++ server that works as long as the engine", ("clients 2 model cpp",), ("bare 2",), None, False),
    ("LoadModel MobileNetV2 float32 / the bare engine's open and first inference", ("float32 load",), ("float32 open",), 8.00, True),
    ("tiny p99 beside a 200 ms model / alone", ("mixed beside p99_us",), ("mixed alone p99_us",), 3.00, True),
)  # fmt: skip


def machine() -> list[str]:
    """The machine and the software, a line each."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = next(line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line)
    name, _ = interpreter_package()
    agent = "source tree" if from_source() else Path(agent_command()[0]).name
    return [
        f"{len(os.sched_getaffinity(0))} cores of {cpu}, {platform.machine()}, {int(memory) // 2**20} GiB",
        f"Linux {platform.release()}, Python {platform.python_version()}, grpcio {grpc.__version__}, {name}",
        f"agent: {agent}; load average at the end: " + ", ".join(f"{value:.1f}" for value in os.getloadavg()),
    ]


def _verdict(values: list[float], aim: float | None, at_most: bool) -> str:
    if aim is None:
        return "| floor"
    met = all(value <= aim if at_most else value >= aim for value in values)
    return f"{'≤' if at_most else '≥'} {aim:.2f} | {'met' if met else 'not met'}"


def render(median: Median, ratio: Ratio, rounds: int) -> str:
    """The whole report."""
    lines = [
        "# Benchmark report",
        "",
        "Written by `make bench`. What is compared is measured by turns, a fraction of a second each: a core of a virtual machine",
        "may be a fifth slower while somebody else uses the other half of it. Latencies are medians over the turns of each turn's",
        "p50, in microseconds; ratios are taken within a turn, and the median over the turns is given. Each client is a process.",
        "",
        *(f"- {line}" for line in machine()),
        f"- {rounds} rounds, in each of which the engines and the clients are started anew",
        "",
        "## Aims",
        "",
        "p10 compares the quickest tenth of the calls: what they cost while nothing else wants the cores. Where there is one",
        "client, the serving process has one core and the client the other. A floor is what a server in C++ has that does as much.",
        "The bare engine is used as its Python bindings offer it: it copies its input, and its memory is on pages of 4 kB.",
        "What LoadModel is compared with is LiteRT's C interface in a fresh process.",
        "",
        "| ratio | p50 | p10 | aim | |",
        "|---|---|---|---|---|",
    ]
    for name, top, bottom, aim, at_most in AIMS:
        values = [ratio(top, bottom), ratio(top, bottom, quiet=True)]
        given = [value for value in values if value is not None]
        cells = " | ".join("" if value is None else f"{value:.2f}" for value in values)
        lines.append(f"| {name} | {cells} | {_verdict(given, aim, at_most)} |")
    lines += [
        "",
        "## Empty call",
        "",
        "| agent (ListModels) | bare grpcio server | C++ server |",
        "|---|---|---|",
        f"| {median('empty agent'):.0f} | {median('empty python'):.0f} | {median('empty cpp'):.0f} |",
        "",
        "## Predict, one client, one thread in the engine",
        "",
        "The do-nothing servers take the same request and answer as many bytes. The C++ server that works as long as the engine",
        f"takes for MobileNetV2 float32, and reads 14 MB in that time as the engine does, takes {median('float32 model cpp'):.0f}.",
        "",
        "| model | engine in process | the same, from a segment | and asked over a socket | inline | shared | C++ server, inline | bare grpcio server, inline |",
        "|---|---|---|---|---|---|---|---|",
    ]
    names = {
        "tiny": "tiny, 8x8",
        "float32": "MobileNetV2 float32, 602 kB",
        "int8": "MobileNetV2 int8, 151 kB",
        "large": "large input, 12.6 MB",
    }
    for key, name in names.items():
        cells = " | ".join(
            f"{median(f'{key} {case}'):.0f}"
            for case in ("engine", "engine, segment", "engine, asked", "inline", "shared", "cpp", "python")
        )
        lines.append(f"| {name} | {cells} |")
    lines += [
        "",
        "## LoadModel, milliseconds",
        "",
        "| | the bare engine's open and first inference | LoadModel |",
        "|---|---|---|",
        f"| MobileNetV2 float32 | {median('float32 open') / 1000:.0f} | {median('float32 load') / 1000:.0f} |",
        "",
        "## Clients and instances, MobileNetV2 float32 by shared memory, calls a second",
        "",
        "| | 1 client | 2 | 4 | 8 |",
        "|---|---|---|---|---|",
    ]
    for instances in (1, 2):
        cells = " | ".join(f"{median(f'clients {n} instances {instances}'):.0f}" for n in (1, 2, 4, 8))
        lines.append(f"| {instances} instance{'s' if instances > 1 else ''} of 1 thread | {cells} |")
    lines += [
        f"| bare engine processes | {median('bare 1'):.0f} | {median('bare 2'):.0f} | | |",
        f"| C++ server that works as long as the engine, 2 threads | | {median('clients 2 model cpp'):.0f} | | |",
        "",
        "## A slow and a fast model at once, microseconds",
        "",
        "| tiny | p50 | p99 |",
        "|---|---|---|",
        f"| alone | {median('mixed alone p50_us'):.0f} | {median('mixed alone p99_us'):.0f} |",
        f"| beside a call of {median('mixed slow') / 1000:.0f} ms after the other "
        f"| {median('mixed beside p50_us'):.0f} | {median('mixed beside p99_us'):.0f} |",
        "",
    ]
    kept = PATH.read_text() if PATH.exists() else ""
    tail = kept[kept.index(KEPT_FROM) :] if KEPT_FROM in kept else ""
    return "\n".join(lines) + ("\n" + tail if tail else "")
