"""Whether memory stays flat over an hour's load, and how long the garbage collector halts everything.

    python -m tests.bench.flatness --minutes 60

Starts the real service, everything at its defaults: listeners for HTTP, HTTPS with HTTP/2, and TCP; access log to a
file that is rotated each minute, health checks, a scrape of /metrics each second, one dashboard's stream. Puts a bounded,
steady load on it, by clients with a nice of 10: about 800 requests a second over kept connections and 60 over new ones, TLS
handshakes, bursts of h2load, bodies of 1 MiB up and down, WebSockets, relays, and clients that break off amid an answer or
a request.

Each minute a line: requests so far, memory (RSS, PSS), descriptors, threads, objects that the collector looks at, blocks of
the interpreter's allocator and KiB of malloc's; and for each generation how often it was collected in that minute, and the
pause in ms: median and maximum of CPU time, and the maximum by the clock (which counts waiting for a CPU, too). In the end:
the slope of memory over the last half by least squares, in KiB per million requests, and whether descriptors came back.
The service's process is looked at from within (watched.py), with nothing of it changed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))

from balancers import free_port
from compare import ROOT, Bench, listening, machine
from growth import scraped, streamed

from tests.bench.watched import PAUSE
from tests.kit.websocketing import connect

#: wrk: connections, milliseconds of pause before each request, further options; the pause bounds the rate
STEADY = {
    "http kept": ("http", 40, 50, ()),
    "http close": ("http", 6, 100, ("-H", "Connection: close")),
    "tls kept": ("tls", 5, 100, ()),
    "tls close": ("tls", 2, 200, ("-H", "Connection: close")),
    "tcp kept": ("tcp", 5, 100, ()),
    "tcp close": ("tcp", 2, 100, ("-H", "Connection: close")),
}
MIB = 1 << 20


class Site(Bench):
    """compare.py's folder and backend, the service, and what loads it; all unpinned."""

    def __init__(self) -> None:
        super().__init__(0)
        self.ports = {name: free_port() for name in ("http", "tls", "tcp", "admin", "ws")}
        self.errors: Counter[str] = Counter()

    def spawn(self, command: list[str], cpu: int, log: str, **keys: Any) -> subprocess.Popen[bytes]:
        with open(self.folder / log, "ab") as out:
            keys = {"stdout": out, "stderr": subprocess.STDOUT, "cwd": self.folder, **keys}
            child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, **keys)
        self.children.append(child)
        return child

    def start_service(self) -> Watched:
        cert, key, _ = self.site.certificate()
        ws = {"name": "ws", "match": {"path": "/ws"}, "pool": "ws"}
        routes = [ws, {"name": "rest", "match": {"path": "/*"}, "pool": "web"}]
        secure = {"certificates": [{"cert": cert, "key": key}]}
        binds = {name: f"127.0.0.1:{port}" for name, port in self.ports.items()}
        backends = [f"127.0.0.1:{port}" for port in self.site.backends]
        settings = {
            "listeners": {
                "http": {"bind": binds["http"], "routes": routes},
                "tls": {"bind": binds["tls"], "routes": routes, "tls": secure},
                "tcp": {"bind": binds["tcp"], "protocol": "tcp", "pool": "raw"},
            },
            "pools": {
                "web": {"backends": backends, "health_check": {"type": "http", "path": "/"}},
                "raw": {"backends": backends},
                "ws": {"backends": [binds["ws"]]},
            },
            "admin": {"bind": binds["admin"]},
            "access_log": {"path": str(self.folder / "access.log")},
        }
        file = self.site.write("flat.yaml", yaml.safe_dump(settings))
        answers, theirs = os.pipe()
        pauses = self.folder / "pauses"
        command = [sys.executable, "-m", "tests.bench.watched", str(pauses), str(theirs), "--config", file]
        child = self.spawn(command, 0, "service.log", stdin=subprocess.PIPE, pass_fds=[theirs])
        os.close(theirs)
        if not all(listening(self.ports[name], child) for name in ("http", "tls", "tcp", "admin")):
            raise SystemExit("the service did not start:\n" + self.log("service.log"))
        return Watched(child, pauses, os.fdopen(answers))

    def start_load(self, seconds: int) -> dict[str, subprocess.Popen[bytes]]:
        """Those that go on for all the time."""
        started = {}
        for name, (layer, connections, pause, more) in STEADY.items():
            script = self.site.write(f"{name}.lua", f"function delay() return {pause} end\n")
            url = self.url(layer)
            command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, *more, url]
            started[name] = self.spawn(command, 1, f"wrk {name}.log")
        return started

    def url(self, layer: str) -> str:
        return f"https://localhost:{self.ports[layer]}/" if layer == "tls" else f"http://127.0.0.1:{self.ports[layer]}/"

    def ask(self, path: str) -> str:
        asked = HTTPConnection("127.0.0.1", self.ports["admin"], timeout=30)
        asked.request("GET", path)
        text = asked.getresponse().read().decode()
        asked.close()
        return text

    def requests(self) -> tuple[int, int, int]:
        """Requests, and connections of TCP, so far; and answers of 5xx."""
        text = self.ask("/metrics")
        done = re.findall(r"^lbsvc_http_requests_total\{([^}]*)\} ([\d.e+]+)", text, re.M)
        raw = re.findall(r'^lbsvc_listener_connections_total\{[^}]*listener="tcp"[^}]*\} ([\d.e+]+)', text, re.M)
        wrong = sum(float(count) for labels, count in done if re.search(r'"5(\d\d|xx)"', labels))
        return int(sum(float(count) for _, count in done)), int(sum(map(float, raw))), int(wrong)

    def rotate_log(self, pid: int) -> None:
        (self.folder / "access.log").unlink(missing_ok=True)
        os.kill(pid, signal.SIGUSR1)

    # -- what is done now and then; `turn` counts up

    def dial(self, turn: int, layer: str) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.ports[layer]), 20)
        if layer != "tls":
            return plain
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if turn % 2:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context.wrap_socket(plain)

    def move_a_body(self, turn: int) -> None:
        layer = ("http", "tls", "tcp")[turn % 3]
        with self.dial(turn, layer) as client:
            if turn % 2:
                client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % MIB)
                client.sendall(bytes(MIB))
                least = 1
            else:
                client.sendall(b"GET /big/1m HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                least = MIB
            got = 0
            while piece := client.recv(1 << 18):
                got += len(piece)
            if got < least:
                raise OSError(f"{got} bytes")

    def break_off(self, turn: int) -> None:
        """Amid an answer, a request's body, its head; by an orderly end or a reset."""
        said = (
            b"GET /big/1m HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + bytes(5000),
            b"GET / HTTP/1.1\r\nHost:",
            b"GET /big/1m HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        )[turn % 4]
        with self.dial(turn // 4, ("http", "tls", "tcp")[turn // 4 % 3]) as client:
            client.sendall(said)
            if b"big" in said:
                client.recv(8192)
            if turn // 12 % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def talk(self, turn: int) -> None:
        with connect(self.ports["http"], "/ws") as client:
            for size in (10, 1000, 100_000):
                client.send("x" * size)
                if len(client.recv()) != size:
                    raise OSError("another echo")

    def burst(self, turn: int) -> None:
        url = f"https://127.0.0.1:{self.ports['tls']}"
        kinds = (
            ("-n600", url + "/"),
            ("-n12", url + "/big/1m"),
            ("-n12", "-d", str(self.folder / "www/1m"), url + "/"),
        )
        command = ["h2load", "-t1", "-c4", "-m8", *kinds[turn % 3]]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
        if not re.search(r" 0 failed, 0 errored", told):
            raise OSError(" ".join(re.findall(r"^requests: .*", told, re.M)) or "h2load failed")

    def repeat(self, what: Callable[[int], None], seconds: float, ending: threading.Event) -> threading.Thread:
        def run() -> None:
            turn = 0
            while not ending.wait(seconds):
                try:
                    what(turn)
                except Exception as error:
                    self.errors[f"{what.__name__}: {error!r}"[:100]] += 1
                turn += 1

        thread = threading.Thread(target=run)
        thread.start()
        return thread


class Watched:
    """The service's process, looked at."""

    def __init__(self, child: subprocess.Popen[bytes], pauses: Path, answers: IO[str]) -> None:
        self.child = child
        self._answers = answers
        self._pauses = pauses
        self._read = 0

    def ask(self, question: str) -> dict[str, Any]:
        assert self.child.stdin
        self.child.stdin.write(question.encode() + b"\n")
        self.child.stdin.flush()
        found: dict[str, Any] = json.loads(self._answers.readline())
        return found

    def memory(self) -> tuple[int, int]:
        """KiB: RSS and PSS."""
        text = Path(f"/proc/{self.child.pid}/smaps_rollup").read_text()
        rss, pss = (re.search(rf"^{name}:\s+(\d+)", text, re.M) for name in ("Rss", "Pss"))
        assert rss and pss
        return int(rss[1]), int(pss[1])

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.child.pid}/task"))

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def pauses(self) -> list[tuple[int, int, float, float]]:
        """Those since the last time."""
        with open(self._pauses, "rb") as file:
            file.seek(self._read)
            got = file.read()
        got = got[: len(got) - len(got) % PAUSE.size]
        self._read += len(got)
        return list(PAUSE.iter_unpack(got))


def told(pauses: list[tuple[int, int, float, float]]) -> str:
    """For each generation: how many, median and maximum of CPU time, maximum by the clock, garbage found."""
    parts = []
    for generation in range(3):
        found = [each for each in pauses if each[0] == generation]
        if found:
            cpu = [1e3 * each[3] for each in found]
            clock = 1e3 * max(each[2] for each in found)
            garbage = sum(each[1] for each in found)
            parts.append(
                f"g{generation} {len(found)}: {statistics.median(cpu):.2f} {max(cpu):.2f} ({clock:.2f}) -{garbage}"
            )
    return "; ".join(parts) or "none"


def slope(samples: list[tuple[float, float]]) -> str:
    """Of the second by the first, least squares, with its standard error."""
    if len(samples) < 3:
        return "too few samples"
    xs, ys = zip(*samples, strict=True)
    found = statistics.linear_regression(xs, ys)
    rest = sum((y - found.slope * x - found.intercept) ** 2 for x, y in samples) / (len(samples) - 2)
    spread = sum((x - statistics.fmean(xs)) ** 2 for x in xs)
    return f"{found.slope:+.1f} (± {(rest / spread) ** 0.5:.1f})"


def run(site: Site, minutes: int, is_traced: bool) -> None:
    watched = site.start_service()
    child = watched.child
    os.nice(10)  # whatever is started from here on
    site.start_backend()
    site.spawn(
        [sys.executable, "-m", "tests.kit.websocketing", str(site.ports["ws"])], 1, "ws.log", stderr=subprocess.DEVNULL
    )
    while site.ask("/readyz") != "ready\n" and child.poll() is None:
        time.sleep(0.5)
    time.sleep(5)
    first = watched.ask("collect")
    at_first = watched.descriptors()
    print(
        f"{machine()}\nprocess {child.pid}; before the load: {at_first} descriptors, {watched.threads()} threads, ",
        end="",
    )
    print(f"RSS, PSS {watched.memory()} KiB, {first['objects']} objects and {first['frozen']} frozen")
    print("collections: generation, how often, CPU ms in the middle, at most, (clock ms at most), garbage\n")
    print(
        "min  requests   5xx  relays  RSS KiB  PSS KiB  fds thr objects  blocks malloc KiB  CPU %  collections",
        flush=True,
    )
    print(f"until now, {told(watched.pauses())}", flush=True)
    ending, every = threading.Event(), []
    samples: list[tuple[int, int, int, int, int]] = []
    types: list[dict[str, int]] = []
    with ExitStack() as stack:
        for beside in (scraped, streamed):
            stack.enter_context(beside(site.ports["http"], site.ports["admin"]))
        steady = site.start_load(minutes * 60 + 5)
        begun = time.monotonic()
        repeated = [(site.move_a_body, 1.0), (site.break_off, 0.25), (site.talk, 1.0), (site.burst, 10.0)]
        threads = [site.repeat(what, seconds, ending) for what, seconds in repeated]
        try:
            for minute in range(1, minutes + 1):
                before = watched.cpu()
                asked_at = time.monotonic()
                time.sleep(max(0.0, begun + 60 * minute - asked_at))
                used = 100 * (watched.cpu() - before) / (time.monotonic() - asked_at)
                site.rotate_log(child.pid)
                requests, relays, wrong = site.requests()
                (rss, pss), pauses = watched.memory(), watched.pauses()
                every += pauses
                fds, running = watched.descriptors(), watched.threads()
                inside = watched.ask("look")
                samples.append((requests + relays, rss, pss, inside["blocks"], inside["heap"] >> 10))
                types.append(inside["types"])
                print(f"{minute:3} {requests:9} {wrong:5} {relays:7} {rss:8} {pss:8} {fds:4} {running:3}", end=" ")
                print(f"{inside['objects']:7} {inside['blocks']:7} {inside['heap'] >> 10:10}", end=" ")
                print(f"{used:6.1f}  {told(pauses)}", flush=True)
                if is_traced and minute in (3, minutes):
                    print("\n".join(watched.ask("trace")["trace"]), flush=True)
        finally:
            ending.set()
            for thread in threads:
                thread.join()
    for name, process in steady.items():
        process.wait(30)
        found = re.findall(r"^ *(?:Socket errors|Non-2xx|\d+ requests in).*", site.log(f"wrk {name}.log"), re.M)
        print(f"{name}: {'; '.join(map(str.strip, found))}")
    print(f"others: {dict(site.errors) or 'no errors'}\nall collections: {told(every)}")
    half = samples[len(samples) // 2 :]
    for at, name in enumerate(("RSS, KiB", "PSS, KiB", "the interpreter's blocks", "malloc, KiB"), 1):
        print(f"{name} per million requests over the last half: {slope([(each[0] / 1e6, each[at]) for each in half])}")
    grown = Counter(types[-1])
    grown.subtract(types[len(types) // 2])
    print(f"objects since half time: { ({name: count for name, count in grown.most_common(8) if count > 0}) }")
    patience = time.monotonic() + 150  # backends' connections are kept for a while
    while (left := watched.descriptors()) > at_first and time.monotonic() < patience:
        time.sleep(1)
    last = watched.ask("collect")
    print(f"after the load: {left} descriptors (before: {at_first}), {last['objects']} objects", end=" ")
    print(f"(before: {first['objects']}), RSS, PSS {watched.memory()} KiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--trace", action="store_true", help="tracemalloc from the third minute: where memory grows")
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if missing := [each for each in ("wrk", "nginx", "h2load", "openssl") if shutil.which(each) is None]:
        raise SystemExit(f"not installed: {', '.join(missing)}")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # what was started ends with us
    site = Site()
    try:
        run(site, options.minutes, options.trace)
    finally:
        site.close()


if __name__ == "__main__":
    main()
