"""kill -9 at any moment of a rollout: the old version or the new one serves, nothing goes back, and the last one arrives.

FLEET_KILLS says how often (12), FLEET_KILLS_SEED from which number on.
"""

import json
import os
import random
import threading
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata

from tests.fakes.clock import FakeClock
from tests.fakes.fleet import Operator
from tests.system.fleet import FLEET, Member, archive
from tests.system.harness import EVENT_PATIENCE

KILLS = int(os.environ.get("FLEET_KILLS", "12"))
SEED = int(os.environ.get("FLEET_KILLS_SEED", "1"))
LONGEST_SECONDS = 1.2 * EVENT_PATIENCE  # from a start to the end of a round, mostly


def test_kills(agents: Any, signer: Any, tmp_path: Path) -> None:  # [F-5] [F-7] [F-9]
    chance = random.Random(SEED)
    operator = Operator.made(tmp_path, FakeClock(_now()), FLEET)
    for n in range(4):
        package = archive(signer, f"1.{n}", n, tmp_path)
        operator.act(lambda repository, n=n, package=package: repository.publish(package, "adder", f"1.{n}"))
    member = Member.of(agents, tmp_path, str(operator.root), str(operator.folder))
    seen: dict[str, int] = {}
    moment = threading.Event()  # never set: what is waited for is the moment of the kill
    wanted = 0
    for number in range(KILLS):
        if number % 3 == 0:
            wanted = (wanted + 1) % 4
            operator.deploy(f"n-{number + 1}", {"add": f"packages/adder/1.{wanted}.tar.gz"})
        member.agent.begin(force=True)
        moment.wait(chance.uniform(0.2, 1) * LONGEST_SECONDS)
        member.agent.kill()
        _check(member, tmp_path / "fleet", seen)
    package = archive(signer, "2.0", 7, tmp_path)
    operator.act(lambda repository: repository.publish(package, "adder", "2.0"))
    operator.deploy("n-last", {"add": "packages/adder/2.0.tar.gz"})
    member.agent.start(force=True)
    member.until_any("n-last")
    assert member.added("add") == 7
    assert len(member.packages()) <= 3
    assert not [path for path in (tmp_path / "fleet").rglob("*") if path.suffix in (".part", ".tmp", ".gz")]


def _now() -> float:
    import time

    return time.time()


def _check(member: Member, folder: Path, seen: dict[str, int]) -> None:
    """What is on the disk is whole, and no version of metadata has gone back."""
    if (folder / "state.json").exists():
        json.loads((folder / "state.json").read_bytes())
    for path in (folder / "tuf").glob("*.json"):
        version = Metadata.from_bytes(path.read_bytes()).signed.version
        assert version >= seen.get(path.name, 0), f"{path.name} went back (seed {SEED})"
        seen[path.name] = version
