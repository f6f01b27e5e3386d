"""Configuration, upgrade, other ways to run."""

import json
import re
import subprocess
from pathlib import Path

from harness import (
    APT,
    CLIENT,
    CONFIG,
    MODELS,
    NAME,
    SET,
    SLOW,
    SOCKET,
    STAGE,
    UNIT,
    check,
    client,
    configure,
    drop_in,
    eventually,
    load,
    no_drop_in,
    picture,
    restart,
    run,
    show,
    wait_active,
)

# --- configuration, upgrade, other ways to run ----------------------------------


@check("reinstalling keeps the edited configuration")
def _() -> None:
    configure(core_device_name="press-17", core_capture_data_push_period_seconds=1)
    no_drop_in("test")
    edited = CONFIG.read_text()
    run(*APT, "install", "--reinstall", f"{NAME}={SET['version']}")
    assert CONFIG.read_text() == edited
    wait_active()


class Caller:
    """An application that predicts again and again, and loads its model when a restarted agent does not have it."""

    def __enter__(self) -> "Caller":
        script = (
            "while [ ! -e /tmp/enough ]; do\n"
            f"  if answer=$({CLIENT} predict digits {STAGE}/seven.bmp 2>&1); then\n"
            "    echo \"$answer\" | head -2 | tr '\\n' ' '; echo\n"
            f"  else {CLIENT} load {MODELS}/digits digits >/dev/null 2>&1 || echo 'not there'; fi\n"
            "done\n"
        )
        Path("/tmp/enough").unlink(missing_ok=True)
        self.output = Path("/tmp/caller")
        with self.output.open("w") as output:
            self.process = subprocess.Popen(["runuser", "-u", "app", "--", "sh", "-c", script], stdout=output)
        eventually(lambda: self.answers() >= 2, 60, "the caller gets answers")
        return self

    def answers(self) -> int:
        return len(re.findall(SET["answer"], self.output.read_text()))

    def __exit__(self, *_: object) -> None:
        Path("/tmp/enough").touch()
        self.process.wait(120 * SLOW)


@check("an upgrade while a client is predicting: it goes on with right answers")
def _() -> None:
    run("sed", "-i", "s#/repository #/repository-next #", f"/etc/apt/sources.list.d/{NAME}.list")
    run("apt-get", "-qq", "update")
    with Caller() as caller:
        pid = show("MainPID")
        run(*APT, "install", NAME)
        wait_active()
        assert show("MainPID") != pid
        answers = caller.answers()
        eventually(lambda: caller.answers() >= answers + 2, 90, "answers after the upgrade")
    lines = caller.output.read_text().splitlines()
    wrong = [line for line in lines if line != "not there" and not re.search(SET["answer"], line)]
    print(f"{caller.answers()} right answers, {lines.count('not there')} calls without an agent")
    assert not wrong, wrong
    assert run("dpkg-query", "-W", "-f", "${Version}", NAME) == SET["next"]


@check("a downgrade works, and keeps the configuration")
def _() -> None:
    edited = CONFIG.read_text()
    run("sed", "-i", "s#/repository-next #/repository #", f"/etc/apt/sources.list.d/{NAME}.list")
    run("apt-get", "-qq", "update")
    run(*APT, "install", "--allow-downgrades", f"{NAME}={SET['version']}")
    wait_active()
    assert CONFIG.read_text() == edited


@check("SIGHUP, SIGINT and SIGTERM end it cleanly, and it stays down")
def _() -> None:
    for name in ("HUP", "INT", "TERM"):
        run("systemctl", "kill", "--kill-who=main", "-s", name, UNIT)
        eventually(lambda: show("ActiveState") == "inactive", 15, f"it ends on SIG{name}")
        assert show("ExecMainStatus") == "0" and not Path(SOCKET).exists(), name
        run("systemctl", "start", UNIT)


@check("the original agent's environment file is honoured")
def _() -> None:
    other = f"/run/{NAME}/edge.sock"
    Path(f"/etc/default/{NAME}").write_text(f"SOCKET_ADDRESS={other}\nAGENT_CONFIG_FILE_PATH={CONFIG}\n")
    restart()
    assert client("health", socket=other).strip() == "SERVING"
    Path(f"/etc/default/{NAME}").unlink()


@check("own-user.conf: as the application's own user, segments of mode 0400 and packages at home work")
def _() -> None:
    home = Path("/home/app/digits")
    run("cp", "-r", str(STAGE / "packages/digits"), str(home))
    run("chown", "-R", "app:app", str(home))
    run("chmod", "0700", "/home/app")
    text = (Path(f"/usr/share/doc/{NAME}/examples/own-user.conf")).read_text()
    drop_in("own-user", text.replace("APPLICATION", "app"))
    restart()
    assert run("stat", "-c", "%U", SOCKET).strip() == "app"
    client("LoadModel", str(home), "digits")
    text = picture("PredictSHMAndCapture")
    assert re.search(SET["answer"], text) and "SUCCESS" in text, text
    run("runuser", "-u", "app", "--", "ipcmk", "-M", "4096", "-p", "0400")
    segments = run("ipcs", "-m")
    no_drop_in("own-user")
    restart()
    assert "400" in segments and run("ipcs", "-m") == segments, segments
    assert run("stat", "-c", "%U", SOCKET).strip() == NAME
    load()
    assert "SUCCESS" in picture("PredictAndCapture")


@check("no-network.conf, no-user-namespaces.conf and placement.conf: it runs")
def _() -> None:
    for name in ("no-network", "no-user-namespaces", "placement"):
        drop_in(name, Path(f"/usr/share/doc/{NAME}/examples/{name}.conf").read_text())
        restart()
        assert client("health").strip() == "SERVING"
        no_drop_in(name)
    restart()


@check("without systemd's variables it runs as any program: a container's way")
def _() -> None:
    config = json.loads(CONFIG.read_text())
    config["sagemaker_edge_core_capture_data_disk_path"] = "/home/app/captures"
    Path("/tmp/config.json").write_text(json.dumps(config))
    command = ["/usr/bin/sagemaker_edge_agent_binary", "-a", "/tmp/a.sock", "-c", "/tmp/config.json"]
    with subprocess.Popen(command, user="app", group="app", extra_groups=[], env={"HOME": "/home/app"}) as agent:
        eventually(
            lambda: client("health", ok=False, socket="/tmp/a.sock").strip() == "exit 0\nSERVING", 30, "it serves"
        )
        agent.terminate()
        assert agent.wait(30 * SLOW) == 0
    assert not Path("/tmp/a.sock").exists()


@check("the journal has no error that nobody caused")
def _() -> None:
    text = run("journalctl", "-u", UNIT, "-p", "err", "-o", "cat", "--no-pager")
    odd = [line for line in text.splitlines() if not re.search(SET["expected_errors"], line)]
    assert not odd, "\n".join(odd)
