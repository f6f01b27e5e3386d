"""A fleet to test with: an operator's repository with keys, a server that can be bent, and devices that serve nothing real."""

import datetime
import hashlib
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge.cloud.aws.answer import Patience
from edge.cloud.aws.dialling import Peer
from edge.cloud.aws.transport import Transport
from edge.deploy.declaration import Declaration
from edge.deploy.managed import Managed
from edge.deploy.state import Version
from edge.fleet import rollout
from edge.fleet.device import Fleet
from edge.fleet.document import Device, Where
from edge.fleet.files import FolderFiles
from edge.fleet.keys import Keys
from edge.fleet.membership import Outcome, Settings
from edge.fleet.repository import FleetRepository
from edge.fleet.source import Folder, Source
from edge.fleet.web import Web as FleetWeb
from tests.fakes.clock import FakeClock
from tests.fakes.web import Handler, Web

FLEET = "plant-north"
NOW = datetime.datetime(2026, 11, 28, 12, 0, 0, tzinfo=datetime.UTC)
DAY = 86_400.0
PATIENCE = Patience(2.0, 2.0, 5.0)


class Operator:
    """A repository with a fleet, and its keys; what it does is written at once."""

    def __init__(self, folder: Path, keys: Path, clock: FakeClock) -> None:
        self.folder, self.keys, self.clock = folder, keys, clock
        self.fleet = FLEET
        self._made = 0

    def open(self) -> FleetRepository:
        """The repository, now."""
        now = datetime.datetime.fromtimestamp(self.clock.now(), datetime.UTC)
        return FleetRepository(FolderFiles(self.folder), Keys(self.keys, None), now)

    def act(self, what: Callable[[FleetRepository], Any]) -> Any:
        """Do something, and write it."""
        repository = self.open()
        result = what(repository)
        repository.write()
        return result

    @classmethod
    def made(cls, home: Path, clock: FakeClock, fleet: str = FLEET) -> "Operator":
        """A new repository with the fleet."""
        operator = cls(home / "repo", home / "keys", clock)
        operator.fleet = fleet
        operator.act(lambda repository: repository.init())
        operator.act(lambda repository: repository.add_fleet(fleet))
        return operator

    def publish(self, version: str, data: bytes | None = None, name: str = "digits") -> str:
        """A package of any bytes."""
        self._made += 1
        archive = self.folder.parent / f"made-{self._made}.tar.gz"
        archive.write_bytes(data if data is not None else hashlib.sha256(f"{name} {version}".encode()).digest() * 2000)
        return str(self.act(lambda repository: repository.publish(archive, name, version)))

    def deploy(
        self, name: str, packages: Mapping[str, str] | str, where: Where | None = None, *, rollback: bool = True
    ) -> None:
        """A deployment; a version stands for that of the alias digits."""
        if isinstance(packages, str):
            packages = {"digits": f"packages/digits/{packages}.tar.gz"}

        def change(repository: FleetRepository) -> None:
            before = repository.document(self.fleet)
            repository.deploy(self.fleet, rollout.deploy(before, name, packages, where or Where(), rollback=rollback))

        self.act(change)

    def timestamp(self) -> None:
        """The daily duty."""
        self.act(lambda repository: repository.timestamp())

    @property
    def root(self) -> Path:
        """What devices get."""
        return self.folder / "metadata" / "1.root.json"


class _Files(Handler):
    def do_GET(self) -> None:
        owner: FleetServer = self.server.owner  # type: ignore[attr-defined]
        name = self.path.lstrip("/")
        owner.asked.append((name, dict(self.headers.items())))
        for pattern, bend in owner.bent.items():
            if re.search(pattern, name):
                bend(self, name)
                return
        self.send_file(owner.root / name)

    def send_file(self, path: Path, most: int | None = None) -> None:
        """A file, or what is asked of it; with `most`, the connection breaks after so many bytes."""
        if not path.is_file():
            self.answer(404)
            return
        data = path.read_bytes()
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        if self.headers.get("If-None-Match") == tag:
            self.answer(304, b"", {"ETag": tag})
            return
        span = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(span[1]) if span else 0
        headers = {"ETag": tag, "Content-Length": str(len(data) - start)}
        if span:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.answer(206 if span else 200, data[start:] if most is None else data[start : start + most], headers)
        if most is not None:
            self.close_connection = True


class FleetServer(Web):
    """A static server with ETag and Range; `bent` has what answers otherwise, by a pattern of paths."""

    handler = _Files

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.bent: dict[str, Callable[[Any, str], None]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def now(self) -> float:
        return NOW.timestamp()


def gives(data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Callable[[Any, str], None]:
    """An answer of those bytes."""
    return lambda handler, name: handler.answer(status, data, headers)


def endless(handler: Any, name: str) -> None:
    """An answer that does not end."""
    handler.send_response_only(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while not handler.server.owner.closing.is_set():
        handler.wfile.write(b"10000\r\n" + b"A" * 65536 + b"\r\n")


class StubDeployments:
    """What `edge.deploy` does, without models: what is declared serves if its archive is there and `judge` likes it."""

    def __init__(self, declared: Callable[[], Mapping[str, Declaration]], models_path: Path) -> None:
        self.declared = declared
        self.models_path = models_path
        self.judge: Callable[[str, Path], str] = lambda alias, path: ""
        self.aliases: dict[str, Managed] = {}
        self.passing = self.untrusted = False

    def get(self, name: str) -> Managed | None:
        return self.aliases.get(name)

    def pin(self, name: str, *, pinned: bool = True) -> None:
        """Have models.d declare an alias."""
        self.models_path.mkdir(parents=True, exist_ok=True)
        place = self.models_path / f"{name}.json"
        place.write_text('{"package": "/somewhere"}') if pinned else place.unlink()

    def apply(self, names: Any, caller: Any, *, retry: bool = False) -> list[Managed]:
        found = self.declared()
        return [self._settle(name, found.get(name)) for name in names]

    def _settle(self, name: str, declared: Declaration | None) -> Managed:
        one = self.aliases.setdefault(name, Managed(name))
        one.refused, one.passing, one.untrusted = "", False, False
        if declared is None:
            self.aliases.pop(name)
            return one
        known = next((v for v in one.state.versions() if v.package == declared.package), None)
        if known is None:
            path = Path(declared.package)
            one.refused = self.judge(name, path) if path.is_file() else "there is no package"
            one.passing = bool(one.refused) and self.passing
            one.untrusted = bool(one.refused) and self.untrusted
        if not one.refused:
            made = known or Version(
                hashlib.sha256(declared.package.encode()).hexdigest(), declared.package, "digits", "1", 0.0
            )
            one.state.try_out(made)
        one.serves = one.state.serving is not None
        return one

    def commit(self) -> None:
        """Everything proves itself."""
        for one in self.aliases.values():
            one.state.commit()

    def take_back(self, name: str, reason: str) -> None:
        """W-6 or W-7."""
        self.aliases[name].state.go_back(reason)


def connect(url: str, clock: FakeClock) -> FleetWeb:
    """The real client of a server."""
    return FleetWeb(url, Transport(Peer.of(url, None), RealClock(clock), PATIENCE))


class FleetDevice:
    """A device with the real client and a stub of what serves."""

    def __init__(self, home: Path, operator: Operator, name: str = "press-17", **more: Any) -> None:
        self.home, self.operator = home, operator
        self.clock = operator.clock
        self._name, self._more = name, more
        self.ended: list[Outcome] = []
        self.on_outcome: Callable[[Outcome], None] = self.ended.append
        self.start()

    def start(self) -> None:
        """A run begins; what serves is as it was."""
        settings = {
            "fleet": FLEET,
            "device": Device(self._name, "x86_64", (1, 20261128)),
            "root": self.operator.root,
            "folder": self.home / "fleet",
            "build_date": int(NOW.timestamp() - 30 * DAY),
            **self._more,
        }
        before = getattr(self, "serving", None)
        self.settings = Settings(**settings)
        self.fleet = Fleet(self.settings, self.clock, lambda count: None, self._outcome)
        self.serving = StubDeployments(self.fleet.declared, self.home / "models.d")
        if before is not None:
            self.serving.aliases, self.serving.judge = before.aliases, before.judge
        self.fleet.serve(self.serving)  # type: ignore[arg-type]

    def _outcome(self, outcome: Outcome) -> None:
        self.on_outcome(outcome)

    def poll(self, server: FleetServer | Path | None = None) -> bool:
        """A round."""
        where = server or self.operator.folder
        source: Source
        if isinstance(where, Path):
            source, name = Folder(where), str(where)
        else:
            source, name = (
                FleetWeb(where.url, Transport(Peer.of(where.url, None), RealClock(self.clock), PATIENCE)),
                where.url,
            )
        try:
            return self.fleet.round(source, name)
        finally:
            source.close()

    @property
    def runs(self) -> dict[str, str]:
        """The package of each alias that serves, as NAME/VERSION."""
        models = self.fleet.state.models
        return {alias: one.package.removeprefix("packages/").removesuffix(".tar.gz") for alias, one in models.items()}

    @property
    def litter(self) -> set[str]:
        """Files of the device's folder that are not metadata, by name."""
        folder = self.home / "fleet"
        return {p.name for p in folder.rglob("*") if p.is_file() and "tuf" not in p.parts} - {"state.json"}


class RealClock:
    """The test's clock, but for waits and time spans of a connection, which are real."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    def now(self) -> float:
        return self._clock.now()

    def synchronised(self) -> bool:
        return self._clock.synchronised()

    def monotonic(self) -> float:
        import time

        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(seconds)
