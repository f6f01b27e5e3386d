"""Text that people read: models, tensors, sizes and times."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.rpc._generated import agent_pb2 as pb
from edge.rpc._generated import operations_pb2 as ops
from edge.tensors import dtype_name, shape_text
from edge.text import printable

PATH_CHARACTERS = 4096  # of a path that is shown; the most that Linux takes
FEW_VALUES = 16  # shown in full
TOP_CLASSES = 5
MANAGED_HEAD = ["ALIAS", "SERVES", "WHY", "FOR", "BEFORE", "PACKAGE"]
FLEET_STATES = {
    "committed": "which has proved itself",
    "switching": "which is being brought about",
    "trying": "on trial",
    "refused": "not all of it serves",
    "": "",
}
BAR_WIDTH = 20  # characters


def as_json(facts: dict[str, Any], fault: str = "") -> None:
    """Prints one line of JSON: the facts, and whether it went well."""
    print(json.dumps({"ok": False, "error": fault, **facts} if fault else {"ok": True, **facts}))


def table(rows: list[list[str]], head: list[str]) -> str:
    """Columns under their heads; numbers to the right."""
    lines = [head, *([printable(cell, PATH_CHARACTERS) for cell in row] for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    right = [bool(rows) and all(row[n][:1].isdigit() for row in rows) for n in range(len(head))]
    return "\n".join(
        "  ".join(f"{cell:>{w}}" if r else f"{cell:<{w}}" for cell, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in lines
    )  # fmt: skip


def size(count: int) -> str:
    """Bytes as people say them."""
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def duration(seconds: float) -> str:
    """A length of time in its two largest units."""
    whole = max(0, round(seconds))
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    first = next((n for n, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count) or "0 s"


def metadata_line(metadata: pb.TensorMetadata) -> str:
    """`name  FLOAT32 [1, 8, 8, 1]`."""
    return f"{printable(metadata.name)}  {dtype_name(metadata.data_type)} {shape_text(metadata.shape)}"


def model(one: pb.Model) -> str:
    """A model with its inputs and outputs."""
    return "\n".join([f"{printable(one.name)}  from {printable(one.url, PATH_CHARACTERS)}", *tensors(one)])


def tensors(one: pb.Model) -> list[str]:
    """A line for each input and output of a model."""
    lines = [f"  in   {metadata_line(metadata)}" for metadata in one.input_tensor_metadatas]
    return lines + [f"  out  {metadata_line(metadata)}" for metadata in one.output_tensor_metadatas]


def model_json(one: pb.Model) -> dict[str, Any]:
    """The same for --json."""

    def listed(metadatas: Any) -> list[dict[str, Any]]:
        return [{"name": m.name, "data_type": dtype_name(m.data_type), "shape": list(m.shape)} for m in metadatas]

    return {
        "name": one.name,
        "url": one.url,
        "inputs": listed(one.input_tensor_metadatas),
        "outputs": listed(one.output_tensor_metadatas),
    }


def tensor(metadata: pb.TensorMetadata, array: npt.NDArray[Any], labels: list[str], top: int = TOP_CLASSES) -> str:
    """An output: its best classes where it is one score a class, all of it when small, otherwise a summary."""
    lines = [metadata_line(metadata)]
    flat = array.reshape(-1)
    if max(array.shape, default=1) == array.size >= 3 and array.dtype.kind in "fiu":
        lines += _classes(flat, labels, top)
    elif array.size <= FEW_VALUES:
        lines += ["  " + line for line in np.array2string(array, precision=6).splitlines()]
    else:
        if array.dtype.kind in "fiu":
            lines.append(
                f"  smallest {flat.min():.6g}, largest {flat.max():.6g}, mean {flat.mean(dtype=np.float64):.6g}"
            )
        text = np.array2string(array, precision=4, threshold=FEW_VALUES, edgeitems=2)
        lines += ["  " + line for line in text.splitlines()]
    return "\n".join(lines)


def _classes(scores: npt.NDArray[Any], labels: list[str], top: int) -> list[str]:
    best = np.argsort(-scores.astype(np.float64), kind="stable")[:top]
    shares = scores.dtype.kind == "f" and scores.min() >= 0 and scores.max() <= 1.0001
    names = [labels[n] if n < len(labels) else str(n) for n in best]
    width = max(map(len, names), default=0)
    lines = []
    for name, n in zip(names, best, strict=True):
        value = f"{scores[n]:7.2%}  {'█' * round(float(scores[n]) * BAR_WIDTH)}" if shares else f"{scores[n]:.6g}"
        lines.append(f"  {name:>{width}}  {value}".rstrip())
    return lines


def managed(models: list[ops.ManagedModel], now: float) -> str:
    """Aliases, a line each, and below them what was refused."""
    rows = [
        [
            one.name,
            (one.version or "nothing") + ("" if one.committed or one.why != "declared" else " (on trial)"),
            one.why + (", released" if one.released else ""),
            duration(now - one.since_unix_seconds) if one.since_unix_seconds else "",
            one.previous_version,
            one.package,
        ]
        for one in models
    ]
    return "\n".join([table(rows, MANAGED_HEAD), *map(refusal, filter(lambda one: one.refused, models))])


def refusal(one: ops.ManagedModel) -> str:
    """Why what is declared does not serve."""
    return f"{printable(one.name)}: what is declared does not serve: {printable(one.refused, PATH_CHARACTERS)}"


def agent(reply: ops.GetStatusResponse, now: float) -> str:
    """The agent itself, in a line; `now` in seconds since the epoch."""
    line = f"sagemaker-edge-agent {printable(reply.version)}, up {duration(now - reply.started_unix_seconds)}"
    return line + (f", engine {printable(reply.engine)}" if reply.engine else "")


def captures(one: ops.CaptureStatus, now: float) -> str:
    """How captures stand; `now` in seconds since the epoch."""
    where = f"captures to {printable(one.destination)}" if one.destination else "captures"
    text = f"{where}: "
    if one.pending:
        text += f"{one.pending} waiting ({size(one.pending_bytes)})"
        if one.oldest_pending_unix_seconds:
            text += f", the oldest for {duration(now - one.oldest_pending_unix_seconds)}"
    else:
        text += "none waiting"
    text += f"; since the start {one.succeeded} done, {one.failed} failed"
    text += f", {one.dropped} dropped" if one.dropped else ""
    text += f", {one.refused} refused" if one.refused else ""
    if one.refusing_since_unix_seconds:
        text += f" (for {duration(now - one.refusing_since_unix_seconds)} until now)"
    if one.policy_kept or one.policy_full or one.policy_failed:
        text += f"; by policy {one.policy_kept} kept, {one.policy_full} without room, {one.policy_failed} failed"
    if one.last_error:
        ago = duration(now - one.last_error_unix_seconds)
        text += f"\n  last error, {ago} ago: {printable(one.last_error, PATH_CHARACTERS)}"
    return text


def fleet(one: ops.FleetStatus, now: float) -> str:
    """How a device stands in its fleet; `now` in seconds since the epoch."""
    known = f"deployment {one.deployment}, {FLEET_STATES.get(one.state, one.state)}"
    lines = [f"fleet {printable(one.fleet)}: {printable(known) if one.state else 'nothing was deployed yet'}"]
    for model in one.models:
        what = "pinned by models.d" if model.pinned else printable(model.package) or "nothing"
        lines.append(f"  {printable(model.name)}: {what}")
        if model.refused:
            lines.append(f"    refused: {printable(model.refused, PATH_CHARACTERS)}")
    looked = "never in this run"
    if one.checked_unix_seconds:
        looked = f"{duration(now - one.checked_unix_seconds)} ago, judged by {printable(one.judged_by)}"
    lines.append(f"  from {printable(one.repository, PATH_CHARACTERS) or 'folders alone'}; looked through {looked}")
    if one.last_error:
        lines.append(f"  last error: {printable(one.last_error, PATH_CHARACTERS)}")
    return "\n".join(lines)
