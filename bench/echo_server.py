"""The floor under any grpcio server in Python: takes every call on its thread pool and answers at once.

The name of the method is the size of the answer in bytes, as in loadgen/echo_server.cc. Run as
`python bench/echo_server.py SOCKET`.
"""

import sys
from concurrent import futures
from typing import Any

import grpc

THREADS = 8


class Echo(grpc.GenericRpcHandler):
    """Answers `/bench.Echo/<bytes>`."""

    def __init__(self) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler] = {}

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler:
        method = handler_call_details.method
        handler = self._handlers.get(method)
        if handler is None:
            answer = bytes(int(method.rpartition("/")[2]))
            handler = self._handlers[method] = grpc.unary_unary_rpc_method_handler(lambda raw, context: answer)
        return handler


def main(path: str) -> None:
    server = grpc.server(
        futures.ThreadPoolExecutor(THREADS),
        handlers=[Echo()],
        options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
    )
    server.add_insecure_port(f"unix:{path}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(sys.argv[1])
