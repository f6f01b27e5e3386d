"""A graph of a model other than its first, which the bindings run by its number and by copies alone."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edge.engine.model_facts import Signature


class GraphInterpreter:
    """An interpreter's one graph, with the calls that a session uses of an interpreter."""

    def __init__(self, interpreter: Any, signature: Signature) -> None:
        self._whole = interpreter
        self._interpreter = interpreter._interpreter
        self._graph = signature.graph
        self._ends = [[index for _, index in ends] for ends in (signature.inputs, signature.outputs)]

    def get_input_details(self) -> list[dict[str, Any]]:
        """As Interpreter's."""
        return [self._whole._get_tensor_details(index, self._graph) for index in self._ends[0]]

    def get_output_details(self) -> list[dict[str, Any]]:
        """As Interpreter's."""
        return [self._whole._get_tensor_details(index, self._graph) for index in self._ends[1]]

    def resize_tensor_input(self, index: int, shape: Sequence[int]) -> None:
        """As Interpreter's."""
        self._interpreter.ResizeInputTensor(index, np.array(shape, np.int32), False, self._graph)

    def allocate_tensors(self) -> None:
        """As Interpreter's."""
        self._interpreter.AllocateTensors(self._graph)

    def set_tensor(self, index: int, value: Any) -> None:
        """As Interpreter's."""
        self._interpreter.SetTensor(index, value, self._graph)

    def tensor(self, index: int) -> Callable[[], Any]:
        """Gives a copy, not a view."""
        return lambda: self._interpreter.GetTensor(index, self._graph)

    def invoke(self) -> None:
        """As Interpreter's."""
        self._interpreter.Invoke(self._graph)

    def reset_all_variables(self) -> None:
        """As Interpreter's."""
        self._whole.reset_all_variables()
