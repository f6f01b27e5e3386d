"""What a fleet's operator signs and what its devices tell: documents, a device's state, reports and heartbeats."""

import json
import tempfile
from contextlib import suppress
from pathlib import Path

from edge.fleet import document, overview, state
from edge.fleet.document import Device, Document, DocumentFault, Rule, Where, chosen
from edge.fleet.files import FolderFiles
from edge.fleet.page import page
from edge.fleet.state import Arrived, FleetState, StateFault

TOKENS = (b"packages/a/b.tar.gz", b"percent", b"1e999", b"-0.0", b"1" * 400, b"*?[!", b"..", b"</td>", b"\\u0000")
_OLD, _NEW = (
    Rule("packages/digits/1.0.tar.gz"),
    Rule("packages/digits/1.1.tar.gz", Where(10, "s", ("a*",), ("x",), "1.2")),
)
_DEVICE = Device("press-17", "x86_64", (1, 2))
_REPORT = {"device": "d", "at": 1795867200, "agent": "1", "models": {"digits": {"status": "failed", "reason": "<b>"}}}
_BEAT = {"at": 1795867200, "agent": "1", "models": {"digits": {"version": "digits 1.0", "predicted": 1}}}


def seeds() -> tuple[bytes, ...]:
    """Good ones."""
    known = FleetState(models={"digits": Arrived(_OLD.package, "0" * 64)}, bad={"1" * 64: "no"})
    made = (document.to_bytes(Document("d-1", {"digits": (_NEW, _OLD)})), state.to_bytes(known))
    return (*made, json.dumps(_REPORT).encode(), json.dumps(_BEAT).encode())


def check(data: bytes) -> None:
    """Nothing but faults that are named, and a page that is made."""
    with suppress(DocumentFault):
        one = document.parse(data)
        chosen(one, _DEVICE)
        assert document.parse(document.to_bytes(one)) == one
    with suppress(StateFault):
        known = state.parse(data)
        assert state.parse(state.to_bytes(known)) == known
    with tempfile.TemporaryDirectory() as folder:
        for place in ("heartbeats/f", "reports/f/n/failed", "reports/f/n/ok"):
            path = Path(folder, place, "d.json")
            path.parent.mkdir(parents=True)
            path.write_bytes(data)
        told = overview.read(FolderFiles(Path(folder)), "f")
        told.silent(1795867200.0)
        page([(told, Document("n", {}))], 1795867200.0).encode()
