"""Measure the program, compiled and under plain CPython, and write docs/footprint.md.

Time to READY is from the start of the process to READY=1 on its NOTIFY_SOCKET; memory is from smaps_rollup, all
processes of the agent together. The other machine's binary is emulated here: of it, sizes only.
"""

import contextlib
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP))

from bench.models import MobileNet  # noqa: E402
from edge.rpc._generated import agent_pb2 as pb  # noqa: E402

MIB = 1 << 20
MEGABYTE = 1_000_000
WARM_STARTS = 9
READY_SECONDS = 120
NATIVE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
INSTANCES = 3
AIMS = {"warm": "0.3", "first": "1.5", "idle": "36", "loaded": "52", "instances": "70", "download": "28", "disk": "70"}


@dataclass
class Figures:
    """What was measured of one form of the program."""

    first_s: float | None = None
    warm_s: list[float] = field(default_factory=list)
    idle: dict[str, float] = field(default_factory=dict)
    loaded: dict[str, float] = field(default_factory=dict)
    instances: float = 0.0  # PSS above idle of INSTANCES instances of MobileNetV2 float32, in MB


def memory(pid: int) -> dict[str, float]:
    """RSS and PSS in MiB, threads and processes, of a process and its children."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    total = {"rss": 0.0, "pss": 0.0, "private": 0.0, "threads": 0.0, "processes": float(len(processes))}
    for process in processes:
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            name, _, value = line.partition(":")
            key = {"Rss": "rss", "Pss": "pss", "Private_Clean": "private", "Private_Dirty": "private"}.get(name)
            if key:
                total[key] += int(value.split()[0]) / 1024
        total["threads"] += process.num_threads()
    return total


@contextlib.contextmanager
def running(command: list[str], folder: Path, env: dict[str, str]) -> Iterator[tuple[int, float, str]]:
    """The agent, started and READY: its pid, the seconds that took, its socket."""
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(folder / "notify"))
    notify.settimeout(READY_SECONDS)
    address = folder / "agent.sock"
    variables = {**os.environ, **env, "NOTIFY_SOCKET": str(folder / "notify")}
    begun = time.monotonic()
    agent = subprocess.Popen(
        [*command, "-f", "-a", str(address), "-c", str(folder / "config.json")],
        env=variables,
        stderr=subprocess.DEVNULL,
    )
    try:
        while b"READY=1" not in notify.recv(4096):
            pass
        yield agent.pid, time.monotonic() - begun, str(address)
    finally:
        agent.terminate()
        agent.wait(60)
        notify.close()
        (folder / "notify").unlink()


def load_and_predict(address: str, package: Path, *, calls: int = 20, callers: int = 1) -> None:
    """Load a package, and have each of several callers make as many calls beside the others."""
    import grpc

    with grpc.insecure_channel(f"unix:{address}") as channel:
        call = lambda name, request, answer: channel.unary_unary(  # noqa: E731
            f"/AWS.SageMaker.Edge.Agent/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )(request)
        model = call("LoadModel", pb.LoadModelRequest(url=str(package), name="model"), pb.LoadModelResponse).model
        size = 4
        for n in model.input_tensor_metadatas[0].shape:
            size *= n
        tensor = pb.Tensor(tensor_metadata=model.input_tensor_metadatas[0], byte_data=bytes(size))
        request = pb.PredictRequest(name="model", tensors=[tensor])
        with ThreadPoolExecutor(callers) as pool:
            list(pool.map(lambda _: call("Predict", request, pb.PredictResponse), range(calls * callers)))


def measure(command: list[str], *, first: bool) -> Figures:
    """Start it several times; `first` also with nothing unpacked yet and its file not in memory."""
    figures = Figures()
    with tempfile.TemporaryDirectory(dir=TOP / "build") as name:
        folder = Path(name)
        ca, digits, mobilenet, cache = folder / "ca", folder / "digits", folder / "mobilenet", folder / "cache"
        cache.mkdir(mode=0o700)
        env = {"SAGEMAKER_EDGE_UNPACK_DIR": str(cache)}
        tool = [*command]
        subprocess.run([*tool, "demo-ca", str(ca)], check=True, capture_output=True, env={**os.environ, **env})
        (folder / "mobilenet.tflite").write_bytes(MobileNet(int8=False).build())
        for package, model, more in (
            (digits, TOP / "demo/data/digits.tflite", []),
            (mobilenet, folder / "mobilenet.tflite", ["--instances", str(INSTANCES)]),
        ):
            words = ["--model", str(model), "--name", "model", "--version", "1.0", "--out", str(package), *more]
            keys = ["--key", str(ca / "signing.key"), "--cert", str(ca / "signing.pem")]
            subprocess.run(
                [*tool, "package", *words, *keys], check=True, capture_output=True, env={**os.environ, **env}
            )
        prefix = "sagemaker_edge_core_"
        config = {
            f"{prefix}device_name": "d",
            f"{prefix}device_fleet_name": "f",
            f"{prefix}root_certs_path": str(ca / "roots"),
            f"{prefix}capture_data_disk_path": str(folder / "captures"),
        }
        (folder / "config.json").write_text(json.dumps(config))
        if first:
            shutil.rmtree(cache)
            cache.mkdir(mode=0o700)
            with running(command, folder, env) as (_, seconds, _):
                figures.first_s = seconds
        for _ in range(WARM_STARTS):
            with running(command, folder, env) as (_, seconds, _):
                figures.warm_s.append(seconds)
        with running(command, folder, env) as (pid, _, address):
            figures.idle = memory(pid)
            load_and_predict(address, digits)
            figures.loaded = memory(pid)
        with running(command, folder, env) as (pid, _, address):
            idle = memory(pid)["pss"]
            load_and_predict(address, mobilenet, callers=INSTANCES)
            figures.instances = (memory(pid)["pss"] - idle) * MIB / MEGABYTE
    return figures


def megabytes(path: Path) -> float | None:
    """Bytes of a file, or what a folder takes on disk, in MB; None if it is not there."""
    if path.is_dir():
        return sum(f.lstat().st_blocks * 512 for f in path.rglob("*")) / MEGABYTE
    return path.stat().st_size / MEGABYTE if path.exists() else None


def sizes(arch: str) -> dict[str, float | None]:
    dist, tree = TOP / "dist" / arch, TOP / "build/nuitka" / arch / "tree"
    packed, unpacked = megabytes(dist / "sagemaker_edge_agent_binary"), megabytes(tree)
    return {
        "tgz": next((megabytes(path) for path in dist.glob("*.tgz")), None),
        "deb": next((megabytes(path) for path in dist.glob("sagemaker-edge-agent_*.deb")), None),
        "packed": packed,
        "unpacked": unpacked,
        "both": packed + unpacked if packed and unpacked else None,
    }


def cell(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def page(plain: Figures, binary: Figures, by_arch: dict[str, dict[str, float | None]]) -> str:
    version = (TOP / "dist" / NATIVE / "VERSION").read_text().strip()
    lines = [
        "# Footprint",
        "",
        f"Written by `make footprint`; version {version}, on {platform.machine()}, {os.cpu_count()} CPUs, "
        f"load {os.getloadavg()[0]:.1f} while it was measured.",
        "",
        "## Sizes, MB (10^6 bytes)",
        "",
        "| | amd64 | arm64 | aim |",
        "|---|---|---|---|",
    ]
    rows = (
        ("download: the .tgz", "tgz", AIMS["download"]),
        ("download: the .deb", "deb", AIMS["download"]),
        ("the one file", "packed", ""),
        ("on disk, installed from a package (unpacked)", "unpacked", AIMS["disk"]),
        ("on disk, the one file and what it unpacked", "both", AIMS["disk"]),
    )
    for label, key, aim in rows:
        lines.append(f"| {label} | {cell(by_arch['amd64'][key])} | {cell(by_arch['arm64'][key])} | {aim} |")
    lines += ["", "## Start and memory", "", f"| | CPython | binary ({NATIVE}) | aim |", "|---|---|---|---|"]
    warm = [statistics.median(f.warm_s) for f in (plain, binary)]
    lines += [
        f"| start to READY, warm, median of {WARM_STARTS}, s | {warm[0]:.2f} | {warm[1]:.2f} | {AIMS['warm']} |",
        f"| start to READY, warm, fastest, s | {min(plain.warm_s):.2f} | {min(binary.warm_s):.2f} | |",
        f"| start to READY, very first (unpacks), s | | {cell(binary.first_s, 2)} | {AIMS['first']} |",
    ]
    for state, label in (("idle", "idle"), ("loaded", "with the digits model, after 20 predictions")):
        a, b = getattr(plain, state), getattr(binary, state)
        for key, name, aim in (("rss", "RSS", ""), ("pss", "PSS", AIMS[state]), ("private", "private", "")):
            lines.append(f"| {label}: {name}, MiB | {a[key]:.1f} | {b[key]:.1f} | {aim} |")
        lines.append(f"| {label}: threads | {a['threads']:.0f} | {b['threads']:.0f} | |")
        lines.append(f"| {label}: processes | {a['processes']:.0f} | {b['processes']:.0f} | 1 |")
    lines += [
        f"| {INSTANCES} instances of MobileNetV2 float32, above idle: PSS, MB | {plain.instances:.1f} | {binary.instances:.1f} "
        f"| {AIMS['instances']} |",
        "",
        "PSS counts the pages of files that the process has mapped at that moment; the system holds the program's file in its cache "
        "beside them for as long as there is room (docs/adr/0048-footprint.md).",
        "",
        "The other machine's binary runs emulated here, so only its sizes are given.",
        "",
        "## glibc that each file needs",
    ]
    for arch in ("amd64", "arm64"):
        table = TOP / "build/nuitka" / arch / "glibc.txt"
        lines += ["", f"{arch}; the build fails above 2.31.", "", "| file | glibc | MB |", "|---|---|---|"]
        if table.exists():
            for line in table.read_text().splitlines():
                needed, size, name = line.split("\t")
                lines.append(f"| {name} | {needed} | {int(size) / MEGABYTE:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    binary = TOP / "dist" / NATIVE / "sagemaker_edge_agent_binary"
    if not binary.exists():
        sys.exit(f"There is no {binary}: run 'make tarball ARCH={NATIVE}' first.")
    text = page(
        measure([sys.executable, str(TOP / "agent.py")], first=False),
        measure([str(binary)], first=True),
        {arch: sizes(arch) for arch in ("amd64", "arm64")},
    )
    (TOP / "docs/footprint.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
