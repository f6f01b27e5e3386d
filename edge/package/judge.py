"""Opening packages with this device's trusted roots, clock and build date.

What reads signatures is imported with the first package only: it is a fifth of an idle agent's memory and of its start.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge.clock import Clock

if TYPE_CHECKING:
    from edge.package.open import Acceptance, Package


class Judge:
    """Opens packages by the roots in a folder and a clock. Raises as `edge.package.open`."""

    def __init__(self, trust_dir: Path, clock: Clock, build_date: int) -> None:
        self._trust_dir, self._clock, self._build_date = trust_dir, clock, build_date

    def open(
        self,
        url: str,
        claim: Callable[[str, int], None],
        go_on: Callable[[], None],
        accepted: "Acceptance | None" = None,
    ) -> "Package":
        """A package at a url, verified; as `open_package`."""
        from edge.package.open import open_package

        return open_package(
            url,
            trust_dir=self._trust_dir,
            clock=self._clock,
            build_date=self._build_date,
            claim=claim,
            go_on=go_on,
            accepted=accepted,
        )

    def accept(self, url: str, go_on: Callable[[], None]) -> "Package":
        """A package that is about to be stored, verified."""
        from edge.package.open import claim_of_system

        return self.open(url, claim_of_system, go_on)

    def signed_paths(self, url: str) -> frozenset[str]:
        """The paths of the files that the package's signature lists; the signature is verified now."""
        from edge.package.open import signed_paths

        return signed_paths(url, trust_dir=self._trust_dir, clock=self._clock, build_date=self._build_date)
