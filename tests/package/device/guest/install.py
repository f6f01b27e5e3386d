"""Installing, the unit, clients."""

import ctypes
import re
import sys
from pathlib import Path

from harness import (
    APT,
    CLIENT,
    MODELS,
    NAME,
    SET,
    SOCKET,
    STAGE,
    STATE,
    TRUST,
    UNIT,
    before,
    check,
    client,
    eventually,
    journal,
    load,
    picture,
    record_files,
    records,
    restart,
    run,
    show,
    snapshot,
)

# --- installing ---------------------------------------------------------------


@check("apt-get update takes the signed repository")
def _() -> None:
    Path("/etc/apt/sources.list").unlink(missing_ok=True)
    for old in Path("/etc/apt/sources.list.d").iterdir():
        old.unlink()
    before.update(snapshot())
    key = Path(f"/usr/share/keyrings/{NAME}.gpg")
    key.write_bytes((STAGE / f"repository/{NAME}.gpg").read_bytes())
    line = f"deb [signed-by={key}] file:{STAGE}/repository stable main\n"
    Path(f"/etc/apt/sources.list.d/{NAME}.list").write_text(line)
    assert "W:" not in run("apt-get", "update")


@check("apt-get install, and it runs: active, enabled, ready")
def _() -> None:
    run(*APT, "install", f"{NAME}={SET['version']}")
    assert show("ActiveState") == "active", journal()
    assert run("systemctl", "is-enabled", UNIT).strip() == "enabled"
    assert show("NRestarts") == "0"


@check("the socket belongs to the group, mode 0660, in a folder that others cannot enter")
def _() -> None:
    assert run("stat", "-c", "%U:%G %a", SOCKET, f"/run/{NAME}", STATE.as_posix()).split() == [
        f"{NAME}:sagemaker-edge", "660", f"{NAME}:sagemaker-edge", "750", f"{NAME}:sagemaker-edge", "750",
    ]  # fmt: skip
    assert run("getent", "passwd", NAME).strip().endswith("/usr/sbin/nologin")


@check("systemctl status has a line that a person understands")
def _() -> None:
    text = eventually(lambda: show("StatusText"), 15, "a status line")
    assert "0 models" in text and "captures waiting" in text, text


@check("exposure at most 1.5, and the unit verifies")
def _() -> None:
    print(run("systemd-analyze", "security", "--no-pager", "--threshold=16", UNIT).strip().splitlines()[-1])
    assert run("systemd-analyze", "verify", "--man=no", f"/lib/systemd/system/{UNIT}").strip() == ""


@check("the process has no capability, no new privileges and a system call filter")
def _() -> None:
    status = Path(f"/proc/{show('MainPID')}/status").read_text()
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in status, status


@check("the version is the package's, under each of its names")
def _() -> None:
    for word in (NAME, "sagemaker_edge_agent_binary"):
        assert run(word, "--version").strip() == SET["program_version"]
    assert "ListModels" in run(CLIENT, "--help")


# --- clients ------------------------------------------------------------------


@check("while no root is trusted, LoadModel is refused")
def _() -> None:
    run("useradd", "--create-home", "app")
    run("useradd", "--create-home", "other")
    run("usermod", "-aG", "sagemaker-edge", "app")
    run(
        "runuser",
        "-u",
        "app",
        "--",
        "cp",
        "-r",
        str(STAGE / "packages/digits"),
        str(STAGE / "packages/slow"),
        str(MODELS),
    )
    answer = client("LoadModel", str(MODELS / "digits"), "digits", ok=False)
    assert "exit 1" in answer and "FAILED_PRECONDITION" in answer, answer


@check("a client in the group loads a signed model")
def _() -> None:
    for root in (STAGE / "roots").glob("*.pem"):
        run("install", "-m", "0444", str(root), str(TRUST))
    load()
    assert "digits" in client("ListModels")


@check("it predicts inline and by shared memory, and the answer is 7")
def _() -> None:
    for word in ("Predict", "PredictSHM"):
        assert re.search(SET["answer"], text := picture(word)), text
    assert "shared memory" in picture("PredictSHM")


@check("the sandbox lets it ask whether the clock was ever set")
def _() -> None:
    timex = ctypes.create_string_buffer(512)
    state = ctypes.CDLL(None).adjtimex(timex)
    unset = state == 5 or int.from_bytes(timex[40:44], sys.byteorder) & 0x40  # linux/timex.h: TIME_ERROR, STA_UNSYNC
    assert ("the system clock is not synchronised" in journal()) == bool(unset), unset


@check("it captures, and the record is on disk, readable to the group")
def _() -> None:
    text = picture("PredictSHMAndCapture")
    capture = re.search(r"capture (\S+): (\w+)", text)
    assert capture and capture[2] == "SUCCESS", text
    assert [r["eventMetadata"]["eventId"] for r in records()].count(capture[1]) == 1
    record = record_files()[0]
    run("runuser", "-u", "app", "--", "cat", str(record))
    assert "exit 1" in run("runuser", "-u", "other", "--", "cat", str(record), ok=False)


@check("a client outside the group is refused")
def _() -> None:
    answer = picture("Predict", ok=False, user="other")
    assert answer.startswith("exit 3"), answer


@check("the agent never leaves a segment, and never removes a client's")
def _() -> None:
    run("runuser", "-u", "app", "-g", "sagemaker-edge", "--", "ipcmk", "-M", "4096", "-p", "0440")
    before_restart = run("ipcs", "-m")
    restart()
    assert "440" in before_restart and run("ipcs", "-m") == before_restart, before_restart
    load()
