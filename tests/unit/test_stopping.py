"""[X-4] One budget for the stop: the steps share it, and the specification and the unit say the same."""

import re
from pathlib import Path

from edge import stopping

ROOT = Path(__file__).parents[2]
SHARES = (
    stopping.WATCHDOG_SECONDS,
    stopping.GRACE_SECONDS,
    stopping.CANCELLED_SECONDS,
    stopping.THREADS_SECONDS,
    stopping.MODELS_SECONDS,
    stopping.KEEPER_SECONDS,
    stopping.CAPTURES_SECONDS,
)


def found(pattern: str, file: str) -> float:
    (number,) = re.findall(pattern, (ROOT / file).read_text().replace("\n", " "))
    return float(number)


def test_the_steps_share_the_budget() -> None:
    assert sum(SHARES) + stopping.CONNECTIONS_SECONDS <= stopping.STOP_SECONDS
    assert min(SHARES) >= 0.5


def test_the_specification_says_the_same() -> None:
    assert found(r"its own steps take (\d+) s at most", "docs/spec/process.md") == stopping.STOP_SECONDS
    assert found(r"that is not over (\d+) s after the signal", "docs/spec/process.md") == stopping.GRACE_SECONDS


def test_systemd_kills_after_the_budget_and_not_before() -> None:
    killed_after = found(r"TimeoutStopSec=(\d+)", "packaging/systemd/sagemaker-edge-agent.service")
    assert killed_after == found(r"ends with 0 within (\d+) s", "docs/spec/process.md") > stopping.STOP_SECONDS
