"""Several models of one deployment: they switch, prove themselves and go back all or none (W-9)."""

import threading
from pathlib import Path

import numpy as np
import pytest

from edge.deploy import declaration, folder
from edge.deploy.declaration import Declaration, Together
from edge.deploy.managed import Managed
from edge.deploy.proof import COMMIT_PREDICTS, COMMIT_SECONDS
from edge.errors import DeclarationError, ModelNotFoundError
from tests.unit.test_deployments import Device, device, proven
from tests.unit.test_golden import files
from tests.unit.test_loads import Call

__all__ = ["device"]


def wanted(name: str, packages: dict[str, Path]) -> dict[str, Declaration]:
    """The declarations of a deployment."""
    together = Together(name, tuple(sorted(packages)))
    return {alias: Declaration(str(path), deployment=together) for alias, path in packages.items()}


def write(device: Device, alias: str, declared: Declaration | None) -> None:
    folder.write(folder.path_of(device.models, alias), declaration.to_bytes(declared) if declared else None)


def deploy(device: Device, name: str, packages: dict[str, Path], *, retry: bool = True) -> list[Managed]:
    """`models set` of several aliases."""
    for alias, declared in wanted(name, packages).items():
        write(device, alias, declared)
    return device.deployments.apply(sorted(packages)[:1], Call(), retry=retry)


def two(device: Device, name: str, version: str) -> list[Managed]:
    return deploy(device, name, {alias: device.package(version) for alias in ("a", "b")})


def serving(device: Device) -> tuple[float, float]:
    return device.predict(name="a"), device.predict(name="b")


def prove(device: Device, *names: str) -> None:
    for name in names:
        device.predict(COMMIT_PREDICTS, name)
    device.deployments.look()


def fail(device: Device, name: str) -> None:
    """A Predict of a model ends with INTERNAL; what follows is done when this returns."""
    device.registry.get(name).remarks.count_failed()
    device.deployments.look()
    for thread in threading.enumerate():
        if thread.name == f"take back {name}":
            thread.join()


def bad_package(device: Device, version: str) -> Path:
    """A package whose self-test fails."""
    x = np.zeros((1, 4), np.float32)
    return device.package(version, files_besides=files((x, x + 99)))


@pytest.fixture
def first(device: Device) -> Device:
    """A device where a deployment of a and b serves and is committed."""
    assert [one.refused for one in two(device, "d1", "1")] == ["", ""]
    prove(device, "a", "b")
    assert [device.state_of(name) for name in "ab"] == [("", "1", "")] * 2
    return device


def test_room_is_not_made_of_what_has_just_come(tmp_path: Path) -> None:  # [W-9] [F-8]
    device = Device(tmp_path, store_mib=8)  # for two versions of both, and no more
    device.start()
    try:
        for number in (1, 2, 3):
            versions = {"a": str(number), "b": str(10 + number)}
            done = deploy(device, f"d{number}", {a: device.package(v, spare=1_900_000) for a, v in versions.items()})
            assert [one.refused for one in done] == ["", ""]
            prove(device, "a", "b")
        assert serving(device) == (3, 13)
    finally:
        device.end()


# --- the switch ------------------------------------------------------------------


def test_all_switch_at_the_same_moment(first: Device) -> None:  # [W-9]
    seen: set[tuple[str, ...]] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen.add(tuple(model.manifest.model_version for model in first.registry.models()))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        assert [one.name for one in two(first, "d2", "2")] == ["a", "b"]
    finally:
        over.set()
        watching.join()
    assert serving(first) == (2, 2)
    assert seen <= {("1", "1"), ("2", "2")}
    assert first.deployments.standing("d2").state == "trying"


def test_one_that_fails_leaves_all_the_old_ones(first: Device) -> None:  # [W-9] [W-5]
    good, bad = first.package("2"), bad_package(first, "3")
    a, b = deploy(first, "d2", {"a": good, "b": bad})
    assert a.refused.startswith("it switches together with b, and there: ") and "self-test" in b.refused
    assert serving(first) == (1, 1)
    assert [first.state_of(name) for name in "ab"] == [("", "1", "")] * 2
    assert first.deployments.standing("d2").state == first.ends[-1].state == "refused"
    first.restart()
    assert serving(first) == (1, 1)


def test_one_without_memory_leaves_all_the_old_ones(first: Device) -> None:  # [W-9] [W-4]
    taken = sum(model.taken_bytes for model in first.registry.models())
    first.registry._loads._budget_bytes = taken + taken // 2  # for one of them beside both
    ones = two(first, "d2", "2")
    assert all("memory" in one.refused and one.passing for one in ones)
    assert serving(first) == (1, 1)
    first.registry._loads._budget_bytes = 0
    assert [one.refused for one in first.deployments.apply(["b"], Call())] == ["", ""]
    assert serving(first) == (2, 2)


def test_of_a_deployment_of_new_names_one_that_fails_leaves_none(device: Device) -> None:  # [W-9]
    deploy(device, "d1", {"a": device.package("1"), "b": bad_package(device, "3")})
    assert device.registry.models() == () and device.registry.states() == []
    two(device, "d2", "2")
    assert serving(device) == (2, 2)


def test_a_deployment_of_which_a_part_is_declared_waits(first: Device) -> None:  # [W-9]
    declared = wanted("d2", {alias: first.package("2") for alias in ("a", "b")})
    write(first, "a", declared["a"])
    a, b = first.deployments.apply([], Call())
    assert a.refused == "the deployment 'd2' is not whole: b is not declared as of it, with the same models"
    assert (b.refused, serving(first)) == ("", (1, 1))
    first.restart()
    assert serving(first) == (1, 1)
    write(first, "b", declared["b"])
    first.restart()
    assert serving(first) == (2, 2)


def test_one_of_a_deployment_may_be_replaced_alone_later(first: Device) -> None:  # [W-9]
    write(first, "a", Declaration(str(first.package("2"))))
    assert [one.refused for one in first.deployments.apply([], Call())] == ["", ""]
    assert serving(first) == (2, 1)
    write(first, "a", None)
    first.deployments.apply(["a"], Call())
    first.restart()
    assert first.predict(name="b") == 1


# --- proof -----------------------------------------------------------------------


def test_a_deployment_is_committed_when_all_have_proved_themselves(first: Device) -> None:  # [W-9] [W-6]
    two(first, "d2", "2")
    prove(first, "a")
    assert [first.state_of(name) for name in "ab"] == [("2", "1", "")] * 2
    prove(first, "b")
    assert [first.state_of(name) for name in "ab"] == [("", "2", "1")] * 2
    assert [(one.name, one.state) for one in first.ends] == [("d1", "committed"), ("d2", "committed")]
    first.restart()
    assert first.deployments.standing("d2").state == "committed"
    assert first.deployments.standing("d3").state == "unknown"


def test_a_predict_that_ends_with_internal_takes_all_back(first: Device) -> None:  # [W-9] [W-6]
    two(first, "d2", "2")
    fail(first, "b")
    assert serving(first) == (1, 1)
    assert [first.state_of(name) for name in "ab"] == [("", "1", "")] * 2
    assert first.ends[-1].state == "taken-back" and "b: a Predict ended with INTERNAL" in first.ends[-1].reason
    first.restart()  # the declarations still want it
    assert serving(first) == (1, 1)
    a, b = (first.deployments.get(name) for name in "ab")
    assert a and b and "was taken back" in b.refused and "together with b" in a.refused
    assert first.deployments.standing("d2").state == "taken-back"


def test_a_name_that_the_deployment_brought_goes_with_it(device: Device) -> None:  # [W-9] [W-6]
    proven(device, "1")
    deploy(device, "d1", {"m": device.package("2"), "new": device.package("2")})
    assert device.predict(name="new") == 2
    fail(device, "new")
    assert device.predict() == 1
    with pytest.raises(ModelNotFoundError):
        device.registry.get("new")
    device.restart()
    assert device.predict() == 1
    with pytest.raises(ModelNotFoundError):
        device.registry.get("new")


def test_two_runs_that_end_badly_take_all_back(first: Device) -> None:  # [W-9] [W-7]
    two(first, "d2", "2")
    first.restart()
    assert serving(first) == (2, 2)
    first.restart()
    assert serving(first) == (1, 1)
    assert [first.state_of(name) for name in "ab"] == [("", "1", "")] * 2
    assert (first.ends[-1].name, first.ends[-1].state) == ("d2", "taken-back")
    first.restart()
    assert serving(first) == (1, 1)


def test_at_a_start_one_that_fails_takes_all_back(first: Device) -> None:  # [W-9] [M-3]
    packages = {alias: first.package("2") for alias in ("a", "b")}
    deploy(first, "d2", packages)
    first.end(cleanly=True)
    one = first.deployments.get("b")
    assert one is not None and one.state.trying is not None
    (first.store.path(one.state.trying) / "m.tflite").write_bytes(b"")
    (packages["b"] / "m.tflite").write_bytes(b"")
    first.start()
    assert serving(first) == (1, 1)
    assert first.deployments.standing("d2").state == "taken-back"


def test_by_hand_a_deployment_on_trial_goes_back_as_one(first: Device) -> None:  # [W-9]
    two(first, "d2", "2")
    first.deployments.rollback("a", Call())
    assert serving(first) == (1, 1)
    two(first, "d3", "3")
    first.clock.advance(COMMIT_SECONDS)
    first.deployments.look()
    first.deployments.rollback("a", Call())
    assert serving(first) == (1, 3)  # a deployment that is committed is over


def test_a_deployment_that_another_takes_the_place_of_is_over(first: Device) -> None:  # [W-9]
    two(first, "d2", "2")
    two(first, "d3", "3")
    assert [(one.name, one.state) for one in first.ends[1:]] == [("d2", "replaced")]
    assert first.deployments.standing("d3").state == "trying"


def test_without_the_folder_a_deployment_on_trial_serves_on_as_one(first: Device) -> None:  # [W-9] [M-3]
    two(first, "d2", "2")
    first.end(cleanly=True)
    first.models.rename(first.home / "away")
    first.models.write_text("")
    first.start()
    assert serving(first) == (2, 2)


# --- declared elsewhere ------------------------------------------------------------


def test_what_is_declared_elsewhere_serves_below_models_d(first: Device) -> None:  # [W-9] [M-1]
    first.elsewhere = wanted("f1", {"b": first.package("8"), "c": first.package("8")})
    first.deployments.apply([], Call())
    assert first.deployments.pinned() == {"b"}
    assert serving(first) == (1, 1)
    with pytest.raises(ModelNotFoundError):
        first.registry.get("c")  # f1 is not whole: b is another's
    first.elsewhere = wanted("f2", {"c": first.package("9")})
    assert [one.refused for one in first.deployments.apply(["c"], Call())] == [""]
    prove(first, "c")
    assert first.ends[-1] == first.deployments.standing("f2")
    first.restart()
    assert first.predict(name="c") == 9
    first.models.rename(first.home / "away")
    first.elsewhere = {}
    first.deployments.apply([], Call())
    assert serving(first) == (1, 1)  # the folder is gone, which says nothing
    with pytest.raises(ModelNotFoundError):
        first.registry.get("c")


# --- the file ----------------------------------------------------------------------


def test_a_deployment_in_a_declaration_comes_back() -> None:  # [W-9] [M-1]
    one = Declaration("/p", allow_changed_tensors=True, deployment=Together("2026-11-28-2", ("a", "b")))
    assert declaration.parse(declaration.to_bytes(one)) == one


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ("3", "deployment must be an object"),
        ('{"name": "d"}', "lacks deployment.models"),
        ('{"name": "", "models": ["a"]}', "names the deployment ''; expected 1 to 128 printable characters"),
        ('{"name": "d", "models": []}', "has in deployment.models none"),
        ('{"name": "d", "models": ["a", "a"]}', "has in deployment.models one twice"),
        ('{"name": "d", "models": ["a/b"]}', "has in deployment.models 'a/b'"),
        ('{"name": "d", "models": ["a"]}, "allow_gap": true', "allow_gap beside deployment"),
    ],
)
def test_a_deployment_that_is_none_is_refused(member: str, words: str) -> None:  # [M-3] [W-9]
    with pytest.raises(DeclarationError) as error:
        declaration.parse(f'{{"package": "/p", "deployment": {member}}}'.encode())
    assert words in str(error.value)
