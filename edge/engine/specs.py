"""The inputs and outputs of a model as the API knows them: names, dtypes, shapes."""

import logging
from collections import Counter
from typing import Any

from edge.arrays import dtype_of
from edge.engine.engine import SessionOptions
from edge.engine.model_facts import ModelFacts, Signature
from edge.errors import UnsupportedModelError
from edge.tensors import DYNAMIC, MAX_DIMENSION, TensorSpec, shape_text

log = logging.getLogger(__name__)

Specs = tuple[TensorSpec, ...]


def read_specs(
    interpreter: Any, options: SessionOptions, facts: ModelFacts
) -> tuple[Specs, Specs, tuple[list[int], list[int]]]:
    """Inputs, outputs, and the engine's index of each.

    Raises:
        UnsupportedModelError: the API cannot carry one, or names are wanted that the model does not have.
    """
    try:
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    except UnicodeDecodeError:
        raise UnsupportedModelError("the model has a tensor whose name is not UTF-8") from None
    signature = chosen_signature(options, facts)
    if options.signature_names and signature is None:
        raise UnsupportedModelError(
            "the package wants the names of the model's signature (names), and the model has none"
        )
    given = (signature.inputs, signature.outputs) if signature else ((), ())
    specs = [
        _specs(details, kind, names, by_signature=options.signature_names)
        for details, kind, names in zip((inputs, outputs), ("input", "output"), given, strict=True)
    ]
    indices = [int(one["index"]) for one in inputs], [int(one["index"]) for one in outputs]
    return specs[0], specs[1], indices


def chosen_signature(options: SessionOptions, facts: ModelFacts) -> Signature | None:
    """The signature to call, or the only one of the graph that is called.

    Raises:
        UnsupportedModelError: the model has none of that key.
    """
    if options.signature is None:
        found = [one for one in facts.signatures if one.graph == 0]
        return found[0] if len(found) == 1 else None
    for one in facts.signatures:
        if one.key == options.signature:
            return one
    there = ", ".join(repr(one.key) for one in facts.signatures) or "none"
    raise UnsupportedModelError(f"the model has no signature {options.signature!r}; it has {there}")


def _specs(
    details: list[dict[str, Any]], kind: str, signature: tuple[tuple[str, int], ...], *, by_signature: bool
) -> Specs:
    left = list(signature)
    names, others = [str(detail["name"]) for detail in details], [""] * len(details)
    for position, detail in enumerate(details):
        entry = next((one for one in left if one[1] == int(detail["index"])), None)
        if entry is not None:  # a tensor that is there twice has two names
            left.remove(entry)
            others[position] = entry[0]
    if by_signature:
        names, others = [other or name for name, other in zip(names, others, strict=True)], names
    times = Counter(names)
    unnamed = [position for position, name in enumerate(names) if not name or times[name] > 1]
    for position in unnamed:
        names[position] = _free_name(f"{kind}_{position}", names)
    if unnamed:
        made_up = ", ".join(names[position] for position in unnamed)
        log.info("%ss without a name of their own are called %s", kind, made_up)
    return tuple(map(_spec, details, names, others, [kind] * len(details)))


def _free_name(wanted: str, names: list[str]) -> str:
    while wanted in names:
        wanted += "_"
    return wanted


def _spec(detail: dict[str, Any], name: str, other: str, kind: str) -> TensorSpec:
    dtype = dtype_of(detail["dtype"])
    if dtype is None:
        type_name = getattr(detail["dtype"], "__name__", str(detail["dtype"]))
        if type_name in ("bytes_", "str_", "object_"):
            verb = "takes" if kind == "input" else "answers with"
            raise UnsupportedModelError(f"the model {verb} text (string tensor {name!r}), which the API cannot carry")
        raise UnsupportedModelError(f"{kind} {name!r} has element type {type_name}, which the API cannot carry")
    shape = tuple(int(n) for n in detail["shape"])
    signature = tuple(int(n) for n in detail.get("shape_signature", ())) or shape
    if len(signature) != len(shape):
        signature = shape
    if any(not 0 <= n <= MAX_DIMENSION for n in shape):
        raise UnsupportedModelError(f"{kind} {name!r} has shape {shape_text(shape)}, outside what the API can carry")
    scale, zero_point = detail.get("quantization", (0.0, 0))  # a scale of 0 where it has none, or one for each channel
    signature = tuple(DYNAMIC if n < 0 else n for n in signature)
    return TensorSpec(name, dtype, shape, signature, other, float(scale), int(zero_point))
