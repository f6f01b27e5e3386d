"""The inputs and outputs of a model as the API knows them: names, dtypes, shapes."""

import logging
from collections import Counter
from collections.abc import Sequence

from edge.engine.engine import SessionOptions
from edge.engine.model_facts import ModelFacts, Signature
from edge.engine.model_graph import TEXT, End
from edge.errors import UnsupportedModelError
from edge.tensors import DYNAMIC, MAX_DIMENSION, TensorSpec, shape_text

log = logging.getLogger(__name__)

Specs = tuple[TensorSpec, ...]


def make_specs(
    inputs: Sequence[End], outputs: Sequence[End], options: SessionOptions, facts: ModelFacts
) -> tuple[Specs, Specs]:
    """Inputs and outputs.

    Raises:
        UnsupportedModelError: the API cannot carry one, or names are wanted that the model does not have.
    """
    signature = chosen_signature(options, facts)
    if options.signature_names and signature is None:
        raise UnsupportedModelError(
            "the package wants the names of the model's signature (names), and the model has none"
        )
    given = (signature.inputs, signature.outputs) if signature else ((), ())
    specs = [
        _specs(ends, kind, names, by_signature=options.signature_names)
        for ends, kind, names in zip((inputs, outputs), ("input", "output"), given, strict=True)
    ]
    return specs[0], specs[1]


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


def check_state(facts: ModelFacts, graph: int, options: SessionOptions) -> None:
    """Whether the model may keep what it keeps.

    Raises:
        UnsupportedModelError: calls would depend on those before, which the package does not want.
    """
    if graph in facts.assigning and not options.keeps_state:
        raise UnsupportedModelError(
            "the model assigns to variables of its own (ASSIGN_VARIABLE), so that an answer depends on the calls before "
            'it; package it with --state keep (runtime.state "keep") if that is what the application wants'
        )


def _specs(ends: Sequence[End], kind: str, signature: tuple[tuple[str, int], ...], *, by_signature: bool) -> Specs:
    left = list(signature)
    names, others = [end.name for end in ends], [""] * len(ends)
    for position, end in enumerate(ends):
        entry = next((one for one in left if one[1] == end.tensor), None)
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
    return tuple(map(_spec, ends, names, others, [kind] * len(ends)))


def _free_name(wanted: str, names: list[str]) -> str:
    while wanted in names:
        wanted += "_"
    return wanted


def _spec(end: End, name: str, other: str, kind: str) -> TensorSpec:
    if end.dtype is None:
        if end.type_name == TEXT:
            verb = "takes" if kind == "input" else "answers with"
            raise UnsupportedModelError(f"the model {verb} text (string tensor {name!r}), which the API cannot carry")
        raise UnsupportedModelError(f"{kind} {name!r} has element type {end.type_name}, which the API cannot carry")
    signature = end.signature if len(end.signature) == len(end.shape) else end.shape
    if any(not 0 <= n <= MAX_DIMENSION for n in end.shape):
        raise UnsupportedModelError(
            f"{kind} {name!r} has shape {shape_text(end.shape)}, outside what the API can carry"
        )
    signature = tuple(DYNAMIC if n < 0 else n for n in signature)
    return TensorSpec(name, end.dtype, end.shape, signature, other, end.scale, end.zero_point)
