"""What is done once a second beside serving: one duty that fails keeps none of the others from being done."""

import logging
import threading
from collections.abc import Callable, Sequence

from edge.clock import Clock

log = logging.getLogger(__name__)

HOUSEKEEPING_SECONDS = 1.0


def keep_house(clock: Clock, stop: threading.Event, duties: Sequence[Callable[[], None]]) -> None:
    """Do each duty once a second until `stop`; what fails is logged, the same of the same duty once."""
    said: dict[int, str] = {}
    while not clock.wait(stop, HOUSEKEEPING_SECONDS):
        for number, duty in enumerate(duties):
            try:
                duty()
            except Exception as error:
                if said.get(number) != repr(error):
                    log.error("housekeeping failed", exc_info=error)
                    said[number] = repr(error)
