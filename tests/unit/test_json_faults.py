"""What a person is told of a text that is not JSON."""

import json

import pytest

from edge import json_faults


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1,}', "a comma after the last entry"),
        ('{"a": [1, 2,\n]}', "a comma after the last entry"),
        ('{\n  // the device\n  "a": 1}', "line 2, column 3: a comment"),
        ('{"a": 1 # one\n}', "a comment"),
        ("{'a': 1}", "a single quote"),
        ("{\"a\": 'b'}", "a single quote"),
        ('{"a": 1\n "b": 2}', "line 2, column 2: a comma is missing"),
        ('{"a": True}', "true, false and null in lower case"),
        (" \n", "the text is empty"),
        ('{"a" 1}', "Expecting ':' delimiter"),
    ],
)
def test_the_likely_cause_is_named(text: str, told: str) -> None:
    with pytest.raises(json.JSONDecodeError) as refused:
        json.loads(text)
    assert told in json_faults.explain(refused.value)
