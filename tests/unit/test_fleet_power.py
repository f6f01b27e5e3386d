"""A power cut at any flush of a round: metadata and state never go back, and the next round brings what is wanted (F-5).

POWER_CUTS says how many moments are gone through (20); 0: all that there are, over 300.
"""

import copy
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata

from edge.errors import FleetError
from tests.fakes.clock import FakeClock
from tests.fakes.fleet import FLEET, NOW, FleetDevice, Operator
from tests.fakes.power import PowerCut, watched

CUTS = int(os.environ.get("POWER_CUTS", "20"))
MORE = 28  # aliases of the deployment, so that there are moments enough


def versions(home: Path) -> dict[str, int]:
    """The version of each file of metadata."""
    files = (home / "fleet/tuf").glob("*.json")
    return {path.name: Metadata.from_bytes(path.read_bytes()).signed.version for path in files}


@pytest.mark.parametrize("first", [True, False], ids=["first contact", "later"])
def test_power_cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool) -> None:  # [F-5] [F-7]
    operator = Operator.made(tmp_path, FakeClock(NOW.timestamp()))
    for version in ("1.0", "1.1", "1.2"):
        operator.publish(version)
    operator.deploy("n-0", "1.0")
    shutil.copytree(operator.folder, tmp_path / "old")
    operator.act(lambda repository: repository.rotate("snapshot", None))
    operator.deploy("n-1", "1.1")
    base = FleetDevice(tmp_path / "base", operator)
    base.home.mkdir()
    if not first:
        base.poll()
        base.serving.commit()
        base.fleet.look()
    before = versions(base.home)
    operator.act(lambda repository: repository.rotate("timestamp", None))
    more = {f"more-{n}": operator.publish("1.0", name=f"more-{n}") for n in range(MORE)}
    operator.deploy("n-2", {"digits": "packages/digits/1.2.tar.gz", **more})
    wanted = {"digits": "digits/1.2", **{alias: f"{alias}/1.0" for alias in more}}

    def begin(name: str) -> FleetDevice:
        shutil.copytree(base.home, tmp_path / name, symlinks=True)
        return resume(name, base)

    def resume(name: str, like: FleetDevice) -> FleetDevice:
        made = FleetDevice(tmp_path / name, operator)
        made.serving.aliases = copy.deepcopy(like.serving.aliases)
        for one in made.serving.aliases.values():  # the package store knows archives by path
            for part in ("current", "previous", "trying"):
                version = getattr(one.state, part)
                if version is not None:
                    path = str(made.home / "fleet/packages" / Path(version.package).name)
                    setattr(one.state, part, replace(version, package=path))
        return made

    with watched(tmp_path, monkeypatch) as disk:
        begin("whole").poll()
        moments = disk.flushes
    assert 2 * moments >= 150
    points = [(moment, names) for moment in range(moments) for names in (False, True)]
    step = max(1, -(-len(points) // CUTS)) if CUTS else 1
    for moment, names in points[::step]:
        device, where = begin("cut"), f"cut at flush {moment} of {moments}, names kept: {names}"
        with watched(device.home, monkeypatch) as disk:
            disk.cut_at = moment
            with pytest.raises(PowerCut):
                device.poll()
                raise PowerCut  # the other folders' flushes were counted too
            disk.after(tmp_path / "back", names=names)
        shutil.rmtree(device.home)
        back = resume("back", device)
        assert back.runs.get("digits", "digits/1.1") in ("digits/1.1", "digits/1.2"), where
        assert first or back.runs, where
        now = versions(back.home)
        older = {name: (before[name], now.get(name)) for name in before if now.get(name, 0) < before[name]}
        assert not older, where
        if not first:
            with pytest.raises(FleetError):
                back.poll(tmp_path / "old")
        back.start()
        back.poll()
        assert back.runs == wanted, where
        assert versions(back.home)[f"{FLEET}.json"] > before.get(f"{FLEET}.json", 0)
        assert back.litter <= {path.name for path in (back.home / "fleet/packages").iterdir()}, where
        shutil.rmtree(back.home)
