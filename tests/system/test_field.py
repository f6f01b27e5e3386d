"""What applications in the field send beside the rules, by stubs from a definition of their own (docs/migrate.md)."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tests.fakes import captures
from tests.system.field_messages import messages
from tests.system.harness import AgentProcess, Client

Refused = Callable[..., AbstractContextManager[Any]]
FIELD = messages("2022")
FLOAT32 = 5


def call(client: Client, method: str, **fields: Any) -> Any:
    """A call with the application's own messages."""
    return client.call(method, getattr(FIELD, f"{method}Request")(**fields), getattr(FIELD, f"{method}Response"))


def tensor(name: str, dtype: int, shape: tuple[int, ...], data: bytes) -> Any:
    return FIELD.Tensor(tensor_metadata=FIELD.TensorMetadata(name=name, data_type=dtype, shape=shape), byte_data=data)


def event_of(agent: AgentProcess, capture_id: str) -> dict[str, Any]:
    """The record of a capture that is SUCCESS."""
    agent.client.wait_captured(capture_id)
    [event] = [e for _, e in captures.records(agent.captures) if e["eventMetadata"]["eventId"] == capture_id]
    return event


def test_a_handle_is_the_name(
    agent: AgentProcess, client: Client, package_of: Callable[[str], Path]
) -> None:  # [L] [D] [LM] [P] [U] [C] [H-1]
    loaded = call(client, "LoadModel", url=str(package_of("add_one")), handle="by-handle").model
    assert (loaded.name, loaded.handle) == ("by-handle", "by-handle")
    assert loaded in call(client, "ListModels").models
    assert call(client, "DescribeModel", handle="by-handle").model == loaded
    for fields in ({"handle": "by-handle"}, {"name": "by-handle"}, {"name": "by-handle", "handle": "by-handle"}):
        for _ in range(2):  # the second is recognised by its bytes
            answer = call(client, "Predict", tensors=[tensor("x", FLOAT32, (1, 4), bytes(16))], **fields)
            assert answer.tensors[0].byte_data == b"\0\0\x80?" * 4
    note = FIELD.AuxiliaryData(name="note", encoding=1, byte_data=b"{}")
    call(client, "CaptureData", model_handle="by-handle", capture_id="by-handle", inputs=[note])
    assert event_of(agent, "by-handle")["eventMetadata"]["modelName"] == "add-one"
    call(client, "UnLoadModel", handle="by-handle")
    assert "by-handle" not in [model.handle for model in call(client, "ListModels").models]


def test_a_name_and_another_handle_are_refused(
    client: Client, package_of: Callable[[str], Path], refused: Refused
) -> None:  # [H-1]
    url = str(package_of("add_one"))
    call(client, "LoadModel", url=url, name="named")
    both = {"name": "named", "handle": "other\x1b"}
    for method, fields in (
        ("LoadModel", {"url": url, **both}),
        ("DescribeModel", both),
        ("Predict", both),
        ("UnLoadModel", both),
        ("CaptureData", {"model_name": "named", "model_handle": "other\x1b", "capture_id": "two-names"}),
    ):
        with refused("INVALID_ARGUMENT", "'named'", r"'other\x1b'", "expected one"):
            call(client, method, **fields)
    assert "named" in [model.name for model in client.models()]
