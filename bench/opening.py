"""The floor under LoadModel: LiteRT's C interface in a fresh process opens a model and runs it once, on zeros, with one thread.

`python -m bench.opening MODEL` prints how long that took, in seconds. The library is loaded before, as an agent has it.
"""

import mmap
import sys
import time
from pathlib import Path

from edge.engine.litert import library
from edge.engine.litert_api import Api, handles
from edge.engine.litert_memory import Arena, address_of
from edge.engine.model_reading import graph_of
from edge.tensors import byte_count

FLOAT32 = 1  # of LiteRtElementType


def opened_and_run(api: Api, path: Path) -> float:
    """Seconds; the inputs and outputs are float32."""
    graph = graph_of(str(path))
    shapes = {end.tensor: end.shape for end in (*graph.inputs, *graph.outputs)}
    sizes = [byte_count(end.dtype, end.shape) for end in (*graph.inputs, *graph.outputs) if end.dtype is not None]
    start = time.perf_counter()
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    environment = api.environment()
    model = api.model(environment, address_of(mapped), len(mapped))
    ((_, signature),) = api.signatures(model)
    compiled = api.compiled(environment, model, threads=1)
    ends = [api.ends(signature, kind) for kind in ("Input", "Output")]
    api.output_shapes(compiled, 0, len(ends[1]))
    arena = Arena(sizes)
    places = dict(zip(shapes, zip(arena.places, sizes, strict=True), strict=True))
    inputs, outputs = (
        handles([api.buffer(FLOAT32, shapes[index], *places[index]) for index in indices]) for indices in ends
    )
    status = api.inference(compiled, 0, inputs, outputs)()
    seconds = time.perf_counter() - start
    assert status == 0 and any(arena.views[-1])
    return seconds


def main() -> None:
    """Once."""
    print(opened_and_run(Api(library()[0]), Path(sys.argv[1])))


if __name__ == "__main__":
    main()
