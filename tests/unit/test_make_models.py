"""The committed test models are what their script makes."""

import pytest

from tests.data import make_models

MODELS = make_models.models()


@pytest.mark.parametrize("name", MODELS)
def test_committed_model_is_as_made(name: str) -> None:
    assert (make_models.HERE / name).read_bytes() == MODELS[name], "run: python -m tests.data.make_models"


def test_no_other_model_is_committed() -> None:
    assert {path.name for path in make_models.HERE.glob("*.tflite")} == set(MODELS)
