"""Models that stay: versions that must not replace another, and those that are taken back by themselves."""

import json
import re
from pathlib import Path
from typing import Any

from harness import (
    SET,
    SLOW,
    SOCKET,
    STAGE,
    UNIT,
    check,
    client,
    configure,
    eventually,
    journal,
    restart,
    run,
    show,
    wait_active,
)

LATER, FAILING = "2.0", "5.0"

# --- models that stay -----------------------------------------------------------


def models(*words: str, ok: bool = True) -> str:
    """A command on declared models, as root."""
    return run("sagemaker-edge-agent", "models", *words, "-a", SOCKET, ok=ok)


def declare(version: str, ok: bool = True, wait: float = 60) -> str:
    """`models set`, as an installer has it."""
    package = f"{STAGE}/packages/division-{version}"
    return models("set", "division", package, "--copy", "--wait", str(int(wait * SLOW)), ok=ok)


def managed() -> Any:
    """What the agent says of the model."""
    return next(one for one in json.loads(models("list", "--json"))["models"] if one["name"] == "division")


def divide(divisor: int, ok: bool = True) -> str:
    """6 by a number, as a user's application has it."""
    Path("/tmp/numbers.json").write_text(json.dumps({"n": [6], "d": [divisor]}))
    return client("predict", "--json", "division", "/tmp/numbers.json", ok=ok)


def serves(version: str) -> bool:
    return bool(managed()["version"] == f"division {version}") and '"ok": true' in divide(3)


@check("a declared model serves after a restart, before any client has called")
def _() -> None:
    libraries = [str(path) for path in (STAGE / "delegates").glob("*.so")]
    configure(edge_delegate_paths=libraries)
    restart()
    declare("1.0")
    restart()
    assert managed()["why"] == "declared" and serves("1.0"), managed()


@check("a package that fails its self-test, crashes in its trial or hangs there never replaces what serves")
def _() -> None:
    pid = show("MainPID")
    print(f"{len(SET['refused'])} versions: {SET['refused']}")
    for version, words in SET["refused"].items():
        if version == LATER:
            continue
        # The one that hangs is given up by its caller; the agent itself waits 300 s for a delegate.
        answer = declare(version, ok=False, wait=15)
        assert answer.startswith("exit 1") and re.search(words, answer), answer
        assert "division is declared as before" in answer and serves("1.0"), answer
    restart()
    assert serves("1.0"), managed()
    assert show("NRestarts") == "0" and show("MainPID") != pid


@check("a version that crashes the agent some time after its switch is taken back by itself")
def _() -> None:
    if LATER not in SET["refused"]:
        print("not tried: there was no compiler for its delegate")
        return
    restarts = int(show("NRestarts"))
    declare(LATER)
    assert serves(LATER), managed()
    eventually(lambda: int(show("NRestarts")) == restarts + 2, 120, "it crashes twice")
    wait_active()
    assert serves("1.0"), f"{managed()}\n{journal()[-3000:]}"
    assert "ended 2 times before it had proved itself" in managed()["refused"], managed()
    restart()
    assert serves("1.0"), managed()  # the declaration still names the other


@check("a version whose inferences fail where the one before answers is taken back by itself")
def _() -> None:
    declare(FAILING)
    assert managed()["version"] == f"division {FAILING}" and '"ok": true' in divide(4), managed()
    assert '"ok": false' in divide(3, ok=False)
    eventually(lambda: managed()["version"] == "division 1.0", 60, "the version before serves again")
    assert serves("1.0") and "a call that the version before answers" in managed()["refused"], managed()


@check("a version with which the agent crashes twice is taken back by itself")
def _() -> None:
    declare("3.0")
    for expected in ("3.0", "1.0"):
        assert serves("3.0")
        restarts = int(show("NRestarts"))
        run("systemctl", "kill", "--kill-who=main", "-s", "KILL", UNIT)
        eventually(lambda before=restarts: int(show("NRestarts")) > before, 60, "systemd restarts it")
        wait_active()
        assert serves(expected), f"{managed()}\n{journal()[-3000:]}"
    assert "ended 2 times before it had proved itself" in managed()["refused"], managed()
    models("forget", "division")
    configure(edge_delegate_paths=None)
    restart()
