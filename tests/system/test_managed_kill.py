"""kill -9 at any moment of a change of declared models, or of a start: the old version or the new one serves, and nothing is left over.

MODELS_KILLS says how often (25), MODELS_KILLS_SEED from which number on.
"""

import os
import random
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc

from tests.system.harness import EVENT_PATIENCE
from tests.system.managed import Site, adder

KILLS = int(os.environ.get("MODELS_KILLS", "25"))
SEED = int(os.environ.get("MODELS_KILLS_SEED", "1"))
CHANGE_SECONDS = 0.5 * EVENT_PATIENCE  # a change takes less
START_SECONDS = 2.0 * EVENT_PATIENCE


def test_kills(agents: Any, signer: Any, tmp_path: Path) -> None:  # [M-6] [W-7] [L-9]
    chance = random.Random(SEED)
    site = Site.made(agents, tmp_path)
    packages = [adder(signer, f"1.{n}", n, tmp_path) for n in range(3)]
    site.declare("add", packages[0])
    site.agent.start()
    moment = threading.Event()  # never set: what is waited for is the moment of the kill
    for number in range(KILLS):
        what = chance.choice(("set", "set", "rollback", "start"))
        if what == "start":
            site.agent.kill()
            site.agent.begin(force=True)
            moment.wait(chance.uniform(0, START_SECONDS))
            site.agent.kill()
        else:
            if what == "set":
                site.declare("add", chance.choice(packages))
            change = threading.Thread(target=_change, args=(site, what))
            change.start()
            moment.wait(chance.uniform(0, CHANGE_SECONDS))
            site.agent.process.kill()  # type: ignore[union-attr]
            change.join()
            site.agent.kill()
        site.agent.start(force=True)
        where = f"kill {number} (seed {SEED}), during {what}:\n{site.agent.log[-5000:]}"
        assert site.added("add") in (0, 1, 2), where
        assert 1 <= len(site.packages()) <= 3, where
    site.declare("add", packages[1])
    assert site.apply("add", retry=True)["add"].refused == ""
    assert site.added("add") == 1


def _change(site: Site, what: str) -> None:
    with suppress(grpc.RpcError):
        if what == "set":
            site.apply("add", retry=True)
        else:
            site.rollback("add")
