"""What the protocol says of a model: metadata, configuration, statistics."""

from typing import Any

from edge.clock import Clock
from edge.rpc._generated import open_inference_pb2 as pb
from edge.rpc.oip.datatypes import NAMES
from edge.serving.loading import LoadedModel
from edge.tensors import TensorSpec

_NANOSECONDS = 1_000_000_000


def metadata(model: LoadedModel) -> Any:
    """ModelMetadataResponse."""
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=[model.manifest.model_version],
        platform=model.engine_name,
        inputs=map(_tensor, model.inputs),
        outputs=map(_tensor, model.outputs),
    )


def _tensor(spec: TensorSpec) -> Any:
    return pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=NAMES[spec.dtype], shape=spec.signature)


def config(model: LoadedModel) -> Any:
    """ModelConfig: dims are whole shapes, for the agent makes no batches."""
    return pb.ModelConfig(
        name=model.name,
        platform=model.engine_name,
        backend=model.engine_name,
        max_batch_size=0,
        input=[pb.ModelInput(name=one.name, data_type=_type(one), dims=one.signature) for one in model.inputs],
        output=[pb.ModelOutput(name=one.name, data_type=_type(one), dims=one.signature) for one in model.outputs],
        instance_group=[
            pb.ModelInstanceGroup(name=model.name, count=model.instances, kind=pb.ModelInstanceGroup.KIND_CPU)
        ],
    )


def _type(spec: TensorSpec) -> Any:
    return pb.DataType.Value(f"TYPE_{NAMES[spec.dtype]}")


def statistics(model: LoadedModel, clock: Clock) -> Any:
    """ModelStatistics, since the model was loaded; Predict calls count too."""
    counts = model.scheduler.counts()
    ran = pb.StatisticDuration(count=counts.answered, ns=int(counts.answered_seconds * _NANOSECONDS))
    # Every call has each of its times, if only none: perf_analyzer knows by the count of `queue` which version answered, and the
    # counts of compute_* must be the same. The time for inputs and outputs is in compute_infer.
    none = pb.StatisticDuration(count=counts.answered)
    queue = pb.StatisticDuration(count=counts.answered, ns=int(counts.waited_seconds * _NANOSECONDS))
    last = clock.now() - (clock.monotonic() - counts.last) if counts.last else 0.0
    return pb.ModelStatistics(
        name=model.name,
        version=model.manifest.model_version,
        last_inference=max(0, int(last * 1000)),
        inference_count=counts.answered,
        execution_count=counts.answered,
        inference_stats=pb.InferStatistics(
            success=pb.StatisticDuration(count=ran.count, ns=ran.ns + queue.ns),
            fail=pb.StatisticDuration(count=counts.failed),
            queue=queue,
            compute_input=none,
            compute_infer=ran,
            compute_output=none,
        ),
    )
