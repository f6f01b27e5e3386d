"""What devices tell, kept until it is sent, and what an operator makes of it."""

import hashlib
import html.parser
import json
import os
from pathlib import Path

import pytest

from edge.client.main import main
from edge.cloud.retry import Outcome as Answered
from edge.cloud.retry import Verdict
from edge.cloud.store import StoreError
from edge.errors import FleetError
from edge.fleet import overview, reports
from edge.fleet.document import Device
from edge.fleet.files import FolderFiles
from edge.fleet.membership import Outcome, Settings
from edge.fleet.overview import Overview
from edge.fleet.page import page
from edge.fleet.reports import BucketOutlet, FolderOutlet, Reports
from edge.fleet.standing import Standing, standing
from edge.fleet.telling import Telling
from tests.fakes.clock import FakeClock
from tests.fakes.fleet import DAY, FLEET, NOW, FleetDevice, Operator


def telling(home: Path, outlet: object, name: str = "press-1", clock: FakeClock | None = None) -> Telling:
    settings = Settings(FLEET, Device(name, "aarch64", (1,)), home / "root.json", home / name, 0)
    made = Telling(settings, "1.2", clock or FakeClock(), Reports(home / name / "reports", outlet), 86_400.0)  # type: ignore[arg-type]
    made.account = lambda: {"models": {"digits": {"version": "digits 1.0", "predicted": 3}}}
    return made


class Away:
    """A store that cannot be reached, until it can."""

    def __init__(self, folder: Path) -> None:
        self.away, self.keys, self._inner = True, list[str](), FolderOutlet(folder)

    def put(self, key: str, path: Path, place: int, size: int) -> None:
        if self.away:
            raise FleetError("the store is away")
        self.keys.append(key)
        self._inner.put(key, path, place, size)

    def abort(self) -> None:
        pass


def test_reports_wait_until_they_are_sent(tmp_path: Path) -> None:  # [F-12] [F-13]
    outlet = Away(tmp_path / "bucket")
    one = telling(tmp_path, outlet)
    one.outcome(Outcome("n-1", {"digits": "packages/digits/1.0.tar.gz"}, {}))
    one.tell()
    one.outcome(Outcome("n-2", {"digits": "packages/digits/1.1.tar.gz"}, {"digits": "golden output differs"}))
    assert outlet.keys == []
    again = telling(tmp_path, outlet)  # another run
    outlet.away = False
    again.tell()
    ok, failed, beat = (
        f"reports/{FLEET}/n-1/ok/press-1.json",
        f"reports/{FLEET}/n-2/failed/press-1.json",
        f"heartbeats/{FLEET}/press-1.json",
    )
    assert set(outlet.keys) == {ok, failed, beat}
    told = json.loads((tmp_path / "bucket" / failed).read_bytes())
    assert told["models"] == {
        "digits": {"package": "packages/digits/1.1.tar.gz", "status": "failed", "reason": "golden output differs"}
    }
    assert (told["device"], told["deployment"], told["clock_synchronised"]) == ("press-1", "n-2", True)
    assert json.loads((tmp_path / "bucket" / beat).read_bytes())["models"]["digits"]["version"] == "digits 1.0"
    outlet.keys.clear()
    again.tell()
    assert outlet.keys == [], "once"


def test_a_refused_report_holds_back_no_other(tmp_path: Path) -> None:  # [F-12]
    class Closed:
        """A store that takes heartbeats only."""

        verdict = Verdict(Answered.REFUSED, "AccessDenied")

        def put(self, key: str, body: object, kind: str, pace: object) -> None:
            if key.startswith("reports/"):
                raise StoreError(self.verdict, "AccessDenied")
            keys.append(key)

        def close(self) -> None:
            pass

    keys: list[str] = []
    store = Closed()
    kept = Reports(tmp_path / "device/reports", BucketOutlet(store, None))
    for key in ("reports/a", "heartbeats/b", "reports/c", "heartbeats/d"):
        kept.put(key, {})
    with pytest.raises(FleetError, match="AccessDenied"):
        kept.send()
    assert sorted(keys) == ["heartbeats/b", "heartbeats/d"]
    assert len(list((tmp_path / "device/reports").iterdir())) == 2
    kept.put("heartbeats/e", {})
    store.verdict = Verdict(Answered.RETRY_LATER, "no answer")
    newest = hashlib.sha256(b"heartbeats/e").hexdigest()[:16] + reports.SUFFIX
    os.utime(tmp_path / "device/reports" / newest, (4e9, 4e9))
    with pytest.raises(FleetError, match="no answer"):
        kept.send()
    assert "heartbeats/e" not in keys, "where nobody answers, the others are not tried"


def test_heartbeats(tmp_path: Path) -> None:  # [F-12]
    outlet, clock = Away(tmp_path / "bucket"), FakeClock()
    outlet.away = False
    one = telling(tmp_path, outlet, clock=clock)
    for days, count in ((0, 1), (0.5, 1), (0.7, 2)):
        clock.advance(days * DAY)
        one.tell()
        assert len(outlet.keys) == count
    one.tell(now=True)
    assert len(outlet.keys) == 3


def test_so_many_reports_wait(tmp_path: Path) -> None:
    outlet = Away(tmp_path / "bucket")
    one = telling(tmp_path, outlet)
    for n in range(reports.MAX_REPORTS + 5):
        one.outcome(Outcome(f"n-{n}", {}, {}))
    assert len(list((tmp_path / "press-1/reports").iterdir())) == reports.MAX_REPORTS
    (tmp_path / "press-1/reports/x.json").write_text("[")
    outlet.away = False
    one.tell()
    assert list((tmp_path / "press-1/reports").iterdir()) == []


def test_without_an_outlet_nothing_is_kept(tmp_path: Path) -> None:
    one = telling(tmp_path, None)
    one.outcome(Outcome("n-1", {}, {}))
    one.tell(now=True)
    one.abort()
    assert not (tmp_path / "press-1").exists()


def test_one_report_a_deployment(tmp_path: Path) -> None:  # [F-12]
    operator = Operator.made(tmp_path, FakeClock(NOW.timestamp()))
    operator.publish("1.0")
    operator.publish("1.1")
    operator.deploy("n-1", "1.0")
    device = FleetDevice(tmp_path / "device", operator)
    device.poll()
    device.serving.commit()
    device.fleet.look()
    device.serving.judge = lambda alias, path: "no"
    operator.deploy("n-2", "1.1")
    for _ in range(3):
        device.start()
        device.poll()
    assert [(one.deployment, dict(one.reasons)) for one in device.ended[:2]] == [("n-1", {}), ("n-2", {"digits": "no"})]
    assert len(device.ended) == 2


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """Three devices: one serves n-2, on one it failed, one has not reported, and is silent."""
    clock = FakeClock(NOW.timestamp())
    bucket = tmp_path / "bucket"
    for name, reasons in (("press-1", {}), ("press-2", {"digits": "golden <b>output</b> differs"}), ("press-3", None)):
        one = telling(tmp_path, FolderOutlet(bucket), name, clock)
        if reasons is None:
            clock.set(NOW.timestamp() - 5 * DAY)
        else:
            one.outcome(Outcome("n-2", {"digits": "packages/digits/1.1.tar.gz"}, reasons))
        one.tell()
    (bucket / f"heartbeats/{FLEET}/broken.json").write_text("{")
    return bucket


def test_what_an_operator_sees(told: Path) -> None:
    one = overview.read(FolderFiles(told), FLEET)
    assert one.well == {"n-2": {"press-1"}}
    assert [(f.device, f.reasons) for f in one.failed("n-2")] == [
        ("press-2", {"digits": "golden <b>output</b> differs"})
    ]
    assert one.waiting("n-2") == ["press-3"]
    assert one.silent(NOW.timestamp()) == ["press-3"]
    assert one.versions() == {"digits": {"digits 1.0": 3}}
    assert one.failed_share("n-2") == 50
    assert one.failed_share("n-3") is None
    assert one.unreadable == 1


def test_what_one_board_stores_does_not_hide_the_others(told: Path) -> None:
    """Its rights cover any object that ends with its name; a copy of the bucket may hold still other things."""
    reports_of = told / "reports" / FLEET
    (reports_of / "press-9.json").write_text("x")
    (reports_of / "link").symlink_to(reports_of / "n-2")
    for deployment in ("n-7", "n-8"):
        (reports_of / deployment).mkdir()
        (reports_of / deployment / "ok").write_text("x")
        (reports_of / deployment / "failed").mkdir()
    (reports_of / "n-7/failed/press-9.json").mkdir()
    (reports_of / "n-8/failed/press-9.json").symlink_to(reports_of / "n-2/failed/press-2.json")
    os.mkfifo(told / f"heartbeats/{FLEET}/pipe.json")
    one = overview.read(FolderFiles(told), FLEET)
    assert one.well == {"n-2": {"press-1"}}
    assert [failure.device for failure in one.failures] == ["press-2"]
    assert set(one.heartbeats) == {"press-1", "press-2", "press-3"}
    assert one.unreadable == 3


def test_a_device_may_tell_anything(tmp_path: Path) -> None:
    """Times that are none, names that are no text: they spoil neither the table nor the page."""
    folder = tmp_path / f"heartbeats/{FLEET}"
    folder.mkdir(parents=True)
    for n, at in enumerate(("1" * 400, "1e999", "-5", '"now"', "true")):
        (folder / f"d-{n}.json").write_text(f'{{"at": {at}, "agent": "\\ud800", "models": {{"a": 5, "b": []}}}}')
    one = overview.read(FolderFiles(tmp_path), FLEET)
    assert len(one.silent(NOW.timestamp())) == 5
    assert page([(one, None)], NOW.timestamp()).encode()


def test_commands(told: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    operator = Operator.made(tmp_path, FakeClock(NOW.timestamp()))
    for version in ("1.0", "1.1"):
        operator.publish(version)
    operator.deploy("n-1", "1.0")
    from edge.fleet.document import Where

    operator.deploy("n-2", "1.1", Where(10))
    words = [str(operator.folder), "--reports", str(told)]
    assert main(["fleet", "status", *words, "--html", str(tmp_path / "page.html")]) == 0
    text = capsys.readouterr().out
    assert "1 device serve it, 1 failed, 1 have not reported" in text
    assert "failed, 1 x digits: golden <b>output</b> differs" in text
    assert "digits: digits 1.0 on 3" in text
    assert "silent for 2 days or longer" in text
    assert main(["fleet", "status", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["told"][FLEET]["failed"] == {
        "press-2": {"digits": "golden <b>output</b> differs"}
    }
    promote = ["fleet", "promote", str(operator.folder), FLEET, "--keys", str(operator.keys), "--reports", str(told)]
    assert main([*promote, "--if-failed-below", "50"]) == 1
    assert "n-2 failed on 1 device, 50.0 % of those that reported: 1 x digits: golden" in capsys.readouterr().err
    assert main([*promote, "--if-failed-below", "51", "--name", "n-3"]) == 0
    assert main([*promote, "--if-failed-below", "51"]) == 1
    assert "no device has reported n-3 yet" in capsys.readouterr().err
    assert main(["fleet", "status", str(operator.folder), "--html", str(tmp_path / "page.html")]) == 2
    assert main(["fleet", "status", str(operator.folder), "--reports", str(tmp_path / "nowhere")]) == 2


def test_how_devices_stand() -> None:
    """What an operator of many boards looks for first, on which of them, and where nothing ran for long."""
    ill = {
        "at": 9,
        "clock_synchronised": False,
        "last_error": "models.example.com: its name cannot be resolved",
        "disk_free_bytes": 1 << 20,
        "models": {
            "a": {"last_inference": 5, "failed": 3, "predicted": 297},
            "b": {"last_inference": 7, "last_capture": 6},
        },
        "captures": {"last_error": "<403>"},
    }
    well = {
        "at": 9,
        "clock_synchronised": True,
        "disk_free_bytes": 1 << 30,
        "models": {"a": {"failed": 1, "predicted": 100}},
        "captures": {},
    }
    assert standing(well) == Standing(0, 0, ())
    assert (
        standing(
            {"models": {"a": {"last_inference": "x", "failed": "y"}}, "captures": 5, "disk_free_bytes": -1}
        ).worries
        == ()
    )
    one = Overview(FLEET, {"press-1": ill, "press-2": well, "press-3": {**well, "clock_synchronised": False}})
    assert (standing(ill).inference, standing(ill).capture) == (7, 6)
    assert one.worries() == {
        "the clock is not synchronised": ["press-1", "press-3"],
        "last round: models.example.com: its name cannot be resolved": ["press-1"],
        "less than 64 MiB of the disk are free": ["press-1"],
        "inferences of a fail": ["press-1"],
        "captures: <403>": ["press-1"],
    }
    made = page([(one, None)], NOW.timestamp())
    assert "captures: &lt;403&gt;" in made
    assert "<td><time>1970-01-01 00:00</time></td>" * 3 in made


class _Balance(html.parser.HTMLParser):
    """Whether what is opened is closed, in order."""

    EMPTY = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_says_only_text(told: Path) -> None:
    made = page([(overview.read(FolderFiles(told), FLEET), None), (Overview("<i>other</i>"), None)], NOW.timestamp())
    parser = _Balance()
    parser.feed(made)
    assert parser.open == []
    assert not {"script", "i", "link", "img"} & parser.seen
    assert "golden &lt;b&gt;output&lt;/b&gt; differs" in made
    assert "http" not in made.replace("http-equiv", "")
