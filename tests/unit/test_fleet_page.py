"""The page of a fleet of 200 boards, in a browser."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.fleet.document import Document, Rule
from edge.fleet.overview import Failure, Overview
from edge.fleet.page import page
from tests.fakes.fleet import DAY, FLEET, NOW

BROWSER = shutil.which("chromium") or shutil.which("chromium-headless-shell") or shutil.which("google-chrome")
EVIL = "<script>document.title='owned'</script><img src=//evil.example/x>"


def fleet_of_200() -> Overview:
    """Most serve n-2, a few failed on four days, some are silent, some have not reported, one tells lies."""
    now = NOW.timestamp()
    one = Overview(FLEET)
    for n in range(200):
        at = now - (5 * DAY if n % 40 == 7 else 60 * n)
        model = {"version": f"digits 1.{n % 2}", "predicted": 1000 * n, "failed": 0, "last_inference": at - 9}
        one.heartbeats[f"press-{n}"] = {
            "at": at,
            "agent": "1.20261128.0123abc",
            "clock_synchronised": n % 50 != 3,
            "models": {"digits": {**model, "last_capture": at - 60}},
            "captures": {"last_error": "403 AccessDenied" if n % 60 == 5 else ""},
        }
    one.heartbeats["press-199"]["last_error"] = EVIL
    one.well["n-2"] = {f"press-{n}" for n in range(170)}
    for n in range(170, 182):
        reasons = {"digits": EVIL if n == 170 else "the self-test differs by 0.2 in output 0; 0.01 is allowed"}
        one.failures.append(Failure(f"press-{n}", "n-2", now - (n % 4) * DAY, reasons))
    return one


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
def test_a_browser_shows_it(tmp_path: Path) -> None:
    document = Document("n-2", {"digits": (Rule("packages/digits/1.1.tar.gz"),)})
    (tmp_path / "fleet.html").write_text(page([(fleet_of_200(), document)], NOW.timestamp()), "utf-8")
    words = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-proxy-server",
    ]
    words += ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,2000"]
    address = (tmp_path / "fleet.html").as_uri()
    pictures = [f"--screenshot={tmp_path / 'shot.png'}", "--virtual-time-budget=1000", "--dump-dom", address]
    dom = subprocess.run([*words, *pictures[1:]], capture_output=True, text=True, timeout=240, check=True).stdout
    subprocess.run([*words, pictures[0], address], capture_output=True, timeout=240, check=True)
    assert re.findall(r"<title>(.*?)</title>", dom) == ["Fleets"]
    assert "170 serve it, 12 failed, 18 have not reported" in dom
    worry = dom.partition("the clock is not synchronised</td><td>")[2]
    assert worry.startswith("press-103, press-153, press-3, press-53</td>")
    assert dom.index(">press-199</td>") < dom.index(">press-0</td>")  # who is in trouble comes first
    assert "evil.example" in dom and "<img" not in dom and "<script" not in dom
    shot = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB"))
    colours = {tuple(colour) for colour in shot.reshape(-1, 3)[::7]}
    assert {(0x2D, 0xA4, 0x4E), (0xCF, 0x22, 0x2E)} <= colours  # the bar of progress: the style sheet is in effect
