"""A fleet's document, how an operator changes it, and what time it is."""

import json

import pytest

from edge.fleet import rollout, times
from edge.fleet.document import Device, Document, DocumentFault, Rule, Where, chosen, numbers, parse, to_bytes

OLD, NEW = "packages/digits/1.0.tar.gz", "packages/digits/1.1.tar.gz"


def device(name: str = "press-17", arch: str = "aarch64", agent: tuple[int, ...] = (1, 20261128)) -> Device:
    return Device(name, arch, agent)


def document(*rules: Rule, name: str = "d-1") -> Document:
    return Document(name, {"digits": rules})


def test_what_is_written_is_read() -> None:
    where = Where(12.5, "s", ("press-*",), ("aarch64",), "1.20261101")
    for one in (document(Rule(NEW, where), Rule(OLD)), Document("x", {}, rollback=False)):
        assert parse(to_bytes(one)) == one


def test_rules() -> None:
    assert chosen(document(Rule(NEW, Where(devices=("press-*",))), Rule(OLD)), device()) == {"digits": NEW}
    assert chosen(document(Rule(NEW, Where(devices=("saw-?",))), Rule(OLD)), device()) == {"digits": OLD}
    assert chosen(document(Rule(NEW, Where(arch=("x86_64",)))), device()) == {}
    assert chosen(document(Rule(NEW, Where(min_agent="1.20261128"))), device()) == {"digits": NEW}
    assert chosen(document(Rule(NEW, Where(min_agent="1.20261129"))), device()) == {}
    assert numbers("1.20261128.abcdef0") == (1, 20261128)


def test_a_percentage_that_grows_takes_none_out() -> None:
    names = [f"press-{n:05d}" for n in range(4000)]
    before: set[str] = set()
    for percent in (0, 1, 10, 50, 100):
        one = document(Rule(NEW, Where(percent, "d11")), Rule(OLD))
        now = {name for name in names if chosen(one, device(name))["digits"] == NEW}
        assert before <= now
        assert len(now) / len(names) == pytest.approx(percent / 100, abs=0.02)
        before = now


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format": 2}, "format '2'"),
        ({"format": True}, "format 'True'"),
        ({"deployment": "../x"}, "deployment '../x'"),
        ({"deployment": "x" * 129}, "deployment 'xxx"),
        ({"on_failure": "panic"}, "on_failure 'panic'"),
        ({"models": []}, "models must be an object"),
        ({"models": {"a/b": [{"package": OLD}]}}, "an alias 'a/b'"),
        ({"models": {"a": []}}, "no rule in models.a"),
        ({"models": {"a": [{"package": "packages/../x.tar.gz"}]}}, "models.a.package"),
        ({"models": {"a": [{"package": "fleets/x/y.tar.gz"}]}}, "models.a.package"),
        ({"models": {"a": [{"package": OLD, "where": {"percent": 101}}]}}, "percent '101'"),
        ({"models": {"a": [{"package": OLD, "where": {"percent": True}}]}}, "percent 'True'"),
        ({"models": {"a": [{"package": OLD, "where": {"min_agent": "new"}}]}}, "min_agent 'new'"),
        ({"models": {"a": [{"package": OLD, "where": {"site": "x"}}]}}, "unknown key"),
        ({"models": {f"a{n}": [{"package": OLD}] for n in range(33)}}, "33 aliases"),
        ({"more": 1}, "unknown key"),
    ],
)
def test_what_is_no_document(change: dict[str, object], text: str) -> None:
    value = {"format": 1, "deployment": "d", "models": {}, **change}
    with pytest.raises(DocumentFault) as caught:
        parse(json.dumps(value).encode())
    assert text in str(caught.value)


def packages(one: Document) -> list[tuple[str, float]]:
    return [(rule.package, rule.where.percent) for rule in one.models["digits"]]


def test_a_rollout_in_stages_and_back() -> None:
    one = rollout.deploy(None, "d-1", {"digits": OLD}, Where(), rollback=True)
    one = rollout.deploy(one, "d-2", {"digits": NEW}, Where(10), rollback=True)
    assert packages(one) == [(NEW, 10), (OLD, 100)]
    assert one.models["digits"][0].where.seed == "d-2"
    one = rollout.promote(one, "d-3", 50)
    assert packages(one) == [(NEW, 50), (OLD, 100)]
    assert one.models["digits"][0].where.seed == "d-2", "who has it keeps it"
    with pytest.raises(DocumentFault, match="at 50 % already"):
        rollout.promote(one, "d-4", 50)
    one = rollout.promote(one, "d-4", 100)
    assert packages(one) == [(NEW, 100), (OLD, 100)]
    with pytest.raises(DocumentFault, match="rolled out in part"):
        rollout.promote(one, "d-5", 100)
    one = rollout.take_back(one, "d-5")
    assert packages(one) == [(OLD, 100)]
    with pytest.raises(DocumentFault, match="no version before"):
        rollout.take_back(one, "d-6")
    with pytest.raises(DocumentFault, match="no alias faces"):
        rollout.take_back(one, "d-6", ["faces"])
    assert rollout.remove(one, "d-6", ["digits"]).models == {}


def test_names_of_deployments() -> None:
    assert rollout.next_name("", "2026-11-28") == "2026-11-28"
    assert rollout.next_name("2026-11-28", "2026-11-28") == "2026-11-28-2"
    assert rollout.next_name("2026-11-28-9", "2026-11-28") == "2026-11-28-10"
    assert rollout.next_name("2026-11-27-3", "2026-11-28") == "2026-11-28"


def test_what_time_it_is() -> None:  # [F-6]
    def by(now: float, *, synchronised: bool = True, issued: int = 0) -> tuple[float, str]:
        judged = times.judge(now, synchronised=synchronised, build_date=1000, issued=issued)
        return judged.at, judged.by.partition(";")[0]

    assert by(2000) == (2000, "the clock")
    assert by(2000, synchronised=False) == (1000, "the agent's build date")
    assert by(999) == (1000, "the agent's build date")
    assert by(2000, synchronised=False, issued=1500) == (1500, "the repository's newest date")
    assert by(2000, issued=1500) == (2000, "the clock")


def test_when_the_next_poll_is_due() -> None:  # [F-3]
    assert times.until_next(3600, 0, 0, 0.5) == 3600
    assert [times.until_next(3600, 0, 0, chance) for chance in (0, 1)] == [3240, pytest.approx(3960)]
    assert [times.until_next(3600, failures, 0, 0.5) for failures in (1, 2, 3, 8, 50)] == [30, 60, 120, 3600, 3600]
    assert times.until_next(7200, 20, 0, 0.5) == 7200
    assert times.until_next(5, 1, 0, 0.5) == 5
    assert times.until_next(3600, 1, 600, 0.5) == 600
    assert times.until_next(3600, 1, 1e9, 0.5) == 86_400
