"""Whether a model may take another's place: applications must find the tensors that they know (W-3). Pure."""

from collections.abc import Sequence
from itertools import zip_longest

from edge.errors import TensorsChangedError
from edge.tensors import TensorSpec, shape_text
from edge.text import shown


def check_tensors(
    old: tuple[Sequence[TensorSpec], Sequence[TensorSpec]], new: tuple[Sequence[TensorSpec], Sequence[TensorSpec]]
) -> None:
    """Whether inputs and outputs are equal; a further name or shape that a new one takes is no difference.

    Raises:
        TensorsChangedError: names the first that is not, and both specifications.
    """
    for side, before, after in zip(("input", "output"), old, new, strict=True):
        for at, (one, other) in enumerate(zip_longest(before, after)):
            if one is None or other is None or not _may_replace(one, other):
                name = (one or other).name
                raise TensorsChangedError(
                    f"{side} {at}, {shown(name)}, of the new model is {_words(other)}; that of the one that serves is"
                    f" {_words(one)}; inputs and outputs must be equal unless changed tensors are allowed"
                )


def _may_replace(old: TensorSpec, new: TensorSpec) -> bool:
    # In which order the dimensions then become the model's, applications do not see.
    wanted = old._replace(
        order=new.order,
        other_name=old.other_name or new.other_name,
        accept_shape=old.accept_shape or new.accept_shape,
    )
    return wanted == new


def _words(spec: TensorSpec | None) -> str:
    """A specification as people read it."""
    if spec is None:
        return "not there"
    text = f"{shown(spec.name)} {spec.dtype.name} {shape_text(spec.signature)}"
    if spec.shape != spec.signature:
        text += f" (made for {shape_text(spec.shape)})"
    if spec.scale:
        text += f" with scale {spec.scale:g} and zero point {spec.zero_point}"
    if spec.other_name:
        text += f", also called {shown(spec.other_name)}"
    if spec.accept_shape is not None:
        text += f", also declared {shape_text(spec.accept_shape)}"
    return text
