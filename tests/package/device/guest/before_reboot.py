"""The last of the first boot: what `rebooted` looks for in the second."""

from pathlib import Path

from harness import APT, NAME, SET, STAGE, TRUST, check, run, wait_active
from models import declare, serves


@check("before the reboot: installed anew, a model is declared")
def _() -> None:
    line = f"deb [signed-by=/usr/share/keyrings/{NAME}.gpg] file:{STAGE}/repository stable main\n"
    Path(f"/etc/apt/sources.list.d/{NAME}.list").write_text(line)
    run("apt-get", "-qq", "update")
    run(*APT, "install", f"{NAME}={SET['version']}")
    wait_active()
    for root in (STAGE / "roots").glob("*.pem"):
        run("install", "-m", "0444", str(root), str(TRUST))
    declare("1.0")
    assert serves("1.0")
