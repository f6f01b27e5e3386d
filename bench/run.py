"""`python -m bench.run [--rounds N]`: the benchmark, one run of interleaved rounds, and bench/REPORT.md.

Each round measures every case once, so that what else the machine does falls on all cases alike; ratios are taken
within a round, and what is reported is their median over the rounds.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from typing import Any

from bench import report
from bench.rig import ASKING, CPUS, MODELS, SERVING, Rig, engine, load, pin, result, start_engine, start_load

CALLS = {"tiny": 2000, "float32": 60, "int8": 60, "large": 60}
CLIENTS = (1, 2, 4, 8)
THROUGHPUT: dict[str, Any] = {"seconds": 2.0, "calls": 1_000_000}
TWO_CLIENTS: dict[str, Any] = {"model": "float32-2", "mode": "shared", "clients": 2, "warmup": 5, **THROUGHPUT}
MIXED_SECONDS = 4.0
SLOW_CALL_SECONDS = 0.2
PREDICT = "/AWS.SageMaker.Edge.Agent/Predict"

QUIET = " p10"  # of a case: its quickest tenth, least disturbed by others

Results = dict[str, list[float]]


class Bench:
    """One run."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.results: Results = defaultdict(list)
        self.agent = rig.agent()
        for name in ("tiny", "float32", "int8", "large"):
            self.agent.client.load(rig.package(name), name)
        for instances in (1, 2):
            self.agent.client.load(rig.package("float32", instances=instances), f"float32-{instances}")
        self.agent.client.load(rig.package("slow"), "slow")
        self.cpp, self.python = rig.cpp_echo(), rig.python_echo()
        self.cpp_on_all = rig.cpp_echo(CPUS)
        self.answer_bytes: dict[str, int] = {}
        self.slow_rounds = self.calibrate()

    def calibrate(self) -> int:
        """How many rounds the slow model needs for SLOW_CALL_SECONDS."""
        rounds = 2000
        took = engine("slow", calls=10, warmup=1, int32=rounds)["p10_us"] / 1e6  # the least disturbed
        return int(rounds * SLOW_CALL_SECONDS / took)

    def note(self, case: str, found: dict[str, Any], key: str = "p50_us") -> None:
        self.results[case].append(float(found[key]))
        if key == "p50_us":
            self.results[case + QUIET].append(float(found["p10_us"]))

    def round(self) -> None:
        """Every case once."""
        assert self.agent.process
        pin(self.agent.process.pid, SERVING)
        self.empty()
        for model in CALLS:
            self.model(model)
        pin(self.agent.process.pid, CPUS)
        self.clients()
        self.mixed()

    def empty(self) -> None:
        socket = self.agent.socket
        limits: dict[str, Any] = {"calls": CALLS["tiny"], "cpus": ASKING}
        found = load(socket, **limits)
        size = found["answer_bytes"]
        self.note("empty agent", found)
        self.note("empty python", load(self.python, method=f"/bench.Echo/{size}", **limits))
        self.note("empty cpp", load(self.cpp, method=f"/bench.Echo/{size}", **limits))

    def model(self, model: str) -> None:
        socket, calls = self.agent.socket, CALLS[model]
        # The floor waits between its calls as long as an empty call of this round took.
        alone: dict[str, Any] = {"calls": calls, "cpus": SERVING, "pause_us": round(self.results["empty agent"][-1])}
        self.note(f"{model} engine", engine(model, **alone))
        self.note(f"{model} engine, segment", engine(model, segment=True, **alone))
        self.note(f"{model} engine, asked", engine(model, segment=True, asked_from=min(ASKING), **alone))
        for mode in ("inline", "shared"):
            found = load(socket, model=model, mode=mode, calls=calls, cpus=ASKING)
            self.answer_bytes[model] = found["answer_bytes"]
            self.note(f"{model} {mode}", found)
        echo = {"agent": socket, "model": model, "method": f"/bench.Echo/{self.answer_bytes[model]}"}
        self.note(f"{model} cpp", load(self.cpp, **echo, calls=calls, cpus=ASKING))
        self.note(f"{model} python", load(self.python, **echo, calls=calls, cpus=ASKING))
        if model == "float32":
            took = round(self.results[f"{model} engine"][-1])
            waiting = echo | {"method": f"/bench.Model{took}/{self.answer_bytes[model]}", "mode": "shared"}
            self.note("float32 model cpp", load(self.cpp, **waiting, calls=calls, cpus=ASKING))

    def clients(self) -> None:
        """Throughput; what is divided by something else is measured next to it."""
        self.bare(1)
        for clients in CLIENTS:
            self.served(1, clients)
        for clients in (1, 4, 8):
            self.served(2, clients)
        self.bare(2)
        self.served(2, 2)
        took = round(2e6 / self.results["bare 2"][-1])
        method = f"/bench.Model{took}/{self.answer_bytes['float32']}"
        found = load(self.cpp_on_all, agent=self.agent.socket, method=method, **TWO_CLIENTS)
        self.note("clients 2 model cpp", found, "per_second")

    def bare(self, processes: int) -> None:
        running = [start_engine("float32", pause_us=0, **THROUGHPUT) for _ in range(processes)]
        self.results[f"bare {processes}"].append(sum(result(each)["per_second"] for each in running))

    def served(self, instances: int, clients: int) -> None:
        options = TWO_CLIENTS | {"model": f"float32-{instances}", "clients": clients}
        found = load(self.agent.socket, **options)
        self.note(f"clients {clients} instances {instances}", found, "per_second")

    def mixed(self) -> None:
        fast = {"model": "tiny", "mode": "inline", "seconds": MIXED_SECONDS, "calls": 1_000_000, "pause_ms": 1}
        alone = load(self.agent.socket, **fast)
        slow = start_load(
            self.agent.socket, model="slow", int32=self.slow_rounds, warmup=1, calls=1_000_000,
            seconds=MIXED_SECONDS + 1.0,
        )  # fmt: skip
        beside = load(self.agent.socket, **fast)
        slow_found = result(slow)
        for key in ("p50_us", "p99_us"):
            self.note(f"mixed alone {key}", alone, key)
            self.note(f"mixed beside {key}", beside, key)
        self.note("mixed slow", slow_found)

    def ratio(self, top: tuple[str, ...], bottom: tuple[str, ...], *, quiet: bool = False) -> float | None:
        """Median over the rounds of a sum of cases over another; `quiet`: of their p10, None where there is none."""
        tops, bottoms = ([case + QUIET if quiet else case for case in cases] for cases in (top, bottom))
        if not all(case in self.results for case in (*tops, *bottoms)):
            return None
        rounds = range(len(self.results["empty agent"]))
        return statistics.median(
            sum(self.results[case][n] for case in tops) / sum(self.results[case][n] for case in bottoms) for n in rounds
        )

    def median(self, case: str) -> float:
        return statistics.median(self.results[case])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    missing = [str(path) for path in MODELS.values() if not path.exists()]
    if missing:
        raise SystemExit("missing, `make bench` makes them: " + ", ".join(missing))
    with Rig() as rig:
        bench = Bench(rig)
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            bench.round()
        text = report.render(bench.median, bench.ratio, options.rounds, bench.answer_bytes)
    report.PATH.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
