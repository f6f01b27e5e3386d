"""What edge.rpc.core uses of cygrpc, gRPC's private binding; a gRPC that lacks any of it is served by `edge.rpc.fallback`."""

from grpc._cython import cygrpc

USED = {
    cygrpc: ("Call", "CompletionQueue", "CompletionType", "ReceiveCloseOnServerOperation", "ReceiveMessageOperation",
             "SendInitialMetadataOperation", "SendMessageOperation", "SendStatusFromServerOperation", "Server"),
    cygrpc.Call: ("cancel", "start_server_batch"),
    cygrpc.Server: ("add_http2_port", "cancel_all_calls", "destroy", "register_completion_queue", "request_call",
                    "shutdown", "start"),
    cygrpc.CompletionQueue: ("poll", "shutdown"),
}  # fmt: skip


def check_binding() -> None:
    """Look whether all of it is there.

    Raises:
        ImportError: something is not.
    """
    for holder, names in USED.items():
        for name in names:
            if not hasattr(holder, name):
                raise ImportError(f"{holder.__name__} has no {name}")
