"""The caller of an RPC, or of what the agent does by itself: its deadline, its end, its metadata. `edge.rpc` has the calls."""

from collections.abc import Callable
from typing import Protocol


class Caller(Protocol):
    """A call, as handlers, loads and queues see it."""

    def time_remaining(self) -> float | None:
        """Seconds until its deadline; None where it has none."""
        ...

    def step_aside(self) -> bool:
        """Have another thread serve other calls, for this one may take a while; false if there is no thread for them."""
        ...

    def after_answer(self, callback: Callable[[], None]) -> None:
        """Have `callback` called by this thread as soon as the answer is on its way, or cannot be sent; at most one."""
        ...

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Have `callback` called when the call ends (cancelled, disconnected, its deadline, answered), from any thread.

        False where it has ended already. Another may follow once the one before is of no use any more; both may be called then.
        """
        ...

    def metadata(self, key: str) -> str | None:
        """The first value of a key in the call's metadata; None where it has none."""
        ...

    def trail(self, key: str, value: str) -> None:
        """Send a key and its value after the answer, whatever that is; before it is given."""
        ...


class Nobody:
    """The caller of what the agent does by itself: it has no deadline, does not end, and gets no answer."""

    def time_remaining(self) -> None:
        """There is no deadline."""

    def step_aside(self) -> bool:
        """Nobody is kept waiting."""
        return True

    def after_answer(self, callback: Callable[[], None]) -> None:
        """There is no answer."""
        callback()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """It does not end."""
        return True

    def metadata(self, key: str) -> None:
        """There is none."""

    def trail(self, key: str, value: str) -> None:
        """There is no answer."""
