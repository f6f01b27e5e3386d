"""The report: whole, escaped, without anything from outside; in a real browser where there is one."""

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import threading
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from edge.client import main
from edge.client.captures.tallies import MAX_PERIODS, Quantiles, Timeline
from tests.fakes.written import record, summary, write

BROWSER = shutil.which("chromium") or shutil.which("chromium-headless-shell") or shutil.which("google-chrome")
EVIL = "\"'><script>document.title='owned'</script><img src=//evil.example/x>&amp;\x00\u2028"


class Page(HTMLParser):
    """Elements with their attributes, and the text outside of the style."""

    VOID = frozenset({"meta", "img", "line", "rect"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.style = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def report(folder: Path, *words: str, code: int = 0) -> tuple[Page, str]:
    target = folder.with_name(folder.name + ".html")
    assert main.main(["captures", "report", str(folder), "--html", str(target), "--force", *words]) == code
    html = target.read_text("utf-8")
    return Page(html), html


def hostile(folder: Path) -> None:
    """Every word of a record is an attack."""
    words = dict.fromkeys(("eventId", "deviceId", "deviceFleetName", "modelName", "modelVersion", "status"), EVIL)
    one = record("x", **words, captureReason=[EVIL, EVIL])
    one["deviceFleetInputs"][0]["name"] = EVIL
    plain = record("y", **words) | {"deviceFleetInputs": []}
    write(folder, one, plain, b'{"eventMetadata": {"eventId": "<script>", "inferenceTime": "<script>"}}')
    write(folder, summary(calls={EVIL: 4}) | {"eventMetadata": one["eventMetadata"]}, name="summary-x.jsonl")


def test_a_person_sees_pictures_predictions_and_confidences(tmp_path: Path) -> None:  # [V-6]
    folder = tmp_path / "captures"
    white = np.ones((1, 8, 8, 1), np.float32)
    many = [record(f"c{n}", n % 10, confidence=0.5 + n / 100, inferenceMilliseconds=0.1 * n) for n in range(30)]
    write(folder, *many, record("white", 7, picture=white, captureReason=["class_seen"]))
    write(folder, summary(), name="summary-x.jsonl")
    page, html = report(folder)
    text = " ".join("".join(page.text).split())
    assert "digits 1.0" in text and "31captures" in text
    assert all(name in text for name in ("Classes over time", "Confidence", "Latency", "Least certain", "Newest"))
    assert "kept for class_seen" in text and "calls that ended with OK1234" in text
    assert html.count('<figure class="card"') == 31 + 12
    pictures = {one["alt"]: one["src"] or "" for one in page.all("img")}
    assert len(pictures) == 31
    data = base64.b64decode(pictures["input of white"].removeprefix("data:image/png;base64,"))
    assert np.asarray(Image.open(io.BytesIO(data))).tolist() == [[255] * 8] * 8
    assert '<i class="low">50.00%</i><b>0</b>' in html
    for svg in re.findall(r"<svg.*?</svg>", html):
        ElementTree.fromstring(svg)


def test_nothing_comes_from_outside_and_nothing_runs(tmp_path: Path) -> None:  # [V-6]
    folder = tmp_path / "captures"
    hostile(folder)
    page, html = report(folder, code=1)
    allowed = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "h1",
        "h2",
        "h3",
        "p",
        "div",
        "section",
        "b",
        "span",
    }
    allowed |= {
        "svg",
        "text",
        "rect",
        "line",
        "figure",
        "img",
        "figcaption",
        "i",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    }
    assert {tag for tag, _ in page.elements} <= allowed
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("href", "style", "srcset")]
    assert all((one["src"] or "").startswith("data:image/png;base64,") for one in page.all("img"))
    assert "url(" not in page.style and "@import" not in page.style
    (policy,) = [one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    hashed = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashed}'; base-uri 'none'; form-action 'none'"
    )
    assert "<script>document.title='owned'</script>" in "".join(page.text)  # as text
    assert "\x00" not in html and "\u2028" not in html


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
def test_a_browser_shows_it(tmp_path: Path) -> None:  # [V-6]
    """With scripts and network on its side: the policy is not broken, nothing is asked for, every picture is drawn."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            data = (tmp_path / self.path.lstrip("/")).read_bytes() if self.path.endswith(".html") else b""
            self.send_response(200 if data else 404)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    folder = tmp_path / "captures"
    hostile(folder)
    write(folder, *[record(f"c{n}", n) for n in range(10)], name="b.jsonl")
    report(folder, code=1)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        words = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        words += ["--no-proxy-server", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
        words += ["--window-size=1200,6000", f"--screenshot={tmp_path / 'shot.png'}"]
        address = f"http://127.0.0.1:{server.server_port}/captures.html"
        done = subprocess.run([*words, address], capture_output=True, text=True, timeout=240, check=True)
        dom = subprocess.run(
            [*words[:-1], "--dump-dom", address], capture_output=True, text=True, timeout=240, check=True
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert "Content Security Policy" not in done.stderr + dom.stderr
    assert "owned" not in re.findall(r"<title>(.*?)</title>", dom.stdout)[0]
    assert set(asked) <= {"/captures.html", "/favicon.ico"}
    shot = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB"))
    colours = {tuple(colour) for colour in shot.reshape(-1, 3)[::7]}
    assert {(0x3B, 0x6F, 0xD4), (0xE0, 0x81, 0x3A)} <= colours  # bars of the chart: the style sheet is in effect


def test_it_does_not_replace_a_file_unless_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # [V-6]
    folder, target = tmp_path / "captures", tmp_path / "r.html"
    write(folder, record("a"))
    target.write_text("mine")
    words = ["captures", "report", str(folder), "--html", str(target)]
    assert main.main(words) == 2
    assert "exists; name another, or give --force" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert main.main([*words, "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "report": str(target), "captures": 1}
    assert target.read_text("utf-8").startswith("<!doctype html>")
    assert main.main(["captures", "report", str(tmp_path / "none"), "--html", str(tmp_path / "new.html")]) == 2
    assert main.main([*words[:-1], str(tmp_path / "no" / "folder.html")]) == 2
    assert "No such file or directory" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captures", "r.html"]


def test_pictures_that_are_missing_or_none(tmp_path: Path) -> None:  # [V-6] [V-3]
    folder = tmp_path / "captures"
    one = record("a")
    del one["deviceFleetInputs"][0]["data"]
    one["deviceFleetInputs"][0]["data-ref"] = "s3://b/raw-data/input-tensors/gone"
    write(
        folder,
        one,
        record("b", picture=np.zeros((1, 4), np.float32)),
        record("c", modelName="e") | {"deviceFleetOutputs": []},
    )
    page, html = report(folder, code=1)
    assert [one["alt"] for one in page.all("img")] == ["input of c"]
    assert "its picture cannot be read" in html and "image Tensor[FLOAT32; 1, 4]" in html
    assert html.count("gone cannot be read") == 1
    page, html = report(folder, "--model", "nothing")
    assert "No capture passes the filters" in html


def test_times_and_sizes_take_bounded_memory() -> None:
    from datetime import UTC, datetime, timedelta

    timeline, sizes = Timeline(), Quantiles()
    for number in range(5000):
        timeline.add(datetime(1, 1, 1, tzinfo=UTC) + timedelta(days=number * 700), str(number % 3))
        sizes.add(number / 1000)
    periods = timeline.periods()
    assert len(periods) <= MAX_PERIODS
    assert sum(counts.total() for _, counts in periods) == 5000
    assert [start for start, _ in periods] == sorted(start for start, _ in periods)
    assert abs(sizes.at(0.5) - 2.5) < 0.06 and abs(sizes.at(1) - 4.999) < 0.06 and sizes.most == 4.999
    assert sum(count for _, _, count in sizes.bins(20)) == 5000 and len(sizes.bins(20)) <= 20
    for odd in (0.0, 1e300):
        sizes.add(odd)
    assert Quantiles().at(0.5) == 0.0
