"""How much CPU a request costs through us and through other load balancers, on this machine, in one run.

    python tests/bench/compare.py --rounds 3 --seconds 3 http,l4

Prints a Markdown table for each workload and a line about the machine. The figure to trust is CPU
microseconds for each request (user and system time of the balancer's process tree) and its ratio to
HAProxy's: rates depend on who shares the machine. Balancers take turns round by round, so that a drift of
the machine hits all alike; each is a single process on CPU 0, the client (wrk) and the backend (nginx) on
CPU 1. Whatever is not installed is passed over, but wrk and nginx are needed. Health checks and metrics of
ours stay on; access logs are off, but for `lbsvc+log`. `lbsvc+compiled` takes part where COMPILED is the path of a Python
with the compiled wheel (COMPILED=/opt/compiled/bin/python). `lbsvc+ahead`, where clients connect for each answer by layer
4, has connections to its backends ready.

`--svg FILE` draws the same (tests/bench/picture.py), `--json FILE` keeps it.

Workloads: l4 (small answers over kept connections, by layer 4), l4close (a connection each), l4bulk (1 MiB answers), http,
browser (a browser's headers), httpclose, bulk, post (64 KiB bodies), idle (memory for an idle connection); tls, tlsclose (a
new handshake each), tlsbulk (HTTP over TLS).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from balancers import BALANCERS, Site, free_port
from picture import draw

BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Referer": "https://www.example.com/somewhere",
    "Cookie": "session=0123456789abcdef0123456789abcdef; theme=dark",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Upgrade-Insecure-Requests": "1",
    "Connection": "keep-alive",
}


@dataclass(frozen=True)
class Workload:
    layer: str  # l4 | http | tls
    path: str = "/"
    headers: tuple[str, ...] = ()
    connections: int = 64
    idle: int = 0  # instead of a load: so many idle connections
    body: int = 0  # of each request, in bytes
    pause: int = 0  # of each connection before a request, in milliseconds on an average: a rate below what is possible


CLOSE = ("Connection: close",)
WORKLOADS = {
    "l4": Workload("l4"),
    "l4close": Workload("l4", headers=CLOSE),
    "l4bulk": Workload("l4", path="/big/1m", connections=16),
    "http": Workload("http"),
    "browser": Workload("http", headers=tuple(f"{name}: {value}" for name, value in BROWSER.items())),
    "httpclose": Workload("http", headers=CLOSE),
    "bulk": Workload("http", path="/big/1m", connections=16),
    "post": Workload("http", body=65536),
    "idle": Workload("http", idle=2000),
    "tls": Workload("tls"),
    "tlsclose": Workload("tls", headers=CLOSE),
    "tlsbulk": Workload("tls", path="/big/1m", connections=16),
}


@dataclass
class Round:
    """What one balancer did in one round."""

    cpu: float = 0.0  # microseconds for each request
    rate: float = 0.0
    p50: float = 0.0  # milliseconds
    p99: float = 0.0
    errors: float = 0.0
    resident: float = 0.0  # MiB
    idle: float = 0.0  # KiB for each idle connection


class Bench:
    """The folder, the backend and the ports of one run."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self.folder = Path(tempfile.mkdtemp(prefix="lbsvc-bench-"))
        self.folder.chmod(0o755)  # nginx's workers are another user
        (self.folder / "www").mkdir()
        (self.folder / "www/1m").write_bytes(os.urandom(1 << 20))
        self.site = Site(self.folder, tuple(free_port() for _ in range(3)))
        self.children: list[subprocess.Popen[bytes]] = []

    def spawn(self, command: list[str], cpu: int, log: str) -> subprocess.Popen[bytes]:
        env = {**os.environ, "GOMAXPROCS": "1", "HOME": str(self.folder), "PYTHONPATH": str(ROOT)}
        with open(self.folder / log, "ab") as out:
            child = subprocess.Popen(
                pinned(command, cpu), cwd=self.folder, env=env, stdout=out, stderr=subprocess.STDOUT
            )
        self.children.append(child)
        return child

    def start_backend(self) -> None:
        # On every address of loopback: growth.py has a thousand backends.
        listens = " ".join(f"listen {port} backlog=4096;" for port in self.site.backends)
        conf = self.site.write(
            "backend.conf",
            "worker_processes 1; pid backend.pid; error_log backend.err; events { worker_connections 8192; }\n"
            "http { client_max_body_size 0; client_body_buffer_size 1m;\n"
            " access_log off; keepalive_requests 100000000; keepalive_timeout 300s;\n"
            f' server {{ {listens} location / {{ return 200 "forty bytes of text, as small answers are."; }}\n'
            f"  location /big {{ alias {self.folder}/www/; }} }} }}\n",
        )
        child = self.spawn(["nginx", "-p", str(self.folder), "-c", conf, "-g", "daemon off;"], 1, "backend.log")
        if not all(listening(port, child) for port in self.site.backends):
            raise SystemExit("the backend did not start:\n" + self.log("backend.log"))

    def log(self, name: str) -> str:
        return (self.folder / name).read_text(errors="replace")[-1000:]

    def round(self, balancer: str, workload: Workload) -> Round | str:
        """Measure one balancer once; a string says why it could not be."""
        port = free_port()
        child = self.spawn(BALANCERS[balancer](self.site, workload.layer, port), 0, f"{balancer}.log")
        try:
            if not listening(port, child):
                return "did not start: " + self.log(f"{balancer}.log").strip().replace("\n", " ")[-300:]
            time.sleep(1.0)  # its first health checks are over
            if workload.idle:
                return self.idle(port, workload.idle, child.pid)
            self.load(port, workload, 1)
            pids = tree(child.pid)
            before = cpu_seconds(pids)
            measured, requests = self.load(port, workload, self.seconds)
            measured.cpu = 1e6 * (cpu_seconds(pids) - before) / max(requests, 1)
            measured.resident = resident(pids) / 1024
            return measured
        finally:
            stop(child)

    def load(self, port: int, workload: Workload, seconds: int) -> tuple[Round, int]:
        command = ["wrk", "-t1", f"-c{workload.connections}", f"-d{seconds}s", "--latency"]
        for header in workload.headers:
            command += ["-H", header]
        script = ""
        if workload.body:
            script = f'wrk.method = "POST"\nwrk.body = string.rep("x", {workload.body})\n'
        if workload.pause:
            script += f"function delay() return math.random(0, {2 * workload.pause}) end\n"
        if script:
            command += ["-s", self.site.write("load.lua", script)]
        where = f"https://localhost:{port}" if workload.layer == "tls" else f"http://127.0.0.1:{port}"
        command.append(f"{where}{workload.path}")
        out = subprocess.run(
            pinned(command, 1), capture_output=True, text=True, timeout=seconds + 60, check=False
        ).stdout
        requests = re.search(r"(\d+) requests in", out)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
        times = dict(re.findall(r"^\s+(50|99)%\s+(\S+)", out, re.M))
        wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
        errors = (int(wrong[1]) if wrong else 0) + (sum(map(int, sockets.groups())) if sockets else 0)
        measured = Round(
            rate=float(rate[1]) if rate else 0.0,
            p50=milliseconds(times.get("50", "0us")),
            p99=milliseconds(times.get("99", "0us")),
            errors=errors if requests else 1,
        )
        return measured, int(requests[1]) if requests else 0

    def idle(self, port: int, count: int, pid: int) -> Round:
        """Memory for each connection that has had one answer and says nothing more."""
        pids = tree(pid)
        before = resident(pids)
        clients = []
        try:
            for _ in range(count):
                client = socket.create_connection(("127.0.0.1", port), 5)
                client.sendall(b"GET / HTTP/1.1\r\nHost: bench.example\r\n\r\n")
                clients.append(client)
            for client in clients:
                client.settimeout(5)
                client.recv(65536)
            after = resident(pids)
        finally:
            for client in clients:
                client.close()
        return Round(idle=(after - before) / count, resident=after / 1024)

    def close(self) -> None:
        for child in self.children:
            stop(child)
        shutil.rmtree(self.folder, ignore_errors=True)


ROOT = Path(__file__).resolve().parents[2]


def takes_part(balancer: str, workload: Workload) -> bool:
    if balancer == "caddy":
        return workload.layer != "l4" and shutil.which("caddy") is not None
    if balancer == "lbsvc+log":
        return workload.layer != "l4" and not workload.idle
    if balancer == "lbsvc+ahead":
        return workload.layer == "l4" and workload.headers == CLOSE
    if balancer == "lbsvc+compiled":
        return "COMPILED" in os.environ
    return balancer == "lbsvc" or shutil.which(balancer) is not None


def pinned(command: list[str], cpu: int) -> list[str]:
    """The command on one CPU, where there are two and taskset to choose."""
    if shutil.which("taskset") and len(os.sched_getaffinity(0)) > 1:
        return ["taskset", "-c", str(sorted(os.sched_getaffinity(0))[cpu]), *command]
    return command


def listening(port: int, child: subprocess.Popen[bytes], patience: float = 20) -> bool:
    end = time.monotonic() + patience
    while time.monotonic() < end and child.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False


def stop(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def cpu_seconds(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident(pids: list[int]) -> float:
    """KiB of resident memory."""
    total = 0
    for pid in pids:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        total += int(found[1]) if found else 0
    return total


def milliseconds(text: str) -> float:
    found = re.match(r"([\d.]+)(us|ms|s|m)", text)
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}[found[2]] if found else 0.0


def machine() -> str:
    """CPU, kernel and versions in one line."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    parts = [f"{model[1] if model else platform.machine()}, {os.cpu_count()} CPUs", f"Linux {platform.release()}"]
    for program, option in (("haproxy", "-v"), ("nginx", "-v"), ("caddy", "version")):
        if shutil.which(program):
            said = subprocess.run([program, option], capture_output=True, text=True, timeout=20, check=False)
            version = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
            parts.append(f"{program} {version[0] if version else '?'}")
    parts.append(f"Python {platform.python_version()}, Twisted {metadata.version('twisted')}")
    return "; ".join(parts)


def medians_of(results: dict[str, list[Round | str]]) -> dict[str, Round]:
    """What each balancer took, in the middle of its rounds."""
    medians: dict[str, Round] = {}
    for balancer, rounds in results.items():
        good = [each for each in rounds if isinstance(each, Round)]
        if good:
            fields = vars(good[0])
            medians[balancer] = Round(
                **{field: statistics.median(getattr(each, field) for each in good) for field in fields}
            )
    return medians


def table(name: str, results: dict[str, list[Round | str]]) -> str:
    """One workload's medians as Markdown."""
    medians = medians_of(results)
    failures = [
        f"\n{balancer}: {rounds[0]}" for balancer, rounds in results.items() if rounds and isinstance(rounds[0], str)
    ]
    lines = [f"### {name}", ""]
    if WORKLOADS[name].idle:
        lines += ["| balancer | KiB for an idle connection | resident MiB |", "|---|---:|---:|"]
        lines += [f"| {who} | {each.idle:.1f} | {each.resident:.0f} |" for who, each in medians.items()]
    else:
        base = medians.get("haproxy")
        lines += [
            "| balancer | CPU µs/request | of HAProxy | requests/s | p50 ms | p99 ms | errors | resident MiB |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for who, each in medians.items():
            ratio = f"{each.cpu / base.cpu:.2f}" if base and base.cpu else ""
            lines.append(
                f"| {who} | {each.cpu:.1f} | {ratio} | {each.rate:.0f} | {each.p50:.2f} | {each.p99:.2f} "
                f"| {each.errors:.0f} | {each.resident:.0f} |"
            )
    return "\n".join([*lines, *failures, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of load in each round")
    parser.add_argument("--balancers", default=",".join(BALANCERS), help="default: %(default)s")
    parser.add_argument("--svg", type=Path, help="a file for the picture")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    parser.add_argument("workloads", nargs="?", default="http,l4", help=f"some of {','.join(WORKLOADS)}")
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if min(options.rounds, options.seconds) < 1:
        parser.error("rounds and seconds are 1 at least")
    if unwritable := [each for each in (options.svg, options.json) if each and not each.parent.is_dir()]:
        parser.error(f"{unwritable[0]}: there is no such folder")
    chosen, balancers = options.workloads.split(","), options.balancers.split(",")
    for name, known in [(each, WORKLOADS) for each in chosen] + [(each, BALANCERS) for each in balancers]:
        if name not in known:
            parser.error(f"{name}: not one of {', '.join(known)}")
    if missing := [each for each in ("wrk", "nginx") if shutil.which(each) is None]:
        raise SystemExit(f"not installed: {', '.join(missing)} (wrk is the client, nginx the backend)")
    bench = Bench(options.seconds)
    try:
        bench.start_backend()
        caption = f"{machine()}; {options.rounds} rounds of {options.seconds} s, medians"
        print(f"{caption}\n", flush=True)
        found: dict[str, dict[str, dict[str, float]]] = {}
        for name in chosen:
            workload = WORKLOADS[name]
            results: dict[str, list[Round | str]] = {each: [] for each in balancers if takes_part(each, workload)}
            for _ in range(options.rounds):
                for balancer, rounds in results.items():
                    rounds.append(bench.round(balancer, workload))
            print(table(name, results), flush=True)
            found[name] = {who: vars(each) for who, each in medians_of(results).items()}
        today = datetime.now(UTC).date().isoformat()
        if options.json:
            options.json.write_text(json.dumps({"caption": f"{caption}; {today}", "workloads": found}, indent=1))
        if options.svg:
            options.svg.write_text(draw(found, f"{caption}; {today}"))
    finally:
        bench.close()


if __name__ == "__main__":
    main()
