"""A server by KServe's Python SDK: .tflite files by LiteRT, on one thread. Runs in the environment of bench.peers, not in ours.

`python -m bench.peer_kserve --models NAME=FILE,... [KServe's own options]`
"""

import argparse
import logging

from ai_edge_litert.interpreter import Interpreter
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, model_server


class Served(Model):  # type: ignore[misc]
    """A model with one input and one output."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self._engine = Interpreter(model_path=path, num_threads=1)
        self._engine.allocate_tensors()
        self._given = self._engine.get_input_details()[0]["index"]
        self._wanted = self._engine.get_output_details()[0]
        self.ready = True

    async def predict(
        self, payload: InferRequest, headers: object = None, response_headers: object = None
    ) -> InferResponse:
        """One inference, with KServe's own conversion."""
        self._engine.set_tensor(self._given, payload.inputs[0].as_numpy())
        self._engine.invoke()
        found = self._engine.get_tensor(self._wanted["index"])
        output = InferOutput(self._wanted["name"], list(found.shape), "FP32")
        output.set_data_from_numpy(found, binary_data=True)
        return InferResponse(payload.id or "1", self.name, [output])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser], conflict_handler="resolve")
    parser.add_argument("--models", required=True)
    parser.add_argument("--quiet", action="store_true", help="without a log of each call")
    options = parser.parse_args()
    if options.quiet:
        logging.getLogger("kserve").setLevel(logging.WARNING)
    models = [Served(*one.split("=", 1)) for one in options.models.split(",")]
    ModelServer(
        http_port=options.http_port, grpc_port=options.grpc_port, workers=1,
        enable_latency_logging=not options.quiet, access_log_format=None,
    ).start(models)  # fmt: skip
