"""What the bindings of both interpreter packages share that their documentation does not say."""

from collections.abc import Sequence
from typing import Any

from edge.engine.model_graph import Graph

# What the interpreter's bindings raise for a bad file, a failed allocation or a failed invoke.
ENGINE_ERRORS = (ValueError, RuntimeError, TypeError, OSError, MemoryError)


class GraphInterpreter:
    """An interpreter's one graph that is not its first, with the calls that a session uses of an interpreter."""

    def __init__(self, interpreter: Any, number: int, graph: Graph) -> None:
        self._whole = interpreter
        self._interpreter = interpreter._interpreter
        self._number = number
        self._outputs = [end.tensor for end in graph.outputs]

    def get_output_details(self) -> list[dict[str, Any]]:
        """As Interpreter's."""
        return [self._whole._get_tensor_details(index, self._number) for index in self._outputs]

    def resize_tensor_input(self, index: int, shape: Sequence[int]) -> None:
        """As Interpreter's."""
        import numpy as np  # which an agent without an interpreter does without

        self._interpreter.ResizeInputTensor(index, np.array(shape, np.int32), False, self._number)

    def allocate_tensors(self) -> None:
        """As Interpreter's."""
        self._interpreter.AllocateTensors(self._number)

    def set_tensor(self, index: int, value: Any) -> None:
        """As Interpreter's."""
        self._interpreter.SetTensor(index, value, self._number)

    def get_tensor(self, index: int) -> Any:
        """As Interpreter's."""
        return self._interpreter.GetTensor(index, self._number)

    def invoke(self) -> None:
        """As Interpreter's."""
        self._interpreter.Invoke(self._number)

    def reset_all_variables(self) -> None:
        """As Interpreter's."""
        self._whole.reset_all_variables()
