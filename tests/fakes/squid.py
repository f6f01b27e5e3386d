"""squid, Debian's HTTP proxy, as an ordinary process on loopback, with a user and a password."""

import getpass
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.system.harness import eventually

USER, PASSWORD = "plant", "p@ss:word 1"
# squid passes both words with what it takes for unsafe in them percent-encoded.
HELPER = f"""#!/bin/sh
while read -r line; do
  case "$line" in
    "{USER} p@ss:word%201" | "{USER} p%40ss%3Aword%201") echo OK ;;
    *) echo ERR ;;
  esac
done
"""


def why_absent() -> str:
    """Why there is no squid; empty where there is."""
    return "" if _program() else "squid is not installed (Debian: squid)"


def _program() -> str | None:
    return shutil.which("squid", path="/usr/sbin:/usr/local/sbin:/usr/bin")


@dataclass
class Squid:
    """A running proxy that lets its user through to the hosts of `hosts`, all of which are this machine."""

    process: "subprocess.Popen[bytes]"
    port: int
    folder: Path

    @property
    def url(self) -> str:
        """For HTTPS_PROXY."""
        return f"http://{USER}:p%40ss%3Aword%201@127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What was asked of it."""
        file = self.folder / "access.log"
        return file.read_text() if file.exists() else ""

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder)


def start_squid(*hosts: str) -> Squid:
    """Start it, in a folder that squid's own user can write too: started by root it becomes that."""
    folder = Path(tempfile.mkdtemp(prefix="squid-", dir="/tmp"))
    folder.chmod(0o1777)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "hosts").write_text("".join(f"127.0.0.1 {host}\n" for host in hosts))
    helper = folder / "helper"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    owner = [] if getpass.getuser() == "root" else [f"cache_effective_user {getpass.getuser()}"]
    lines = [
        f"http_port 127.0.0.1:{port}",
        f"hosts_file {folder}/hosts",
        f"auth_param basic program {helper}",
        "acl known proxy_auth REQUIRED",
        "http_access allow known",
        "http_access deny all",
        f"access_log stdio:{folder}/access.log",
        f"cache_log {folder}/cache.log",
        "pid_filename none",
        "cache deny all",
        "cache_mem 1 MB",
        "memory_pools off",
        "max_filedescriptors 256",
        "memory_cache_shared off",
        f"coredump_dir {folder}",
        "shutdown_lifetime 0 seconds",
        *owner,
    ]
    (folder / "squid.conf").write_text("\n".join(lines) + "\n")
    program = _program()
    assert program
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [program, "-N", "-f", str(folder / "squid.conf")], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    made = Squid(process, port, folder)
    try:
        eventually(lambda: _listens(port) or process.poll() is not None, 30, "squid listens")
        assert process.poll() is None, (folder / "output").read_text()
    except BaseException:
        made.close()
        raise
    return made


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
