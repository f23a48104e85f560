"""How do latencies and failures grow with the clients? A load in stages, as k6 scripts have them (features.md, TST-4).

    python -m tests.bench.stages [--seconds 30] [--clients 100,500,1000] [--algorithm round_robin] [--kept 64]

The real service before three servers of one nginx, with everything on that is on by default but the access log; wrk is so
many clients that ask as fast as they are answered, stage after stage of the same process. Prints a Markdown table: requests
and answers a second, failures (no answer, or not 2xx), p50, p95, p99 and the longest in milliseconds, and whether the stage
is within the bounds of that row: p95 below 200, 300 and 500 ms, p99 below 1 s, failures below 5 %. Then what must hold
behind any load: nothing in flight, no connection left. Not a test: times depend on who shares the machine.

`--kept` is `connections.keep_alive` of the pool. Where more clients are there at one time than that for each backend, what
is beyond it dials anew each time, and a request costs several times as much (measured: 500 clients, 64 kept by each of
three, 4,400 answers a second; 512 kept, 23,000).
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
from pathlib import Path

from lbsvc.net.listener import raise_descriptor_limit
from tests.integration.cases import config
from tests.kit.processes import Balancer, Nginx, free_ports, scratch_folder, until

#: Clients -> milliseconds that 95 of 100 answers take at most; beyond the last it is the last.
BOUNDS = {100: 200.0, 500: 300.0, 1000: 500.0}
P99, FAILURES = 1000.0, 0.05
#: What wrk says at its end, in microseconds and as JSON.
REPORT = """
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\\nREPORT {"requests": %d, "micros": %d, "lost": %d, "wrong": %d, "p50": %f, "p95": %f, "p99": %f, "max": %f}\\n',
    summary.requests, summary.duration, errors.connect + errors.read + errors.write + errors.timeout, errors.status,
    latency:percentile(50), latency:percentile(95), latency:percentile(99), latency.max))
end
"""


def bound(clients: int) -> float:
    """Milliseconds for the 95th percentile of a stage."""
    return next((most for count, most in BOUNDS.items() if clients <= count), max(BOUNDS.values()))


def load(folder: Path, port: int, clients: int, seconds: int) -> dict[str, float]:
    """One stage."""
    script = folder / "report.lua"
    script.write_text(REPORT)
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script)]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, timeout=seconds + 120, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.partition("REPORT ")[2])
    return found


def row(clients: int, found: dict[str, float]) -> str:
    """A stage as a line of the table."""
    requests = found["requests"]
    failed = found["lost"] + found["wrong"]
    share = failed / max(1.0, requests + found["lost"])
    p50, p95, p99, longest = (found[key] / 1000 for key in ("p50", "p95", "p99", "max"))
    is_within = p95 < bound(clients) and p99 < P99 and share < FAILURES
    rate = requests / (found["micros"] / 1e6)
    return (
        f"| {clients} | {requests:.0f} | {rate:.0f} | {failed:.0f} ({share:.2%}) | {p50:.1f} | {p95:.1f} | {p99:.1f} "
        f"| {longest:.1f} | {'yes' if is_within else 'no'} (p95 < {bound(clients):.0f}) |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=int, default=30, help="of each stage")
    parser.add_argument("--clients", default="100,500,1000", help="of the stages (%(default)s)")
    parser.add_argument("--algorithm", default="round_robin")
    parser.add_argument("--kept", type=int, default=64, help="idle connections for each backend (%(default)s)")
    options = parser.parse_args()
    stages = [int(each) for each in options.clients.split(",")]
    if shutil.which("wrk") is None:
        raise SystemExit("not installed: wrk")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_descriptor_limit()
    folder = scratch_folder()
    web, admin, *ports = free_ports(5)
    answer = "keepalive_requests 100000000; location / { return 200 'forty bytes of text, as small answers are.'; }"
    servers = "\n".join(f"server {{ listen 127.0.0.1:{port} backlog=4096; {answer} }}" for port in ports)
    nginx = Nginx(servers, folder, ports[0])
    pool = {"algorithm": options.algorithm, "connections": {"keep_alive": options.kept}}
    pools = {"web": {"backends": [f"127.0.0.1:{port}" for port in ports], **pool}}
    text = config({"main": {"bind": f"127.0.0.1:{web}", "pool": "web"}}, pools, admin=admin, access_log="off")
    balancer = Balancer(text)
    try:
        balancer.ready()
        load(folder, web, 10, 1)  # warm
        print("| clients | requests | a second | failures | p50 ms | p95 ms | p99 ms | longest ms | within bounds |")
        print("|---:|---:|---:|---:|---:|---:|---:|---:|---|")
        for clients in stages:
            print(row(clients, load(folder, web, clients, options.seconds)), flush=True)
        for gauge in ("lbsvc_listener_connections", "lbsvc_http_requests_in_flight", "lbsvc_backend_active"):
            until(lambda gauge=gauge: balancer.metric(gauge) == 0, f"{gauge} 0")
        print(f"\nnothing is left; {balancer.resident / (1 << 20):.0f} MiB resident")
    finally:
        balancer.stop()
        nginx.stop()
        shutil.rmtree(folder, ignore_errors=True)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


if __name__ == "__main__":
    main()
