"""Policies: what they may be, what outputs say, and what a day has (K-1, K-3, K-4)."""

import re
from typing import Any

import numpy as np
import pytest

from edge.capture.budget import Budget, Day, noted, read
from edge.capture.triggers import MEAN_CALLS, Triggers
from edge.capture.watch import Watch
from edge.capture_policy import Policy, PolicyFault, parse_policies, parse_policy
from edge.config import parse_config
from edge.deploy import declaration
from edge.errors import BudgetSpentError, ConfigError, DeclarationError
from edge.tensors import DType, TensorSpec
from tests.unit.test_docs import ROOT, json_blocks

DAY = 86_400.0
NOW = 1_800_000_000.0  # 2027
PROBABILITIES = TensorSpec("p", DType.FLOAT32, (1, 3), (1, 3))
QUANTISED = TensorSpec("q", DType.UINT8, (1, 3), (1, 3), scale=1 / 256)
WHOLE = TensorSpec("n", DType.INT32, (1, 3), (1, 3))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "is a list of 0; expected an object"),
        ({"sample": 1}, "has the unknown key 'sample'; known: sample_percent, "),
        ({"sample_percent": 0}, "sample_percent is 0; expected a number above 0, at most 100"),
        ({"sample_percent": True}, "sample_percent is true; expected a number"),
        ({"sample_percent": "5"}, "sample_percent is '5'; expected a number"),
        ({"sample_percent": float("nan")}, "sample_percent is NaN; expected a number"),
        ({"every_nth": 1.5}, "every_nth is 1.5; expected a whole number from 1 to 1e+09"),
        ({"every_nth": 10**4000}, "every_nth is 10000"),
        ({"class_seen": []}, "class_seen is a list of 0; expected a list of 1 to 1000 numbers of classes"),
        ({"class_seen": [-1]}, "class_seen is a list of 1; expected numbers of classes, each a whole number from 0"),
        ({"on_request": "X-Keep"}, "on_request is 'X-Keep'; expected the key of a call's metadata"),
        ({"on_request": "keep-bin"}, "expected the key of a call's metadata"),
        ({"on_request": "grpc-keep"}, "expected the key of a call's metadata"),
        ({"errors": None}, "errors is null; expected true or false"),
        ({"records_per_day": 5}, "keeps nothing; expected one of sample_percent, "),
        ({"errors": False}, "keeps nothing"),
    ],
)
def test_a_policy_that_is_none(given: Any, words: str) -> None:  # [K-1]
    with pytest.raises(PolicyFault, match=re.escape(words)):
        parse_policy(given)


def test_all_faults_of_all_policies_are_told() -> None:  # [K-1]
    with pytest.raises(PolicyFault) as fault:
        parse_policies({"a_b": {}, "m": {"every_nth": 0, "seed": -1}, "n": 3})
    assert str(fault.value).count("; expected") == 4
    assert "'m': every_nth is 0" in str(fault.value) and "'n': is 3" in str(fault.value)
    with pytest.raises(PolicyFault, match="has 257 policies"):
        parse_policies({f"m{number}": {} for number in range(257)})


def test_the_policies_of_the_specification() -> None:  # [K-1]
    block, _ = json_blocks(ROOT / "docs" / "spec" / "capture-policies.md")
    found = parse_policies(config(block))
    assert found["digits"].class_seen == (3, 8) and not found["private"].keeps


def test_policies_as_text() -> None:  # [K-1]
    assert config('"{\\"m\\": {\\"every_nth\\": 2}}"') == {"m": {"every_nth": 2}}
    assert config('""') == {}
    with pytest.raises(ConfigError, match="edge_capture_policies is text; expected an object"):
        config('"m"')


def test_the_policy_of_a_declaration() -> None:  # [K-1] [M-1]
    text = b'{"package": "/p", "capture": {"class_seen": [1, 2], "sample_percent": 5, "seed": 0}}'
    found = declaration.parse(text)
    assert found.capture == Policy(class_seen=(1, 2), sample_percent=5.0, seed=0)
    assert declaration.parse(declaration.to_bytes(found)) == found
    assert declaration.parse(b'{"package": "/p", "capture": {}}').capture == Policy()
    with pytest.raises(DeclarationError, match="has a capture that every_nth is 0; expected a whole number from 1"):
        declaration.parse(b'{"package": "/p", "capture": {"every_nth": 0}}')
    many = ", ".join(map(str, range(1000)))
    assert (
        len(declaration.parse(b'{"package": "/p", "capture": {"class_seen": [%s]}}' % many.encode()).capture.class_seen)
        == 1000
    )  # type: ignore[union-attr]


def config(value: str) -> Any:
    text = (
        '{"sagemaker_edge_core_device_name": "d", "sagemaker_edge_core_device_fleet_name": "f", '
        '"sagemaker_edge_core_root_certs_path": "/r", "sagemaker_edge_core_capture_data_disk_path": "/c", '
        f'"edge_capture_policies": {value}}}'
    )
    return parse_config(text.encode()).config.edge_capture_policies


def reasons(policy: Policy, spec: TensorSpec, values: Any) -> list[str]:
    array = np.asarray(values, {DType.UINT8: "u1", DType.INT32: "<i4"}.get(spec.dtype, "<f4"))
    return Triggers(policy, (spec,)).reasons([array])


def test_quantised_outputs_count_as_what_they_stand_for() -> None:  # [K-3]
    policy = Policy(max_probability_below=0.5, margin_below=0.1)
    assert reasons(policy, QUANTISED, [[120, 100, 36]]) == ["max_probability_below", "margin_below"]
    assert reasons(policy, QUANTISED, [[200, 56, 0]]) == []


def test_one_row_is_enough() -> None:  # [K-3]
    policy = Policy(class_seen=(2,), max_probability_above=0.9)
    assert reasons(policy, PROBABILITIES, [[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]]) == ["class_seen"]
    assert reasons(policy, WHOLE, [[0, 0, 7]]) == ["max_probability_above", "class_seen"]


@pytest.mark.parametrize("values", [[], [[]], 0.2, [0.2]])
def test_outputs_without_two_classes(values: Any) -> None:  # [K-3]
    policy = Policy(
        class_seen=(0,), margin_below=1.0, max_probability_below=0.1, unlike_mean_sigmas=1.0, nan_or_inf=True
    )
    assert reasons(policy, PROBABILITIES, values) == []


@pytest.mark.parametrize("classes", [2, 10, 200])
def test_few_and_many_values_are_looked_at_alike(classes: int) -> None:  # [K-3]
    policy = Policy(
        max_probability_below=0.3, max_probability_above=0.9, margin_below=0.05, class_seen=(1,), nan_or_inf=True
    )
    spec = TensorSpec("p", DType.FLOAT32, (1, classes), (1, classes))
    noise = np.random.default_rng(2)
    for special in (0.0, np.nan, np.inf, -np.inf):
        for _ in range(50):
            row = noise.random((1, classes)).astype("<f4") ** 9
            row[0, noise.integers(classes)] += np.float32(special)
            many = np.repeat(row, 1 + 200 // classes, axis=0)  # more than FEW_VALUES: the same rows by numpy
            assert reasons(policy, spec, row) == reasons(policy, spec, many), row


@pytest.mark.parametrize("classes", [2, 200])
def test_whole_numbers_and_booleans_count_as_numbers(classes: int) -> None:  # [K-3]
    policy = Policy(margin_below=1.5, max_probability_above=0.5)
    for dtype, numpy_dtype, low, high, reason in (
        (DType.INT8, np.int8, -128, 127, ["max_probability_above"]),
        (DType.BOOL, np.bool_, False, True, ["max_probability_above", "margin_below"]),
    ):
        row = np.full((1, classes), low, numpy_dtype)
        row[0, 0] = high
        assert Triggers(policy, (TensorSpec("p", dtype, (1, classes), (1, classes)),)).reasons([row]) == reason


def test_values_that_are_no_numbers() -> None:  # [K-3]
    everything = Policy(nan_or_inf=True, margin_below=0.1, class_seen=(1,), max_probability_above=0.5)
    assert "nan_or_inf" in reasons(everything, PROBABILITIES, [[np.inf, -np.inf, np.inf]])
    assert "nan_or_inf" in reasons(everything, PROBABILITIES, [[np.nan, 0, 0]])


def test_a_mean_follows_and_takes_no_rounding_for_a_change() -> None:  # [K-3]
    triggers = Triggers(Policy(unlike_mean_sigmas=4), (PROBABILITIES,))
    noise = np.random.default_rng(1)

    def ask(*values: float) -> bool:
        return bool(triggers.reasons([np.array([values], "<f4")]))

    assert not any(ask(0.5, 0.25, 0.2 + 0.01 * noise.standard_normal()) for _ in range(MEAN_CALLS + 1))
    assert not ask(0.5000002, 0.25, 0.2)
    assert ask(0.5, 0.25, 0.3)
    assert ask(0.6, 0.25, 0.2)
    assert not ask(np.nan, 0.25, 0.2)
    assert not any(ask(0.9, 0.9) for _ in range(3))  # another shape has means of its own


def ask(watch: Watch, since: float = 0.0, outputs: Any = ()) -> tuple[str, ...] | None:
    """Why a call would be captured that began then."""
    number = watch.number(since)
    return watch.reasons(number, since, {}.get, outputs) if number else None


def test_an_output_that_the_model_lacks(caplog: pytest.LogCaptureFixture) -> None:  # [K-3]
    watch = Watch("m", Policy(class_seen=(1,), output="x"), Budget(Policy()), (PROBABILITIES,))
    assert ask(watch, 0.0, [np.zeros((1, 3), "<f4")]) is None
    assert "model m: its capture policy names output 'x'; its outputs are 'p'" in caplog.text


def test_a_defect_in_a_reason_costs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch("m", Policy(nan_or_inf=True, every_nth=2), Budget(Policy()), (PROBABILITIES,))
    assert ask(watch) is None
    assert "no longer looked at" in caplog.text
    assert ask(watch) == ("every_nth",)


def test_a_sample_is_as_large_as_it_is_said() -> None:  # [K-3]
    watch = Watch("m", Policy(sample_percent=10, seed=1), Budget(Policy()), ())
    kept = sum(ask(watch) is not None for _ in range(20_000))
    assert 1800 < kept < 2200


def test_a_rate_is_one_of_time() -> None:  # [K-3]
    watch = Watch("m", Policy(rate_per_minute=6), Budget(Policy()), ())
    kept = [second for second in range(60) if ask(watch, 100.0 + second)]
    assert kept == [0, 10, 20, 30, 40, 50]


def test_a_budget() -> None:  # [K-4]
    budget = Budget(Policy(records_per_day=2, mib_per_day=1))
    assert budget.reserve() and budget.reserve() and not budget.reserve()
    budget.take(1 << 19)
    with pytest.raises(BudgetSpentError, match="524288 bytes were captured today, 524289 more would pass mib_per_day"):
        budget.take((1 << 19) + 1)
    budget.begin()
    assert budget.reserve()
    budget.give_back()
    assert budget.records == 0
    budget.resize(Policy(records_per_day=1))
    assert budget.reserve() and budget.spent
    budget.begin()
    budget.give_back(100)  # of the day before
    assert (budget.records, budget.bytes) == (0, 0)


def test_a_budget_that_a_record_did_not_fit_stays_spent() -> None:  # [K-4]
    budget = Budget(Policy(records_per_day=3, mib_per_day=1))
    assert budget.reserve() and budget.reserve()
    budget.take(1 << 19)
    with pytest.raises(BudgetSpentError):
        budget.take((1 << 19) + 1)
    budget.give_back(1 << 19)  # another failed meanwhile
    assert budget.spent and not budget.reserve()
    budget.begin()
    assert budget.reserve()
    with pytest.raises(BudgetSpentError):
        budget.take((1 << 20) + 1)  # larger than any day: others may fit
    assert not budget.spent


def test_a_day_of_a_clock_that_is_set() -> None:  # [K-4]
    day = Day()

    def begins(now: float, monotonic: float = 1000.0, *, synchronised: bool = False) -> bool:
        return day.begins(now, monotonic, lambda: synchronised)

    assert not begins(0.0)  # 1970: nothing is known yet
    assert begins(NOW) and not begins(NOW)
    assert not begins(0.0) and not begins(NOW)
    assert begins(NOW + DAY)
    assert not begins(NOW) and not begins(NOW + DAY)  # set back, and right again: the same day
    day = Day()
    day.day = "2027-01-15"  # as noted; each boot begins in the past
    for _ in range(3):
        assert not begins(NOW - 300 * DAY) and not begins(NOW)
    assert begins(NOW + DAY, synchronised=True)
    day = Day()
    day.day = "2099-01-01"  # the clock was in the future once
    assert not begins(NOW, synchronised=True) and begins(NOW + DAY)
    day = Day()
    day.day = "2099-01-01"  # and nothing sets it on this board
    assert not begins(NOW) and not begins(NOW + DAY, 1000.0 + DAY - 1)
    assert begins(NOW + DAY, 1000.0 + DAY) and begins(NOW + 2 * DAY)


@pytest.mark.parametrize(
    "value", [None, [], {"day": "x", "used": {}}, {"day": "2027-01-15", "used": {"m": 1}}, {"day": 1}]
)
def test_a_note_that_is_none(value: Any) -> None:  # [K-4]
    assert read(value) == ("", {})
    budget = Budget(Policy())
    budget.begin(3, 500)
    assert read(noted("2027-01-15", [("m", budget)])) == ("2027-01-15", {"m": (3, 500)})
