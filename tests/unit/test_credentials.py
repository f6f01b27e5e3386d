"""Keys out of the environment. Those of AWS IoT are in tests/system/test_cloud_credentials.py, with a real endpoint."""

import pytest

from edge.cloud.aws.credentials import EnvironmentCredentials
from edge.cloud.aws.sigv4 import Keys
from edge.cloud.retry import Outcome
from edge.cloud.store import StoreError

PAIR = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.mark.parametrize(
    ("environment", "keys"),
    [
        (PAIR, Keys("AKIA", "secret")),
        ({**PAIR, "AWS_SESSION_TOKEN": "token"}, Keys("AKIA", "secret", "token")),
        ({**PAIR, "AWS_SESSION_TOKEN": ""}, Keys("AKIA", "secret")),
        ({**PAIR, "AWS_SECRET_ACCESS_KEY": " secret\n"}, Keys("AKIA", "secret")),
    ],
)
def test_keys(environment: dict[str, str], keys: Keys) -> None:
    assert EnvironmentCredentials(environment).get() == keys


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "AKIA"}, "AWS_SECRET_ACCESS_KEY"),
        ({**PAIR, "AWS_ACCESS_KEY_ID": " "}, "AWS_ACCESS_KEY_ID"),
        ({**PAIR, "AWS_SECRET_ACCESS_KEY": "se\ncret"}, "AWS_SECRET_ACCESS_KEY in"),
        ({**PAIR, "AWS_SESSION_TOKEN": "t\u00f6ken"}, "AWS_SESSION_TOKEN in"),
    ],
)
def test_environments_without_keys(environment: dict[str, str], words: str) -> None:
    source = EnvironmentCredentials(environment)
    with pytest.raises(StoreError, match=words) as raised:
        source.check()
    assert raised.value.verdict.outcome is Outcome.WAIT_CREDENTIALS
    for value in environment.values():
        assert len(value) < 5 or value not in str(raised.value)


def test_another_process_would_be_needed_for_other_keys() -> None:
    source = EnvironmentCredentials(PAIR)
    source.reject(source.get())
    assert source.get() == Keys("AKIA", "secret")
