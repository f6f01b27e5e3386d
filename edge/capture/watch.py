"""Whether to capture a call: the reasons of a policy, asked of each call of one model before its answer leaves (K-2, K-3).

Made when a model's requests are first understood, so that a model without a policy is asked nothing.
"""

import itertools
import logging
import math
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

from edge.capture.budget import Budget
from edge.capture.summaries import Collector
from edge.capture_policy import Policy
from edge.tensors import TensorSpec
from edge.text import shown

log = logging.getLogger(__name__)

_NEVER = math.inf


class Watch:
    """A policy at work on one model. Safe from any thread; times are monotonic seconds."""

    def __init__(
        self,
        alias: str,
        policy: Policy,
        budget: Budget,
        outputs: Sequence[TensorSpec],
        collector: Collector | None = None,
    ) -> None:
        """`outputs` are the model's, as applications see them; `collector`: what makes its summaries."""
        self.alias, self.policy, self.budget = alias, policy, budget
        self.collector = collector
        self.errors = policy.errors
        self._random = random.Random(policy.seed)  # noqa: S311 - a sample, no secret
        self._lock = threading.Lock()
        self._number = itertools.count(1).__next__  # of the call; one step of the interpreter
        self._part = policy.sample_percent / 100
        self._next_sample = self._gap() if self._part else _NEVER
        self._nth = policy.every_nth
        self._interval = 60.0 / policy.rate_per_minute if policy.rate_per_minute else _NEVER
        self._next_time = 0.0 if policy.rate_per_minute else _NEVER
        self._on_request = policy.on_request
        self._triggers: Any = None
        if policy.looks_at_outputs:
            from edge.capture.triggers import Triggers

            self._triggers = Triggers(policy, outputs)
            if self._triggers.position < 0:
                names = ", ".join(shown(spec.name) for spec in outputs)
                log.warning(
                    "model %s: its capture policy names output %s; its outputs are %s",
                    alias, shown(policy.output), names,
                )  # fmt: skip
        self._looks = bool(policy.on_request or policy.looks_at_outputs)

    def number(self, since: float) -> int:
        """The number of a call that began on the model at a time, or 0 where nothing of it is kept."""
        number = self._number()
        if (
            number < self._next_sample
            and since < self._next_time
            and not self._looks
            and (not self._nth or number % self._nth)
            and (self.collector is None or since < self.collector.next_sample)
        ):
            return 0
        return number

    def reasons(
        self, number: int, since: float, metadata: Callable[[str], str | None], outputs: Sequence[Any]
    ) -> tuple[str, ...] | None:
        """Why to capture the call of a `number`, or None; its `outputs` are not held afterwards."""
        if self.budget.spent:
            return None
        found = []
        if self._nth and not number % self._nth:
            found.append("every_nth")
        if self._on_request and metadata(self._on_request) is not None:
            found.append("on_request")
        with self._lock:
            if number >= self._next_sample:
                self._next_sample = number + self._gap()
                found.append("sample_percent")
            if since >= self._next_time:
                self._next_time = since + self._interval
                found.append("rate_per_minute")
            if self._triggers is not None:
                try:
                    found += self._triggers.reasons(outputs)
                except Exception:  # a defect in a reason must not cost the call its answer
                    log.exception("model %s: its outputs are no longer looked at for its capture policy", self.alias)
                    self._triggers = None
        return tuple(found) or None

    def _gap(self) -> int:
        """Calls until the next of the sample: of a geometric distribution, as if each were chosen by itself."""
        if self._part >= 1:
            return 1
        return 1 + int(math.log(1.0 - self._random.random()) / math.log1p(-self._part))
