"""`python -m bench.peer_client URL MODEL NAME SHAPE CALLS`: what ModelInfer costs by tritonclient, unmodified, in microseconds.

Measures once for each line of its input, and prints the quickest tenth and the answer's first and summed numbers as JSON. SHAPE is as
1,8,8,1; the input is FP32, and the same in every process.
"""

import json
import sys
import time

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput

from bench.engine import pattern

WARMUP = 2


def main() -> None:
    url, model, name, shape, calls = sys.argv[1:]
    array = pattern([int(one) for one in shape.split(",")], np.float32, 0)
    given = InferInput(name, list(array.shape), "FP32")
    given.set_data_from_numpy(array)
    with InferenceServerClient(url) as client:
        for _ in sys.stdin:
            took = []
            for turn in range(WARMUP + int(calls)):
                start = time.perf_counter()
                result = client.infer(model, [given])
                if turn >= WARMUP:
                    took.append((time.perf_counter() - start) * 1e6)
            found = result.as_numpy(result.get_response().outputs[0].name)
            answer = [*found.ravel()[:4].tolist(), float(found.sum())]
            print(json.dumps({"p10_us": float(np.percentile(took, 10)), "answer": answer, "failed": 0}), flush=True)


if __name__ == "__main__":
    main()
