"""How much a balancer grows while a long body passes through it at the pace of someone slow.

    python tests/bench/streams.py --mib 1024 --rate 10

Starts the real service four times, side by side: a download to a client that reads `rate` MB/s and an upload to a backend
that does, each sized and chunked. Prints, for each, the most that was resident beyond what was before it began, the time,
and whether the checksums of both ends are equal; ends with 1 where one grew by 16 MiB or more. Here, unlike in the tests
(tests/integration/test_streaming.py), pace is by the clock. Run it from the root of the checkout.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.kit.flows import BLOCK, Chunks, Source, Stuck, as_it_is, in_chunk, pour, read_lines
from tests.kit.processes import Balancer, RawClient, free_ports, get, until
from tests.kit.programs import Memory
from tests.kit.upstreams import Conversation, RecordingBackend, Step, response

MOST = 16 * 1024 * 1024


@dataclass(frozen=True)
class Job:
    """One transfer."""

    size: int
    rate: float  # bytes a second
    is_upload: bool
    is_chunked: bool

    @property
    def framing(self) -> bytes:
        return b"Transfer-Encoding: chunked" if self.is_chunked else b"Content-Length: %d" % self.size

    def pour(self, sock: socket.socket) -> str:
        """All of it, as fast as it is taken."""
        checksum = pour(sock, self.size, Stuck(), in_chunk if self.is_chunked else as_it_is)
        if self.is_chunked:
            sock.sendall(b"0\r\n\r\n")
        return checksum

    def read(self, source: Source) -> str:
        """All of it, at `rate`; checksum."""
        checksum = hashlib.sha256()
        began, done = time.monotonic(), 0
        while piece := source.read(min(BLOCK, self.size - done)):
            checksum.update(piece)
            done += len(piece)
            time.sleep(max(0.0, began + done / self.rate - time.monotonic()))
        return checksum.hexdigest()


class Serving(Step):
    """The backend's part in a job; /small first."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.checksum = ""

    def run(self, talk: Conversation) -> None:
        talk.sock.settimeout(60)
        with talk.sock.makefile("rb") as file:
            while (lines := read_lines(file.readline))[0].startswith(b"GET /small "):
                talk.send(response(b"small"))
            if self.job.is_upload:
                self.checksum = self.job.read(Chunks(file, file.readline) if self.job.is_chunked else file)
                talk.send(response(b"done"))
            else:
                assert lines
                talk.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % self.job.framing)
                self.checksum = self.job.pour(talk.sock)


def configure(port: int, admin: int, backend: str) -> str:
    return (
        f"listeners:\n  main: {{bind: '127.0.0.1:{port}', pool: web}}\n"
        f"pools:\n  web: {{backends: ['{backend}'], health_check: off}}\nadmin: {{bind: '127.0.0.1:{admin}'}}\n"
    )


def run(job: Job) -> tuple[str, bool]:
    """A line about it, and whether all is well."""
    step = Serving(job)
    port, admin = free_ports(2)
    with RecordingBackend(lambda _: [step]) as backend:
        balancer = Balancer(configure(port, admin, backend.address)).ready()
        try:
            get(port, "/small")
            memory, began = Memory(balancer.pid), time.monotonic()
            with RawClient(port, deadline=600) as client:
                if job.is_upload:
                    client.send(b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % job.framing)
                    checksum = job.pour(client.sock)
                    client.sock.settimeout(600)
                    assert client.response().body == b"done"
                else:
                    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                    answer = http.client.HTTPResponse(client.sock)
                    answer.begin()
                    checksum = job.read(answer)
                until(lambda: step.checksum, "the backend's checksum")
            seconds, growth = time.monotonic() - began, memory.growth
        finally:
            balancer.stop()
    is_well = checksum == step.checksum and growth < MOST
    way = "upload" if job.is_upload else "download"
    coding = "chunked" if job.is_chunked else "sized"
    told = f"{way:8} {coding:7} {job.size >> 20} MiB in {seconds:6.1f} s, {job.size / seconds / 1e6:5.1f} MB/s:"
    same = "intact" if checksum == step.checksum else "NOT INTACT"
    return f"{told} grew by {growth / 2**20:.2f} MiB, {same}", is_well


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rate", type=float, default=10.0, help="MB/s")
    options = parser.parse_args()
    jobs = [
        Job(options.mib << 20, options.rate * 1e6, up, chunked) for up in (False, True) for chunked in (False, True)
    ]
    with ThreadPoolExecutor(len(jobs)) as threads:
        results = list(threads.map(run, jobs))
    for line, _ in results:
        print(line)
    return 0 if all(is_well for _, is_well in results) else 1


if __name__ == "__main__":
    threading.stack_size(1 << 20)
    sys.exit(main())
