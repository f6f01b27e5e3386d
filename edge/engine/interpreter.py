"""What the bindings of both interpreter packages share that their documentation does not say."""

from typing import Any

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
