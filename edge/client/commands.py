"""What each command does: talk to the agent, print what it said, return the exit code."""

import time
import uuid
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from edge.client import inputs, original, picture, show
from edge.client.connection import HEALTH, Agent, enum_name, peer_credentials
from edge.client.outcome import Exit, InputError
from edge.client.segment import Segment
from edge.rpc._generated import agent_pb2 as pb

POLL_SECONDS = 0.05
EXAMPLE_WAIT_SECONDS = 10.0


def agent_of(options: Namespace) -> Agent:
    """The agent that the options name."""
    return Agent(options.socket, options.timeout)


def list_models(options: Namespace) -> Exit:
    """Loaded models, a paragraph each."""
    with agent_of(options) as agent:
        models = agent.list_models()
    if options.json:
        show.as_json({"models": [show.model_json(one) for one in models]})
    elif original.is_original(options):
        print(original.ended(options, *original.listed([one.name for one in models])))
    else:
        print("\n".join(show.model(one) for one in models) or "no models are loaded")
    return Exit.OK


def load_model(options: Namespace) -> Exit:
    """Loads a package. A relative path is the caller's, who may stand elsewhere than the agent."""
    url = options.path if options.path.startswith("file:") else str(Path(options.path).absolute())
    with agent_of(options) as agent:
        one = agent.load(url, options.name)
    _print_model(options, one, f"Model {one.name} located at  {url} loaded")
    return Exit.OK


def describe_model(options: Namespace) -> Exit:
    """One loaded model."""
    with agent_of(options) as agent:
        one = agent.describe(options.name)
    _print_model(options, one, f"Model {one.name} has been loaded")
    return Exit.OK


def _print_model(options: Namespace, one: pb.Model, as_original: str) -> None:
    if options.json:
        show.as_json(show.model_json(one))
    elif original.is_original(options):
        print(original.ended(options, as_original, *show.tensors(one)))
    else:
        print(show.model(one))


def unload_model(options: Namespace) -> Exit:
    """Unloads a model."""
    with agent_of(options) as agent:
        agent.unload(options.name)
    if options.json:
        show.as_json({"unloaded": options.name})
    elif original.is_original(options):
        print(original.ended(options, f"Model {options.name} has been unloaded"))
    else:
        print(f"{options.name} is unloaded")
    return Exit.OK


def reset_state(options: Namespace) -> Exit:
    """Lets a model that keeps state forget it."""
    with agent_of(options) as agent:
        agent.reset(options.name)
    if options.json:
        show.as_json({"reset": options.name})
    else:
        print(f"{options.name} starts anew")
    return Exit.OK


def health(options: Namespace) -> Exit:
    """SERVING or not, of the agent or of one model."""
    from grpc_health.v1 import health_pb2

    request = health_pb2.HealthCheckRequest(service=options.name or "")
    with agent_of(options) as agent:
        reply = agent.call(HEALTH + "Check", request, health_pb2.HealthCheckResponse)
    state = enum_name(health_pb2.HealthCheckResponse.ServingStatus, reply.status)
    if options.json:
        show.as_json({"name": options.name or "", "health": state}, fault="" if state == "SERVING" else state)
    else:
        print(state)
    return Exit.OK if state == "SERVING" else Exit.REFUSED


def capture_status(options: Namespace) -> Exit:
    """How a capture stands."""
    with agent_of(options) as agent:
        state = _await_capture(agent, options.capture_id, options.wait)
    if options.json:
        fault = "the capture failed" if state == "FAILURE" else ""
        show.as_json({"capture_id": options.capture_id, "status": state}, fault)
    else:
        print(state)
    return Exit.REFUSED if state == "FAILURE" else Exit.OK


def _await_capture(agent: Agent, capture_id: str, seconds: float) -> str:
    """The capture's state once it is final, or as it is after `seconds`."""
    end = time.monotonic() + seconds
    while (state := agent.capture_status(capture_id)) == "IN_PROGRESS" and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    return state


def predict(options: Namespace) -> Exit:
    """Runs a loaded model on files."""
    labels = _labels(options.labels)
    with agent_of(options) as agent:
        wanted = agent.describe(options.name).input_tensor_metadatas
        arrays = inputs.read_inputs(options.inputs, list(wanted))
        return _run(agent, options, arrays, labels)


def predict_picture(options: Namespace) -> Exit:
    """The original client's Predict, PredictSHM, PredictAndCapture and PredictSHMAndCapture."""
    with agent_of(options) as agent:
        wanted = list(agent.describe(options.name).input_tensor_metadatas)
        metadata = next((m for m in wanted if m.name == options.input_name), None)
        if metadata is None:
            names = ", ".join(m.name for m in wanted)
            raise InputError(f"the model has no input {options.input_name!r}; it takes {names}")
        pixels = picture.read(options.picture)
        if original.is_original(options):
            print("Done reading the image")
        size, layout = options.size, options.size.layout
        array = inputs.from_picture(pixels, metadata, (size.width, size.height, size.channels), layout)
        return _run(agent, options, [(metadata.name, array)], [])


def _labels(file: str | None) -> list[str]:
    if file is None:
        return []
    try:
        return Path(file).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: {error}") from None


def _run(agent: Agent, options: Namespace, arrays: list[tuple[str, inputs.Array]], labels: list[str]) -> Exit:
    """Predict, perhaps capture, and print."""
    with ExitStack() as segments:
        reader = peer_credentials(options.socket) if options.shm else None
        tensors = []
        for name, array in arrays:
            if options.shm:
                segment = segments.enter_context(Segment(array.nbytes))
                segment.write(array.tobytes())
                segment.make_read_only(reader)
                tensors.append(inputs.tensor(name, array, segment.segment_id))
            else:
                tensors.append(inputs.tensor(name, array))
        start = time.perf_counter()
        answers = agent.predict(options.name, tensors)
        seconds = time.perf_counter() - start
        outputs = [(answer.tensor_metadata, inputs.array_of(answer)) for answer in answers]
        capture_id = _capture(agent, options.name, tensors, answers) if options.capture else None
    state = _await_capture(agent, capture_id, EXAMPLE_WAIT_SECONDS) if capture_id else None
    if getattr(options, "output", None):
        _save(options.output, outputs)
    if options.json:
        fault = "the capture failed" if state == "FAILURE" else ""
        show.as_json(_result(outputs, seconds, capture_id, state), fault)
    else:
        if original.is_original(options):
            captured = ["Capture Data succeeded"] if capture_id else []
            print("\n".join([original.ended(options), *captured, *original.outputs([array for _, array in outputs])]))
        else:
            print("\n".join(show.tensor(metadata, array, labels, options.top) for metadata, array in outputs))
        print(f"{seconds * 1e3:.1f} ms, {'by shared memory' if options.shm else 'inline'}")
        if capture_id:
            print(f"capture {capture_id}: {state}")
    return Exit.REFUSED if state == "FAILURE" else Exit.OK


def _capture(agent: Agent, name: str, tensors: list[pb.Tensor], answers: list[pb.Tensor]) -> str:
    capture_id = str(uuid.uuid4())
    agent.capture(
        pb.CaptureDataRequest(model_name=name, capture_id=capture_id, input_tensors=tensors, output_tensors=answers)
    )
    return capture_id


def _result(outputs: list[Any], seconds: float, capture_id: str | None, state: str | None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "outputs": [
            {
                "name": metadata.name,
                "data_type": enum_name(pb.DataType, metadata.data_type),
                "shape": list(metadata.shape),
                "data": array.tolist(),
            }
            for metadata, array in outputs
        ],
        "milliseconds": round(seconds * 1e3, 3),
    }
    if capture_id:
        result["capture"] = {"id": capture_id, "status": state}
    return result


def _save(file: str, outputs: list[Any]) -> None:
    """`.npz` takes all outputs by name, `.npy` the only one."""
    try:
        if file.endswith(".npz"):
            np.savez(file, **{metadata.name or f"output{n}": array for n, (metadata, array) in enumerate(outputs)})
        elif file.endswith(".npy") and len(outputs) == 1:
            np.save(file, outputs[0][1])
        else:
            raise InputError(f"{file}: write to a .npz, or to a .npy when the model has one output")
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None
