"""What the bindings of both interpreter packages share that their documentation does not say."""

from typing import Any

from edge.engine.model_graph import TEXT, End
from edge.errors import UnsupportedModelError

# What the interpreter's bindings raise for a bad file, a failed allocation or a failed invoke.
ENGINE_ERRORS = (ValueError, RuntimeError, TypeError, OSError, MemoryError)


def operators_of(interpreter: Any) -> list[tuple[str, list[int], list[int]]]:
    """Each operator's name and the tensors it reads and writes. Asked for one by one: the bindings' own lists look at every

    tensor's sparsity, on which tflite_runtime crashes.
    """
    engine = interpreter._interpreter
    return [
        (
            str(engine.NodeName(number)),
            [int(index) for index in engine.NodeInputs(number)],
            [int(index) for index in engine.NodeOutputs(number) if index >= 0],
        )
        for number in range(engine.NumNodes())
    ]


def ends_of(interpreter: Any) -> tuple[list[End], list[End]]:
    """Inputs and outputs, as the interpreter has them now.

    Raises:
        UnsupportedModelError: one has a name that is not UTF-8.
    """
    try:
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    except UnicodeDecodeError:
        raise UnsupportedModelError("the model has a tensor whose name is not UTF-8") from None
    return list(map(_end, inputs)), list(map(_end, outputs))


def _end(detail: dict[str, Any]) -> End:
    from edge.arrays import dtype_of  # and numpy, which an agent without models does without

    type_name = getattr(detail["dtype"], "__name__", str(detail["dtype"]))
    shape = tuple(int(n) for n in detail["shape"])
    scale, zero_point = detail.get("quantization", (0.0, 0))  # a scale of 0 where it has none, or one for each channel
    return End(
        int(detail["index"]),
        str(detail["name"]),
        dtype_of(detail["dtype"]),
        TEXT if type_name in ("bytes_", "str_", "object_") else type_name,
        shape,
        tuple(int(n) for n in detail.get("shape_signature", ())) or shape,
        float(scale),
        int(zero_point),
    )
