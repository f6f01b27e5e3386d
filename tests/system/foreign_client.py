"""An application in the field, run as a process of its own: `python foreign_client.py STUBS SOCKET PACKAGE`.

It knows only the stubs in the folder STUBS, generated from a definition written for the test, and calls in the order of the
original agent's samples: list first, load a folder, copy the metadata, predict inline and by shared memory, capture.
"""

import ctypes
import sys
import uuid

IPC_CREAT, IPC_RMID, IPC_SET, IPC_STAT = 0o1000, 0, 1, 2


def shared(data: bytes) -> int:
    """A segment with `data`: mode 0600 while it is written, 0400 before the call."""
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    libc.shmat.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
    segment = libc.shmget(0, len(data), IPC_CREAT | 0o600)
    address = libc.shmat(segment, None, 0)
    ctypes.memmove(address, data, len(data))
    status = ctypes.create_string_buffer(112)
    libc.shmctl(segment, IPC_STAT, status)
    status[20:22] = (0o400).to_bytes(2, "little")
    libc.shmctl(segment, IPC_SET, status)
    libc.shmdt(ctypes.c_void_p(address))
    return segment


def main(stubs: str, socket: str, package: str) -> None:
    """The calls of a sample application."""
    sys.path.insert(0, stubs)
    import field_pb2 as pb
    import field_pb2_grpc
    import grpc

    with grpc.insecure_channel(f"unix:{socket}") as channel:
        agent = field_pb2_grpc.AgentStub(channel)
        assert "field" not in [model.name for model in agent.ListModels(pb.ListModelsRequest()).models]
        loaded = agent.LoadModel(pb.LoadModelRequest(url=package, name="field")).model
        listed = next(m for m in agent.ListModels(pb.ListModelsRequest()).models if m.name == "field")
        assert listed == loaded == agent.DescribeModel(pb.DescribeModelRequest(name="field")).model
        metadata = listed.input_tensor_metadatas[0]
        data = bytes(16)
        inline = pb.Tensor(tensor_metadata=metadata, byte_data=data)
        answer = agent.Predict(pb.PredictRequest(name="field", tensors=[inline]))
        segment = shared(data)
        try:
            handle = pb.SharedMemoryHandle(segment_id=segment)
            tensor = pb.Tensor(tensor_metadata=metadata, shared_memory_handle=handle)
            assert agent.Predict(pb.PredictRequest(name="field", tensors=[tensor])) == answer
            for given in (inline, tensor):
                sent = pb.Tensor.FromString(given.SerializeToString())
                sent.tensor_metadata.name = type(metadata.name)() + (
                    b"input" if isinstance(metadata.name, bytes) else "input"
                )
                capture_id = str(uuid.uuid4())
                agent.CaptureData(
                    pb.CaptureDataRequest(
                        model_name="field", capture_id=capture_id, input_tensors=[sent], output_tensors=answer.tensors
                    )
                )
                agent.GetCaptureDataStatus(pb.GetCaptureDataStatusRequest(capture_id=capture_id))
                print(capture_id)
        finally:
            ctypes.CDLL(None).shmctl(segment, IPC_RMID, None)
        agent.UnLoadModel(pb.UnLoadModelRequest(name="field"))
    print(type(metadata.name).__name__, metadata.name)


if __name__ == "__main__":
    main(*sys.argv[1:])
