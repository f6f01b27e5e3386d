"""A runtime for MLServer: a .tflite file by LiteRT, on one thread. Runs in the environment of bench.peers, not in ours."""

from ai_edge_litert.interpreter import Interpreter
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Runtime(MLModel):  # type: ignore[misc]
    """The model at `parameters.uri`, with one input and one output."""

    async def load(self) -> bool:
        """Open it."""
        self._engine = Interpreter(model_path=self.settings.parameters.uri, num_threads=1)
        self._engine.allocate_tensors()
        self._given = self._engine.get_input_details()[0]["index"]
        self._wanted = self._engine.get_output_details()[0]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One inference, with MLServer's own codec."""
        self._engine.set_tensor(self._given, NumpyCodec.decode_input(payload.inputs[0]))
        self._engine.invoke()
        found = self._engine.get_tensor(self._wanted["index"])
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output(self._wanted["name"], found)])
