"""`doctor` on a fleet: its root of trust, its repository, room for packages, and how the last round ended (F-23)."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge import durable
from edge.client import show
from edge.client.findings import Finding, fail, ok, warn
from edge.clock import SystemClock
from edge.config import Config
from edge.errors import EdgeError
from edge.package.trust_folder import weakness
from edge.text import counted

ROOT, REPOSITORY, FOLDER, ROUND = "fleet's root", "fleet's repository", "fleet's folder", "fleet"
EXPIRES_SOON_DAYS = 60
LOW_BYTES = 64 << 20  # free for packages, below which doctor warns
STALE_SECONDS = 86_400.0  # since the last round that went through, where the last one failed
_DAY = 86_400.0
_HISTORY = re.compile(r"([0-9]{1,9})\.root\.json")


def check_fleet(config: Config, agent: int) -> Iterator[Finding]:
    """What the agent's user `agent` needs to take models from a fleet; nothing where it is in none."""
    if not config.edge_fleet_root:
        return
    yield from check_root(Path(config.edge_fleet_root), Path(config.edge_fleet_path), agent, SystemClock().now())
    yield from check_room(Path(config.edge_fleet_path), agent)
    if config.edge_fleet_repository:
        yield from check_repository(config)


def check_root(place: Path, folder: Path, user: int, now: float) -> Iterator[Finding]:
    """The installed root of trust is one, is locked (F-16), and the newest that follows from it has not ended."""
    from edge.fleet.device import MAX_ROOT_BYTES

    fix = "put the repository's metadata/1.root.json there, mode 0444"
    try:
        real = Path(os.path.realpath(place, strict=True))
        found = weakness(real, user)
        with durable.reader(real) as file:
            data = file.read(MAX_ROOT_BYTES + 1)
        readable = user in (0, os.geteuid()) or _may_read(real, user)
    except OSError as error:
        yield fail(ROOT, f"{place}: {durable.why(error)}", fix)
        return
    if found:
        text, _, command = found.partition("; run: ")
        yield fail(ROOT, text, command)
    if not readable:
        yield fail(ROOT, f"the agent's user {user} may not read {place}", f"chmod a+r {place}")
    root = _parsed(data)
    if root is None:
        yield fail(ROOT, f"{place} is no root file of a fleet", fix)
        return
    newest = _newest(folder, root)
    role, stamp = newest.roles["root"], newest.roles["timestamp"]
    days = (newest.expires.timestamp() - now) / _DAY
    text = (
        f"version {newest.version} (installed: {root.version}), {role.threshold} of {counted(len(role.keyids), 'key')}, "
        f"timestamp by {stamp.threshold} of {len(stamp.keyids)}"
    )
    if days < 0:
        yield fail(ROOT, f"{text}; it ended {-days:.0f} days ago", "fleet renew root, at the operator's")
    elif days < EXPIRES_SOON_DAYS:
        yield warn(ROOT, f"{text}; it ends in {days:.0f} days", "fleet renew root, at the operator's")
    elif role.threshold < 2:
        yield warn(ROOT, f"{text}: who steals one key has the fleet", "sign the root with 2 keys of 3")
    else:
        yield ok(ROOT, f"{text}, {days:.0f} days left")


def _may_read(path: Path, user: int) -> bool:
    state = path.stat()
    return bool(state.st_mode & 0o004) or (state.st_uid == user and bool(state.st_mode & 0o400))


def _parsed(data: bytes) -> Any:
    """The root that a file has, as python-tuf reads it; None where it has none."""
    from edge.fleet.metadata import root_of

    try:
        return root_of(data)
    except EdgeError:
        return None


def _newest(folder: Path, root: Any) -> Any:
    """The newest root that the agent has followed; each was verified before it was kept."""
    try:
        names = os.listdir(folder / "tuf/root_history")  # noqa: PTH208 (names are enough)
    except OSError:
        return root
    for version in sorted((int(found[1]) for name in names if (found := _HISTORY.fullmatch(name))), reverse=True):
        try:
            with durable.reader(folder / f"tuf/root_history/{version}.root.json") as file:
                kept = _parsed(file.read())
        except OSError:
            continue
        if kept is not None and kept.version >= root.version:
            return kept
    return root


def check_room(folder: Path, agent: int) -> Iterator[Finding]:
    """What comes from the fleet has a place, with room."""
    from edge.fleet.packages import MIN_FREE_BYTES

    there = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        yield warn(FOLDER, f"{folder} cannot be examined: {durable.why(error)}", "run doctor as the agent's user")
        return
    text = f"{folder}, {show.size(free)} free"
    if not there.is_dir():
        yield fail(FOLDER, f"{there} is not a folder", "choose another edge_fleet_path")
    elif free < MIN_FREE_BYTES:
        yield fail(FOLDER, f"{text}; no package is fetched below {show.size(MIN_FREE_BYTES)}", "free some disk space")
    elif not os.access(there, os.W_OK | os.X_OK):
        finding = fail if agent == os.geteuid() else warn
        yield finding(FOLDER, f"you may not write to {there}", "see that the agent's user may")
    elif free < LOW_BYTES:
        yield warn(FOLDER, f"{text}; a larger package will not be fetched", "free some disk space")
    else:
        yield ok(FOLDER, text)


def check_repository(config: Config) -> Iterator[Finding]:
    """The repository answers, from here and now, and what it has is no older than a timestamp may be."""
    from edge.fleet.device import MAX_TIMESTAMP_BYTES, TIMESTAMP
    from edge.fleet.metadata import timestamp_of
    from edge.fleet.source import Folder, Source, folder_of, read
    from edge.fleet.web import connect

    clock, name = SystemClock(), config.edge_fleet_repository
    folder = folder_of(name)
    way = ""
    try:
        source: Source
        if folder is not None:
            source = Folder(folder)
        else:
            web = source = connect(name, clock, config)
            way = f", through the proxy {web.proxy}" if web.proxy else ""
        try:
            stamp = timestamp_of(read(source, TIMESTAMP, MAX_TIMESTAMP_BYTES))
        finally:
            source.close()
    except EdgeError as error:
        hint = "look at the network, edge_fleet_repository, and the service's HTTPS_PROXY, NO_PROXY and credentials"
        yield fail(REPOSITORY, f"{name}{way}: {error}", hint)
        return
    left = (stamp.expires.timestamp() - clock.now()) / _DAY
    text = f"{name}{way}: timestamp {stamp.version}"
    if left < 0:
        why = f"{text} ended {-left:.1f} days ago: boards take nothing new"
        yield fail(REPOSITORY, why, "fleet timestamp, at the operator's, daily; or set this machine's clock")
    else:
        yield ok(REPOSITORY, f"{text}, {left:.0f} days left")


def standing(one: Any, now: float) -> Iterator[Finding]:
    """How the last round of the agent that runs ended; `one` is its FleetStatus, `now` seconds since the epoch."""
    refused = [f"{model.name}: {model.refused}" for model in one.models if model.refused]
    if refused:
        yield fail(ROUND, f"a model is refused: {'; '.join(refused)}", "publish another version, or take this one back")
    if one.last_error:
        since = now - one.checked_unix_seconds if one.checked_unix_seconds else None
        ago = f"the last round that went through was {show.duration(since)} ago" if since is not None else ""
        text = f"{one.last_error}; {ago or 'no round has gone through in this run'}"
        finding = warn if since is not None and since < STALE_SECONDS else fail
        yield finding(ROUND, text, "see the findings above; then: sagemaker-edge-agent fleet check")
    elif not refused:
        ago = f"{show.duration(now - one.checked_unix_seconds)} ago" if one.checked_unix_seconds else "not in this run"
        what = f"deployment {one.deployment}, {one.state}" if one.deployment else "nothing was deployed yet"
        yield ok(ROUND, f"{what}; last round {ago}" + (f", judged by {one.judged_by}" if one.judged_by else ""))
