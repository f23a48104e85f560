"""A server of grpcio as a process of its own, that a test can kill: `t.T/Echo` answers with what it is sent.

python -m tests.kit.grpc_server PORT
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    """The message as it came; messages are plain bytes here."""
    return request


def serve(port: int) -> None:
    """Until the process is ended."""
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    kinds = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", kinds),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
