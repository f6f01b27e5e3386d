"""`python -m bench.swap`: what Predict costs while its model is replaced again and again, beside what it costs otherwise.

Clients call one model without a pause, by turns with and without swaps; ratios are taken within a pair of turns, and what is
reported is their median. The worst case is meant: one swap follows the other, and the clients leave no core free.
"""

import argparse
import json
import statistics
import threading
import time
from pathlib import Path

from bench.rig import MODELS, Found, Measurements, Rig
from edge.rpc._generated import operations_pb2 as ops
from tests.system.harness import AgentProcess

SECONDS = 4.0  # of a turn
KEYS = ("p50_us", "p99_us", "max_us", "per_second")


class Swaps:
    """Replaces the model of an agent again and again, while it is let."""

    def __init__(self, agent: AgentProcess, folder: Path, model: str, packages: list[Path]) -> None:
        self.took: list[float] = []  # seconds
        self._agent, self._model, self._packages = agent, model, packages
        self._file = folder / f"{model}.json"
        self._go, self._over = threading.Event(), False
        self._under_way = threading.Lock()
        self._thread = threading.Thread(target=self._run)
        self.swap()  # the first is a load
        self.took.clear()
        self._thread.start()

    def swap(self) -> None:
        """Replace it once."""
        package = self._packages[len(self.took) % len(self._packages)]
        self._file.write_text(json.dumps({"package": str(package)}))
        started = time.monotonic()
        (one,) = self._agent.channel.unary_unary(
            "/edge.v1.Operations/ApplyModels",
            request_serializer=ops.ApplyModelsRequest.SerializeToString,
            response_deserializer=ops.ApplyModelsResponse.FromString,
        )(ops.ApplyModelsRequest(names=[self._model])).models
        if one.refused:
            raise SystemExit(one.refused)
        self.took.append(time.monotonic() - started)

    def _run(self) -> None:
        while self._go.wait() and not self._over:
            with self._under_way:
                self.swap()

    def let(self, go: bool) -> None:
        """Begin, or stop once the one under way is done."""
        (self._go.set if go else self._go.clear)()
        if not go:
            with self._under_way:
                """It is done."""

    def close(self) -> None:
        """End."""
        self._over = True
        self._go.set()
        self._thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--turns", type=int, default=8)
    options = parser.parse_args()
    with Rig() as rig, Measurements() as start:
        folder = rig.folder / "models.d"
        folder.mkdir()
        agent = rig.agent(edge_models_path=str(folder), edge_package_store_path=str(rig.folder / "store"))
        packages = [rig.package(options.model, version=version) for version in ("1.0", "1.1")]
        swaps = Swaps(agent, folder, options.model, packages)
        measure = start.load(
            agent.socket, model=options.model, clients=options.clients, seconds=SECONDS, calls=1 << 40, warmup=50
        )
        pairs: list[tuple[Found, Found]] = []
        try:
            for _ in range(options.turns):
                found = []
                for go in (False, True):
                    swaps.let(go)
                    found.append(measure())
                swaps.let(False)
                pairs.append((found[0], found[1]))
        finally:
            swaps.close()
    for key in KEYS:
        without, during = ([float(pair[at][key]) for pair in pairs] for at in (0, 1))
        ratio = statistics.median(b / a for a, b in zip(without, during, strict=True))
        print(f"{key:<11} {statistics.median(without):>10.1f} {statistics.median(during):>10.1f}  {ratio:.2f}")
    calls = sum(int(found["calls"]) for pair in pairs for found in pair)
    print(f"{calls} calls, none failed; {len(swaps.took)} swaps of {statistics.median(swaps.took):.2f} s each")


if __name__ == "__main__":
    main()
