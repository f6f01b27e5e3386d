"""`python -m bench.run [--rounds N]`: the benchmark, one run of interleaved rounds, and bench/REPORT.md.

What is compared is measured by turns, each turn a fraction of a second of every case: on a virtual machine a core may be
a fifth slower for as long as somebody else uses the other half of it. Ratios are taken within a turn, and what is
reported is their median over all turns. The bare engines and the clients are started anew in each round, for how fast
a process is depends on which memory it got.
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict
from typing import Any

from bench import report
from bench.rig import ASKING, CPUS, MODELS, SERVING, Found, Measurements, Rig, Together, load, opening, pin

# Of each model: the calls of a case in a turn, those before them that do not count, and the turns of a round.
TURNS = {"tiny": (300, 30, 6), "float32": (20, 3, 8), "int8": (6, 2, 2), "large": (20, 3, 6)}
CLIENTS = (1, 2, 4, 8)
THROUGHPUT: dict[str, Any] = {"seconds": 0.3, "calls": 1_000_000, "warmup": 3}
COMPARED_TURNS, OTHER_TURNS = 8, 2
MIXED_SECONDS = 4.0
SLOW_CALL_SECONDS = 0.2
LOADS = 6  # in a round

QUIET = " p10"  # of a case: its quickest tenth, least disturbed by others

Results = dict[str, list[float]]


class Bench:
    """One run."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.results: Results = defaultdict(list)
        self.agent = rig.agent()
        for name in TURNS:
            self.agent.client.load(rig.package(name), name)
        self.agent.client.load(rig.package("float32", instances=2), "float32-2")
        self.agent.client.load(rig.package("slow"), "slow")
        self.cpp, self.python = rig.cpp_echo(), rig.python_echo()
        self.cpp_on_all = rig.cpp_echo(CPUS)
        self.answer_bytes = {name: int(load(self.agent.socket, model=name, calls=1)["answer_bytes"]) for name in TURNS}
        self.slow_rounds = self.calibrate()

    def calibrate(self) -> int:
        """How many rounds the slow model needs for SLOW_CALL_SECONDS."""
        rounds = 2000
        with Measurements() as start:
            took = start.engine("slow", calls=10, warmup=1, int32=rounds)()["p10_us"] / 1e6  # the least disturbed
        return int(rounds * SLOW_CALL_SECONDS / took)

    def note(self, case: str, found: Found, key: str = "p50_us") -> float:
        value = float(found[key])
        self.results[case].append(value)
        if key == "p50_us":
            self.results[case + QUIET].append(float(found["p10_us"]))
        return value

    def round(self) -> None:
        """Every case."""
        assert self.agent.process
        pin(self.agent.process.pid, SERVING)
        for model in TURNS:
            self.model(model)
        pin(self.agent.process.pid, CPUS)
        self.loads("float32")
        self.clients()
        self.mixed()

    def loads(self, model: str) -> None:
        """LoadModel, and the bare engine's open and first inference."""
        package, name = self.rig.package(model), f"{model}-again"
        for _ in range(LOADS):
            self.results[f"{model} open"].append(opening(model) * 1e6)
            start = time.perf_counter()
            self.agent.client.load(package, name)
            self.results[f"{model} load"].append((time.perf_counter() - start) * 1e6)
            self.agent.client.unload(name)

    def model(self, model: str) -> None:
        socket, (calls, warmup, turns) = self.agent.socket, TURNS[model]
        limits: dict[str, Any] = {"calls": calls, "warmup": warmup}
        asking, serving = limits | {"cpus": ASKING}, limits | {"cpus": SERVING}
        empty_calls: dict[str, Any] = {"calls": TURNS["tiny"][0], "warmup": TURNS["tiny"][1], "cpus": ASKING}
        size = self.answer_bytes[model]
        echo = {"agent": socket, "model": model, "method": f"/bench.Echo/{size}"}
        with Measurements() as start:
            empty = start.load(socket, **empty_calls)
            # The floor waits between its calls as long as an empty call takes.
            serving["pause_us"] = round(empty()["p50_us"])
            engine = start.engine(model, **serving)
            segment = start.engine(model, segment=True, **serving)
            asked = start.engine(model, segment=True, asked_from=min(ASKING), **serving)
            inline = start.load(socket, model=model, mode="inline", **asking)
            shared = start.load(socket, model=model, mode="shared", **asking)
            like_engine = start.load(self.cpp, **echo, mode="shared", **asking)
            cpp, python = (start.load(server, **echo, **asking) for server in (self.cpp, self.python))
            for _ in range(turns):
                self.note(f"{model} empty", empty())
                took = self.note(f"{model} engine", engine())
                self.note(f"{model} shared", shared())
                if model == "float32":
                    self.note("float32 model cpp", like_engine(f"/bench.Model{round(took)}/{size}"))
                self.note(f"{model} inline", inline())
                self.note(f"{model} cpp", cpp())
                self.note(f"{model} python", python())
                self.note(f"{model} engine, segment", segment())
                self.note(f"{model} engine, asked", asked())
            if model == "tiny":
                self.empty(turns, empty_calls)

    def empty(self, turns: int, limits: dict[str, Any]) -> None:
        with Measurements() as start:
            agent = start.load(self.agent.socket, **limits)
            size = agent()["answer_bytes"]
            cpp, python = (
                start.load(server, method=f"/bench.Echo/{size}", **limits) for server in (self.cpp, self.python)
            )
            for _ in range(turns):
                self.note("empty agent", agent())
                self.note("empty python", python())
                self.note("empty cpp", cpp())

    def clients(self) -> None:
        """Throughput; each client is a process of its own, as an application is."""
        socket = self.agent.socket
        with Measurements() as start:
            asked = {"mode": "shared", **THROUGHPUT}
            served = {
                (clients, instances): Together([start.load(socket, model=model, **asked) for _ in range(clients)])
                for instances, model in ((1, "float32"), (2, "float32-2"))
                for clients in CLIENTS
            }
            bare = {n: Together([start.engine("float32", pause_us=0, **THROUGHPUT) for _ in range(n)]) for n in (1, 2)}
            like_engine = Together(
                [start.load(self.cpp_on_all, agent=socket, model="float32", **asked) for _ in range(2)]
            )
            for _ in range(OTHER_TURNS):
                self.results["bare 1"].append(bare[1].per_second())
                for (clients, instances), together in served.items():
                    if (clients, instances) != (2, 2):
                        self.results[f"clients {clients} instances {instances}"].append(together.per_second())
            for _ in range(COMPARED_TURNS):
                floor = bare[2].per_second()
                self.results["bare 2"].append(floor)
                self.results["clients 2 instances 2"].append(served[2, 2].per_second())
                method = f"/bench.Model{round(2e6 / floor)}/{self.answer_bytes['float32']}"
                self.results["clients 2 model cpp"].append(like_engine.per_second(method))

    def mixed(self) -> None:
        socket = self.agent.socket
        with Measurements() as start:
            fast = start.load(socket, model="tiny", mode="inline", seconds=MIXED_SECONDS, calls=1_000_000, pause_ms=1)
            slow = start.load(
                socket, model="slow", int32=self.slow_rounds, warmup=1, calls=1_000_000, seconds=MIXED_SECONDS + 1.0
            )
            alone = fast()
            slow.begin()
            beside = fast()
            for key in ("p50_us", "p99_us"):
                self.note(f"mixed alone {key}", alone, key)
                self.note(f"mixed beside {key}", beside, key)
            self.note("mixed slow", slow.found())

    def ratio(self, top: tuple[str, ...], bottom: tuple[str, ...], *, quiet: bool = False) -> float | None:
        """Median over the turns of a sum of cases over another; `quiet`: of their p10, None where there is none."""
        tops, bottoms = ([case + QUIET if quiet else case for case in cases] for cases in (top, bottom))
        if not all(case in self.results for case in (*tops, *bottoms)):
            return None
        turns = range(len(self.results[tops[0]]))
        return statistics.median(
            sum(self.results[case][n] for case in tops) / sum(self.results[case][n] for case in bottoms) for n in turns
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
        text = report.render(bench.median, bench.ratio, options.rounds)
    report.PATH.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
