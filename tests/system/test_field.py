"""What applications in the field send beside the rules, by stubs from a definition of their own (docs/migrate.md)."""

import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.package.adapter import read_adapters
from tests.data.make_models import identity
from tests.fakes import captures
from tests.system.conftest import MODELS, Signer, run_tool
from tests.system.field_messages import messages
from tests.system.harness import AgentProcess, Client, eventually
from tests.system.segments import Segment

Refused = Callable[..., AbstractContextManager[Any]]
FIELD = messages("2022")
UINT8, INT32, FLOAT32, INT8 = 0, 2, 5, 7


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
) -> None:  # [H-1] [D] [LM]
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


PIXELS = bytes(range(48))


@pytest.fixture
def pixels(client: Client, signer: Signer) -> Client:
    """A model `pixels`: `y` is `x`, UINT8 [1, 4, 4, 3]."""
    client.load(made_once(signer, "uint8", (1, 4, 4, 3)), "pixels")
    return client


def made_once(signer: Signer, dtype: str, shape: tuple[int, ...]) -> Path:
    """A package of a model whose `y` is its `x`."""
    name = f"{dtype}-" + "-".join(map(str, shape))
    path = signer.folder / name
    return path if path.exists() else signer.package(identity(dtype, shape), name, out=path)


def predict(client: Client, name: str, *tensors: Any) -> list[Any]:
    return list(call(client, "Predict", name=name, tensors=tensors).tensors)


def mislabelled(client: Client, name: str) -> int:
    return next(int(model.mislabelled) for model in client.status().models if model.name == name)


def test_pixels_declared_as_floats_are_taken(agent: AgentProcess, pixels: Client) -> None:  # [P-12]
    for count in (1, 2, 3):
        [answer] = predict(pixels, "pixels", tensor("x", FLOAT32, (1, 4, 4, 3), PIXELS))
        assert answer.byte_data == PIXELS and answer.tensor_metadata.data_type == UINT8
        assert mislabelled(pixels, "pixels") == count
    predict(pixels, "pixels", tensor("x", UINT8, (1, 4, 4, 3), PIXELS))
    assert mislabelled(pixels, "pixels") == 3
    said = "model pixels: tensor 'x' is declared as FLOAT32 [1, 4, 4, 3], which does not match its bytes"
    eventually(lambda: said in agent.log, what=said)
    assert agent.log.count(said) == 1


def test_pixels_declared_as_floats_are_captured_as_pixels(agent: AgentProcess, pixels: Client) -> None:  # [P-12] [C-8]
    inline = tensor("x", FLOAT32, (1, 4, 4, 3), PIXELS)
    with Segment(len(PIXELS)) as segment:
        segment.write(PIXELS).set_mode(0o400)
        handle = FIELD.SharedMemoryHandle(segment_id=segment.id, size=len(PIXELS))
        shared = FIELD.Tensor(
            tensor_metadata=FIELD.TensorMetadata(name="y", data_type=FLOAT32, shape=(1, 4, 4, 3)),
            shared_memory_handle=handle,
        )
        both = {"input_tensors": [inline], "output_tensors": [shared]}
        call(pixels, "CaptureData", model_name="pixels", capture_id="pixels", **both)
    event = event_of(agent, "pixels")
    for entry in (*event["deviceFleetInputs"], *event["deviceFleetOutputs"]):
        assert entry["observedContentType"] == "Tensor[UINT8; 1, 4, 4, 3]"
        assert captures.entry_bytes(entry, agent.captures) == PIXELS
    assert mislabelled(pixels, "pixels") == 1


def test_a_declaration_that_agrees_with_its_bytes_holds(
    pixels: Client, signer: Signer, refused: Refused
) -> None:  # [P-2]
    with refused("INVALID_ARGUMENT", "'x'", "got data type INT8, expected UINT8"):
        predict(pixels, "pixels", tensor("x", INT8, (1, 4, 4, 3), PIXELS))
    pixels.load(made_once(signer, "float32", (1, 4)), "floats")
    with refused("INVALID_ARGUMENT", "'x'", "got data type INT32, expected FLOAT32"):
        predict(pixels, "floats", tensor("x", INT32, (1, 4), bytes(16)))
    assert mislabelled(pixels, "pixels") == mislabelled(pixels, "floats") == 0


def test_strict_tensors_are_what_they_are_declared(
    agents: Any, signer: Signer, refused: Refused
) -> None:  # [P-12] [C-8]
    client = agents(edge_strict_tensors=True).start().client
    client.load(made_once(signer, "uint8", (1, 4, 4, 3)), "pixels")
    wrong = tensor("x", FLOAT32, (1, 4, 4, 3), PIXELS)
    with refused("INVALID_ARGUMENT", "got data type FLOAT32, expected UINT8", "edge_strict_tensors"):
        predict(client, "pixels", wrong)
    with refused("INVALID_ARGUMENT", "'x'", "got 48 bytes, expected 192 for FLOAT32"):
        call(client, "CaptureData", model_name="pixels", capture_id="strict", input_tensors=[wrong])


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (3, 4, 4)])
def test_the_order_that_would_fit_is_said_on_both_sides(
    agent: AgentProcess, pixels: Client, refused: Refused, shape: tuple[int, ...]
) -> None:  # [P-2]
    order = {4: "(0, 2, 3, 1)", 3: "(1, 2, 0)"}[len(shape)]
    begun = len(agent.log)
    words = (f"got shape {list(shape)}, expected [1, 4, 4, 3]", f"its dimensions fit in the order {order}")
    with refused("INVALID_ARGUMENT", *words):
        predict(pixels, "pixels", tensor("x", UINT8, shape, PIXELS))
    line = f"model pixels: a request is refused: tensor 'x': {words[0]}; {words[1]}"
    eventually(lambda: line in agent.log[begun:], what=line)


def test_each_kind_of_refusal_is_in_the_log_once(
    agent: AgentProcess, pixels: Client, refused: Refused
) -> None:  # [P-18]
    begun = len(agent.log)
    metadata = FIELD.TensorMetadata(name="x", data_type=UINT8, shape=(1, 4, 4, 3))
    with Segment(48) as segment:
        segment.set_mode(0o600)
        handle = FIELD.SharedMemoryHandle(segment_id=segment.id, size=48)
        shared = FIELD.Tensor(tensor_metadata=metadata, shared_memory_handle=handle)
        for _ in range(2):
            with refused("INVALID_ARGUMENT", "its mode is 0600"):
                predict(pixels, "pixels", shared)
            for size in (47, 49):
                with refused("INVALID_ARGUMENT", f"got {size} bytes"):
                    predict(pixels, "pixels", tensor("x", UINT8, (1, 4, 4, 3), bytes(size)))
            with refused("INVALID_ARGUMENT", "name is empty"):
                unnamed = [tensor("", UINT8, (1,), b"1")]
                call(pixels, "CaptureData", model_name="pixels", capture_id="unnamed", input_tensors=unnamed)
    line = "model pixels: a request is refused:"
    eventually(lambda: agent.log[begun:].count(line) >= 3, what="three lines in the log")
    said = agent.log[begun:]
    assert said.count(line) == 3
    assert all(words in said for words in ("its mode is 0600", "got 47 bytes", "name is empty"))


def test_too_few_bytes_are_read_both_ways(client: Client, signer: Signer, refused: Refused) -> None:  # [P-2]
    client.load(made_once(signer, "float32", (1, 4)), "floats")
    words = (
        "got 4 bytes, expected 16 for FLOAT32 [1, 4]",
        "as many bytes as UINT8 [1, 4] takes, or a number of elements in place of one of bytes",
    )
    short = tensor("x", FLOAT32, (1, 4), bytes(4))
    with refused("INVALID_ARGUMENT", *words, "the model takes FLOAT32"):
        predict(client, "floats", short)
    with refused("INVALID_ARGUMENT", *words):
        call(client, "CaptureData", model_name="floats", capture_id="short", input_tensors=[short])


def test_leading_ones_may_be_left_out_or_added(
    agent: AgentProcess, client: Client, signer: Signer
) -> None:  # [P-8] [C-8]
    client.load(made_once(signer, "float32", (1, 4)), "floats")
    shapes = {"leading-1": (4,), "leading-2": (1, 4), "leading-3": (1, 1, 4)}
    for capture_id, shape in shapes.items():
        sent = tensor("x", FLOAT32, shape, bytes(range(16)))
        [answer] = predict(client, "floats", sent)
        assert answer.byte_data == bytes(range(16)) and list(answer.tensor_metadata.shape) == [1, 4]
        call(client, "CaptureData", model_name="floats", capture_id=capture_id, input_tensors=[sent])
    for capture_id, shape in shapes.items():
        [entry] = event_of(agent, capture_id)["deviceFleetInputs"]
        assert entry["observedContentType"] == f"Tensor[FLOAT32; {', '.join(map(str, shape))}]"
    assert mislabelled(client, "floats") == 0


def adapted(signer: Signer, model: bytes | Path, **sides: Any) -> Path:
    """A package of a model with an adapter."""
    count = sum(1 for _ in signer.folder.iterdir())
    file = signer.folder / f"adapter-{count}.json"
    file.write_text(json.dumps(sides))
    return signer.package(model, f"adapted-{count}", "--adapter", str(file))


def test_a_package_accepts_another_shape(
    agent: AgentProcess, client: Client, signer: Signer, refused: Refused
) -> None:  # [S-9]
    package = adapted(signer, identity("uint8", (1, 3, 4, 4)), inputs=[{"name": "x", "accept_shape": [1, 4, 4, 3]}])
    model = call(client, "LoadModel", url=str(package), name="shapes").model
    assert list(model.input_tensor_metadatas[0].shape) == [1, 3, 4, 4]
    for shape in ((1, 4, 4, 3), (1, 3, 4, 4), (3, 4, 4)):
        for _ in range(2):
            [answer] = predict(client, "shapes", tensor("x", UINT8, shape, PIXELS))
            assert answer.byte_data == PIXELS
    with refused(
        "INVALID_ARGUMENT", "got shape [4, 4, 3], expected [1, 3, 4, 4]; its dimensions fit in the order (2, 0, 1)"
    ):
        predict(client, "shapes", tensor("x", UINT8, (4, 4, 3), PIXELS))


def test_an_adapter_shows_the_model_that_the_application_knows(
    agent: AgentProcess, client: Client, signer: Signer
) -> None:  # [S-9] [D] [P-12] [C-8]
    package = adapted(
        signer,
        identity("float32", (1, 2, 2, 3)),
        inputs=[{"name": "x", "as": "UINT8", "scale": 0.5, "layout": "NCHW"}],
        outputs=[{"name": "y", "as": "INT32"}],
    )
    model = call(client, "LoadModel", url=str(package), name="adapted").model
    assert call(client, "DescribeModel", name="adapted").model == model
    [seen], [given] = model.input_tensor_metadatas, model.output_tensor_metadatas
    assert (seen.data_type, list(seen.shape)) == (UINT8, [1, 3, 2, 2])
    assert (given.data_type, list(given.shape)) == (INT32, [1, 2, 2, 3])
    picture = np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2)
    expected = np.rint(picture.transpose(0, 2, 3, 1) / 2).astype("<i4")
    with Segment(12) as segment:
        segment.write(picture.tobytes()).set_mode(0o400)
        metadata = FIELD.TensorMetadata(name="x", data_type=UINT8, shape=(1, 3, 2, 2))
        handle = FIELD.SharedMemoryHandle(segment_id=segment.id)
        shared = FIELD.Tensor(tensor_metadata=metadata, shared_memory_handle=handle)
        inline = tensor("x", UINT8, (1, 3, 2, 2), picture.tobytes())
        bare = FIELD.Tensor(byte_data=picture.tobytes())
        wrong = tensor("x", FLOAT32, (1, 3, 2, 2), picture.tobytes())
        for sent in (shared, inline, inline, bare, wrong):
            [answer] = predict(client, "adapted", sent)
            assert answer.tensor_metadata == given
            assert answer.byte_data == expected.tobytes()
    assert mislabelled(client, "adapted") == 1


def test_a_layout_goes_with_shapes_that_the_caller_chooses(client: Client, signer: Signer) -> None:  # [S-9] [P-13]
    layout = [{"name": "picture", "layout": "NCHW"}]
    client.load(adapted(signer, MODELS / "dynamic_picture.tflite", inputs=layout), "pictures")
    picture = np.arange(60, dtype="<f4").reshape(1, 3, 5, 4)
    for _ in range(2):
        [answer] = predict(client, "pictures", tensor("picture", FLOAT32, picture.shape, picture.tobytes()))
        assert np.allclose(np.frombuffer(answer.byte_data, "<f4"), picture.mean(axis=(0, 2, 3)))


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        (
            {"inputs": [{"name": "z", "as": "INT32"}]},
            "'z' of inputs, which is none of the model's or another name of one; it has 'x'",
        ),
        ({"inputs": [{"name": "x", "layout": "NCHW"}]}, "'x' has shape [1, 4]; a layout needs four dimensions"),
        ({"outputs": [{"name": "y", "as": "UINT8"}]}, "'y' as UINT8 needs scale"),
    ],
)
def test_an_adapter_that_does_not_fit_refuses_the_load(
    client: Client, signer: Signer, refused: Refused, sides: dict[str, Any], words: str
) -> None:  # [S-9] [L-4] [L-9]
    with pytest.raises(AssertionError, match=re.escape(words)):
        adapted(signer, identity("float32"), **sides)
    adapters = {side: read_adapters(entries, side) for side, entries in sides.items()}
    package = signer.sign_anything(identity("float32"), **adapters)
    with refused("FAILED_PRECONDITION", words):
        call(client, "LoadModel", url=str(package), name="misfit")
    assert "misfit" not in [model.name for model in client.models()]


def test_an_adapter_is_signed_with_its_package(client: Client, signer: Signer, refused: Refused) -> None:  # [S-9] [S-5]
    package = adapted(signer, identity("float32"), outputs=[{"name": "y", "as": "INT32"}])
    verified = run_tool("verify", str(package), "--trust", str(signer.roots)).stdout
    assert "adapts    y: applications see them otherwise than the model has them" in verified
    manifest = package / "sagemaker_edge_manifest"
    manifest.write_text(manifest.read_text().replace("INT32", "INT16"))
    with refused("FAILED_PRECONDITION"):
        call(client, "LoadModel", url=str(package), name="altered")
