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
        ('{"a" 1}', "expected a colon after the name"),
        ("{a: 1}", "column 2: text without quotes"),
        ('{"a": hello}', "column 7: text without quotes"),
        ('{"a": /var/x}', "text without quotes"),
        ("{\u201ca\u201d: 1}", "a typographic quote"),
        ('{"a": 1} x', "there is more after the end"),
        ('{"a', "the closing double quote of this text is missing"),
        ('{"a": "\n"}', "control character in a text"),
        ('{"a": "\\q"}', "a backslash that begins nothing"),
        ("[1 2]", "expected a comma, or the closing ]"),
        ('{"a": 1', "the text ends too early"),
        ('{"a": }', "expected a value"),
        ("{1: 2}", "expected a name in double quotes"),
        ("\ufeff{}", "a byte order mark"),
    ],
)
def test_the_likely_cause_is_named(text: str, told: str) -> None:
    with pytest.raises(json.JSONDecodeError) as refused:
        json.loads(text)
    assert told in json_faults.explain(refused.value)
