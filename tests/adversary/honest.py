"""An honest client in a process of its own: `python -m tests.adversary.honest SOCKET MODEL`.

It predicts at a steady pace. A line on the standard input ends a stretch, and a line of JSON tells of it: what the calls
were answered and the milliseconds that each took. A call that takes longer than the pace keeps back others that an
application would have made meanwhile: they count as well, each with the time that it would have waited.
"""

import json
import select
import sys
import time
from collections import Counter

import grpc
import numpy as np

from tests.system.harness import EVENT_PATIENCE, Client, tensor_of

PACE_SECONDS = 0.005 * EVENT_PATIENCE
CALL_SECONDS = 30.0 * EVENT_PATIENCE  # what takes longer has failed


def main(socket: str, model: str) -> None:
    """Predict until the standard input ends."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 100)]
    client = Client(grpc.insecure_channel(f"unix:{socket}", options=options))
    tensors = [tensor_of(np.zeros((1, 4), np.float32))]
    answers: Counter[str] = Counter()
    milliseconds: list[float] = []
    while True:
        if select.select([sys.stdin], [], [], PACE_SECONDS)[0]:
            if not sys.stdin.readline():
                return
            print(json.dumps({"answers": answers, "milliseconds": milliseconds}), flush=True)
            answers, milliseconds = Counter(), []
        begun = time.monotonic()
        try:
            client.predict(model, tensors, timeout=CALL_SECONDS)
            answer = "OK"
        except grpc.RpcError as error:
            answer = error.code().name
        took = time.monotonic() - begun
        while took > 0:
            answers[answer] += 1
            milliseconds.append(took * 1000)
            took -= PACE_SECONDS


if __name__ == "__main__":
    main(*sys.argv[1:])
