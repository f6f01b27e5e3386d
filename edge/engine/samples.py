"""What a model is run on before an application calls it: inputs that its package gives, else zeros, ones and small numbers.

How those are made is in `edge.engine.sample_inputs`: an agent that serves no model yet needs no numpy.
"""

from typing import NamedTuple

FILE, ZEROS, ONES, SMALL = "the sample", "zeros", "ones", "small numbers"  # kinds of values, tried in this order
MADE_UP = (ZEROS, ONES, SMALL)


class Sample(NamedTuple):
    """What a package says: the shapes of inputs, by name; or a descriptor of an npz with arrays for all of them."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    fd: int | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of values that there are."""
        return MADE_UP if self.fd is None else (FILE,)

    @property
    def given(self) -> bool:
        """Whether the package says anything."""
        return bool(self.shapes) or self.fd is not None
