"""What the checks of the installed package share: commands, the client, the unit, waiting, and running the checks.

Runs as root inside the booted machine, on Python's own library only. What it works on is in /srv/test, put there by
../stage.py.
"""

import json
import os
import re
import subprocess
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

STAGE = Path("/srv/test")
SET = json.loads((STAGE / "settings.json").read_text())
NAME = "sagemaker-edge-agent"
UNIT = f"{NAME}.service"
SOCKET = f"/run/{NAME}/agent.sock"
STATE = Path(f"/var/lib/{NAME}")
MODELS = Path("/var/lib/sagemaker-edge-models")
CONFIG = Path(f"/etc/{NAME}/config.json")
TRUST = Path(f"/etc/{NAME}/trust")
DROP_INS = Path(f"/etc/systemd/system/{UNIT}.d")
CLIENT = "sagemaker_edge_agent_client_example"
APT = ["apt-get", "-qq", "-y", "-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
WATCHDOG_SECONDS = SET["watchdog_seconds"]
SLOW = SET["patience"]  # how many times slower than a PC this machine is

INSTALLING = 2  # the first checks; without them the rest is not tried

checks: list[tuple[str, Callable[[], Any]]] = []
before: set[str] = set()  # the paths that were there before the first install


def check(text: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Adds a check; they run in the order of the file."""

    def add(function: Callable[[], Any]) -> Callable[[], Any]:
        checks.append((text, function))
        return function

    return add


def run(*words: str, ok: bool = True, seconds: float = 120, env: dict[str, str] | None = None) -> str:
    """What a command says; with `ok` its failure is an error."""
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds * SLOW,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", **(env or {})},
        check=False,
    )
    assert not ok or done.returncode == 0, f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}"
    return done.stdout if ok else f"exit {done.returncode}\n{done.stdout}"


def client(*words: str, user: str = "app", ok: bool = True, socket: str = SOCKET) -> str:
    """The command-line client as a user of the machine."""
    return run("runuser", "-u", user, "--", CLIENT, *words, ok=ok, env={"SAGEMAKER_EDGE_SOCKET": socket})


def show(what: str) -> str:
    return run("systemctl", "show", "-P", what, UNIT).strip()


def journal() -> str:
    run("journalctl", "--sync")
    return run("journalctl", "-u", UNIT, "-o", "cat", "--no-pager")


def eventually(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Ask until it is true; `seconds` are a PC's."""
    end = time.monotonic() + seconds * SLOW
    while not (answer := condition()):
        assert time.monotonic() < end, f"not within {seconds * SLOW:.0f} s: {what}\n{journal()[-3000:]}"
        time.sleep(0.2)
    return answer


def wait_active() -> None:
    eventually(lambda: show("ActiveState") == "active" and show("SubState") == "running", 60, "the unit is active")


def drop_in(name: str, text: str) -> None:
    DROP_INS.mkdir(parents=True, exist_ok=True)
    (DROP_INS / f"{name}.conf").write_text(text)
    run("systemctl", "daemon-reload")


def no_drop_in(name: str) -> None:
    (DROP_INS / f"{name}.conf").unlink()
    run("systemctl", "daemon-reload")


def configure(**values: Any) -> None:
    """Changes settings; None takes one away."""
    own = ("edge_",)  # keys without the original agent's prefix
    given = {key if key.startswith(own) else f"sagemaker_edge_{key}": value for key, value in values.items()}
    config = json.loads(CONFIG.read_text()) | given
    CONFIG.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def restart() -> None:
    answer = run("systemctl", "restart", UNIT, ok=False)
    assert answer.startswith("exit 0"), answer + journal()[-3000:]
    wait_active()


def load(name: str = "digits", package: str = "digits") -> None:
    client("LoadModel", str(MODELS / package), name)


def picture(word: str, ok: bool = True, user: str = "app") -> str:
    """One of the original client's Predict words on the picture of a 7."""
    return client(word, "digits", str(STAGE / "seven.bmp"), SET["input"], "8", "8", "1", ok=ok, user=user)


def snapshot() -> set[str]:
    """Every path that a package could leave behind."""
    places = ("/etc", "/usr", "/var", "/opt", "/run")
    ignored = re.compile(
        r"/var/(log|cache|lib/(dpkg|apt|systemd))(/|$)|/run/(systemd|log|udev|user|mount|credentials)(/|$)"
        r"|/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$|/etc/\.pwd\.lock$|/etc/ld\.so\.cache$|__pycache__|/var/tmp/"
    )
    found = set()
    for place in places:
        for folder, folders, files in os.walk(place):
            found |= {path for name in folders + files if not ignored.search(path := f"{folder}/{name}")}
    return found


def record_files() -> list[Path]:
    """The captured files on disk, without what waits beside them."""
    return [file for file in (STATE / "captures").rglob("*.jsonl") if ".spool" not in file.parts]


def records() -> list[dict[str, Any]]:
    """Every captured record on disk."""
    return [json.loads(line) for file in record_files() for line in file.read_text().splitlines()]


def run_checks() -> int:
    """Runs every check, a line each and `N passed, N failed` last; a failed one does not stop the rest."""
    passed = failed = 0
    machine = run("uname", "-srm").strip()
    print(
        f"{machine}, {run('systemctl', '--version').splitlines()[0]}, Debian {Path('/etc/debian_version').read_text().strip()}"
    )
    for text, function in checks:
        start = time.monotonic()
        try:
            function()
            passed += 1
            print(f"ok    {text} [{time.monotonic() - start:.1f} s]", flush=True)
        except Exception as error:
            failed += 1
            where = traceback.extract_tb(error.__traceback__)[-1].lineno
            print(f"FAIL  {text} (line {where})\n      " + str(error)[-4000:].replace("\n", "\n      "), flush=True)
        if failed and passed + failed <= INSTALLING:
            failed = len(checks) - passed  # nothing else can hold
            break
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0
