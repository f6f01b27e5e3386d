"""Removing, and repositories that were tampered with."""

import gzip
import shutil
from pathlib import Path
from typing import Any

from harness import APT, CONFIG, DROP_INS, NAME, SET, STAGE, UNIT, before, check, records, run, snapshot, wait_active

# --- removing -------------------------------------------------------------------


@check("remove keeps configuration and captures; installing again finds them")
def _() -> None:
    edited, kept = CONFIG.read_text(), len(records())
    run(*APT, "remove", NAME)
    assert not Path(f"/usr/bin/{NAME}").exists() and not Path(f"/run/{NAME}").exists()
    assert CONFIG.read_text() == edited and len(records()) == kept > 0
    run(*APT, "install", f"{NAME}={SET['version']}")
    wait_active()
    assert CONFIG.read_text() == edited and len(records()) == kept


@check("purge leaves nothing but the accounts")
def _() -> None:
    run(*APT, "purge", NAME)
    ours = {path for path in snapshot() - before if "/home" not in path}
    known = {str(DROP_INS), f"/usr/share/keyrings/{NAME}.gpg", f"/etc/apt/sources.list.d/{NAME}.list"}
    left = {p for p in ours - known if not p.startswith(("/var/mail/", "/var/spool/mail/"))}
    assert not left, sorted(left)
    assert "could not be found" in run("systemctl", "status", UNIT, ok=False)


def tampered(change: Any) -> str:
    """What apt says of the repository after `change` of a copy of it."""
    copy = Path("/srv/tampered")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(STAGE / "repository", copy)
    line = f"deb [signed-by=/usr/share/keyrings/{NAME}.gpg] file:{copy} stable main\n"
    Path(f"/etc/apt/sources.list.d/{NAME}.list").write_text(line)
    shutil.rmtree("/var/lib/apt/lists")
    change(copy)
    return run("apt-get", "update", ok=False) + run(*APT, "install", NAME, ok=False)


@check("a changed repository is refused: its index, its package, another key")
def _() -> None:
    def index(copy: Path) -> None:
        for file in copy.glob("dists/stable/main/*/Packages*"):
            text = (gzip.decompress if file.suffix == ".gz" else bytes)(file.read_bytes())
            text = text.replace(b"Installed-Size: ", b"Installed-Size: 1")
            file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)

    def package(copy: Path) -> None:
        [deb] = copy.glob("pool/main/*.deb")
        data = bytearray(deb.read_bytes())
        data[len(data) // 2] ^= 1
        deb.write_bytes(data)

    def key(copy: Path) -> None:
        (copy / "dists/stable/InRelease").write_bytes((STAGE / "InRelease-of-another-key").read_bytes())
        (copy / "dists/stable/Release.gpg").unlink()

    for change, reason in ((index, "Hash Sum mismatch"), (package, "Hash Sum mismatch"), (key, "NO_PUBKEY")):
        answer = tampered(change)
        assert reason in answer and "exit 100" in answer, answer
        assert not Path(f"/usr/bin/{NAME}").exists()
    assert "Hash" not in tampered(lambda copy: None)
    assert Path(f"/usr/bin/{NAME}").exists()
