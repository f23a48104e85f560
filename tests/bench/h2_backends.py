"""What a request costs us and others in CPU where the backends speak HTTP/2, on this machine, in one run.

    python tests/bench/h2_backends.py --rounds 3 --seconds 3 h2-h2c,h1-h2c

A Markdown table for each workload, as compare.py prints it: its caution and its ways hold here too (one process each on
CPU 0; client and backend on CPU 1; turns round by round; the figure to trust is the ratio in one run). The client is
h2load, 16 connections of 10 streams each (wrk with 64 connections for HTTP/1.1, whose median stands for the mean); the
backend nghttpd, or nginx where that is not installed or asked for. Answers that are shorter than the backend's count as
errors. Whatever else is not installed is passed over.

Workloads: h2-h2c (HTTP/2 on both sides, without TLS), tls-h2c (TLS towards the client), h1-h2c (clients of HTTP/1.1),
h2-h1 (backends of HTTP/1.1, to compare with), h2-h2c-bulk (answers of 1 MiB, 4 connections of 4 streams).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from balancers import Site, free_port
from compare import Bench, cpu_seconds, listening, machine, milliseconds, pinned, resident, stop, tree
from compare import Workload as Plain

#: What small answers carry.
TEXT = "forty bytes of text, as small answers are."


@dataclass(frozen=True)
class Workload:
    front: str  # h1 | h2 | tls
    back: str  # h1 | h2c
    path: str = "/"
    connections: int = 16
    streams: int = 10


WORKLOADS = {
    "h2-h2c": Workload("h2", "h2c"),
    "tls-h2c": Workload("tls", "h2c"),
    "h1-h2c": Workload("h1", "h2c", connections=64, streams=1),
    "h2-h1": Workload("h2", "h1"),
    "h2-h2c-bulk": Workload("h2", "h2c", "/big/1m", 4, 4),
}


def haproxy(site: Site, workload: Workload, port: int) -> list[str]:
    tls = f" ssl crt {site.certificate()[2]} alpn h2" if workload.front == "tls" else ""
    proto = " proto h2" if workload.back == "h2c" else ""
    servers = "".join(f" server s{at} 127.0.0.1:{to} check inter 5s{proto}\n" for at, to in enumerate(site.backends))
    conf = site.write(
        "haproxy.cfg",
        "global\n nbthread 1\n maxconn 8000\ndefaults\n mode http\n"
        " timeout connect 5s\n timeout client 300s\n timeout server 300s\n"
        f"frontend f\n bind 127.0.0.1:{port} backlog 4096{tls}\n default_backend b\n"
        f"backend b\n http-reuse always\n option forwardfor\n{servers}",
    )
    return ["haproxy", "-db", "-f", conf]


def caddy(site: Site, workload: Workload, port: int) -> list[str]:
    where, tls = f"http://:{port}", ""
    if workload.front == "tls":
        cert, key, _ = site.certificate()
        where, tls = f"https://localhost:{port}", f" tls {cert} {key}\n"
    versions = "   versions h2c 2\n" if workload.back == "h2c" else ""
    conf = site.write(
        "Caddyfile",
        "{\n admin off\n auto_https off\n servers {\n  protocols h1 h2 h2c\n }\n}\n"
        f"{where} {{\n{tls} reverse_proxy {' '.join(f'127.0.0.1:{to}' for to in site.backends)} {{\n"
        f"  transport http {{\n   keepalive_idle_conns_per_host 256\n{versions}  }}\n }}\n}}\n",
    )
    return ["caddy", "run", "--adapter", "caddyfile", "--config", conf]


def lbsvc(site: Site, workload: Workload, port: int, log: str = "access_log: off\n") -> list[str]:
    tls, scheme = "", "h2c://" if workload.back == "h2c" else ""
    if workload.front == "tls":
        cert, key, _ = site.certificate()
        tls = f"    tls: {{certificates: [{{cert: {cert}, key: {key}}}]}}\n"
    conf = site.write(
        "lb.yaml",
        f"listeners:\n  main:\n    bind: 127.0.0.1:{port}\n    pool: b\n{tls}"
        f"pools:\n  b:\n    backends: [{', '.join(f'{scheme}127.0.0.1:{to}' for to in site.backends)}]\n"
        f"    health_check: {{type: tcp, interval: 5s}}\nadmin:\n  bind: 127.0.0.1:{free_port()}\n{log}",
    )
    return [sys.executable, "-m", "twisted", "--log-level", "warn", "loadbalancer", "--config", conf]


def lbsvc_with_log(site: Site, workload: Workload, port: int) -> list[str]:
    return lbsvc(site, workload, port, "access_log: {path: access.log}\n")


BALANCERS: dict[str, Callable[[Site, Workload, int], list[str]]] = {
    "haproxy": haproxy,
    "caddy": caddy,
    "lbsvc": lbsvc,
    "lbsvc+log": lbsvc_with_log,
}


@dataclass
class Round:
    """What one balancer did in one round."""

    cpu: float = 0.0  # microseconds for each request
    rate: float = 0.0
    mean: float = 0.0  # milliseconds
    errors: float = 0.0
    resident: float = 0.0  # MiB


class H2Bench:
    """A run: the backends of both kinds, and one balancer at a time."""

    def __init__(self, seconds: int, backend: str) -> None:
        self.bench = Bench(seconds)
        self.backend = backend
        site = self.bench.site
        self.sites = {"h1": site, "h2c": Site(site.folder, tuple(free_port() for _ in site.backends))}

    def start_backends(self) -> None:
        self.bench.start_backend()
        folder, ports = self.bench.folder, self.sites["h2c"].backends
        (folder / "www/index.html").write_text(TEXT)
        (folder / "www/big").mkdir()
        (folder / "www/big/1m").write_bytes((folder / "www/1m").read_bytes())
        if self.backend == "nginx":
            listens = " ".join(f"listen 127.0.0.1:{port} http2 backlog=4096;" for port in ports)
            conf = self.bench.site.write(
                "h2c.conf",
                "worker_processes 1; pid h2c.pid; error_log h2c.err; events { worker_connections 8192; }\n"
                "http { access_log off; keepalive_requests 100000000; keepalive_timeout 300s;\n"
                f" server {{ {listens} root {folder}/www;\n"
                f'  location = / {{ return 200 "{TEXT}"; }} }} }}\n',
            )
            commands = [["nginx", "-p", str(folder), "-c", conf, "-g", "daemon off;"]]
        else:
            commands = [["nghttpd", "--no-tls", "-a", "127.0.0.1", "-d", f"{folder}/www", str(port)] for port in ports]
        children = [self.bench.spawn(command, 1, "h2c.log") for command in commands]
        if not all(listening(port, children[0]) for port in ports):
            raise SystemExit("the backend did not start:\n" + self.bench.log("h2c.log"))

    def round(self, balancer: str, workload: Workload) -> Round | str:
        """Measure one balancer once; a string says why it could not be."""
        port = free_port()
        command = BALANCERS[balancer](self.sites[workload.back], workload, port)
        child = self.bench.spawn(command, 0, f"{balancer}.log")
        try:
            if not listening(port, child):
                said = self.bench.log(f"{balancer}.log").strip().replace("\n", " ")
                return f"did not start: {said[-300:]}"
            time.sleep(1.0)  # its first health checks are over
            self.load(port, workload, 1)
            pids = tree(child.pid)
            before = cpu_seconds(pids)
            measured, requests = self.load(port, workload, self.bench.seconds)
            measured.cpu = 1e6 * (cpu_seconds(pids) - before) / max(requests, 1)
            measured.resident = resident(pids) / 1024
            return measured
        finally:
            stop(child)

    def load(self, port: int, workload: Workload, seconds: int) -> tuple[Round, int]:
        if workload.front == "h1":
            # h2load of 1.52 takes a status line without a phrase, as HAProxy makes them, for a failure.
            one, count = self.bench.load(port, Plain("http", workload.path, connections=workload.connections), seconds)
            return Round(rate=one.rate, mean=one.p50, errors=one.errors), count
        url = f"{'https' if workload.front == 'tls' else 'http'}://localhost:{port}{workload.path}"
        options = [f"-c{workload.connections}", f"-m{workload.streams}", "-t1", "-D", str(seconds)]
        # Its name has two addresses: without this it may ask for the one on which nobody listens.
        options.append(f"--connect-to=127.0.0.1:{port}")
        command = pinned(["h2load", *options, url], 1)
        out = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False).stdout
        rate = re.search(r"finished in .*?, ([\d.]+) req/s", out)
        counts = {word: int(count) for count, word in re.findall(r"(\d+) (succeeded|failed|3xx|4xx|5xx)\b", out)}
        mean = re.search(r"time for request:\s+\S+\s+\S+\s+(\S+)", out)
        content = re.search(r"\((\d+)\) data", out)
        done = counts.pop("succeeded", 0)
        wanted = done * ((1 << 20) if workload.path != "/" else len(TEXT))
        is_short = content is None or int(content[1]) < wanted
        return Round(
            rate=float(rate[1]) if rate else 0.0,
            mean=milliseconds(mean[1]) if mean else 0.0,
            errors=done if is_short else sum(counts.values()),
        ), done


def table(name: str, results: dict[str, list[Round | str]]) -> str:
    """One workload's medians as Markdown."""
    lines = [
        f"### {name}",
        "",
        "| balancer | CPU µs/request | of HAProxy | requests/s | mean ms | errors | resident MiB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    failures, floor = [], 0.0
    for who, rounds in results.items():
        good = [each for each in rounds if isinstance(each, Round)]
        failures += [f"\n{who}: {each}" for each in rounds[:1] if isinstance(each, str)]
        if not good:
            continue
        each = Round(**{key: statistics.median(getattr(one, key) for one in good) for key in vars(good[0])})
        floor = each.cpu if who == "haproxy" else floor
        ratio = f"{each.cpu / floor:.2f}" if floor else ""
        lines.append(
            f"| {who} | {each.cpu:.1f} | {ratio} | {each.rate:.0f} | {each.mean:.2f} | {each.errors:.0f} "
            f"| {each.resident:.0f} |"
        )
    return "\n".join([*lines, *failures, ""])


def main() -> None:
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of load in each round")
    parser.add_argument("--balancers", default=",".join(BALANCERS), help="default: %(default)s")
    best = "nghttpd" if shutil.which("nghttpd") else "nginx"
    parser.add_argument("--backend", choices=("nghttpd", "nginx"), default=best, help="default: %(default)s")
    parser.add_argument("workloads", nargs="?", default="h2-h2c,h1-h2c", help=f"some of {','.join(WORKLOADS)}")
    options = parser.parse_args()
    chosen, balancers = options.workloads.split(","), options.balancers.split(",")
    for name, known in [(each, WORKLOADS) for each in chosen] + [(each, BALANCERS) for each in balancers]:
        if name not in known:
            parser.error(f"{name}: not one of {', '.join(known)}")
    if missing := [each for each in ("h2load", "wrk", "nginx", options.backend) if shutil.which(each) is None]:
        raise SystemExit(f"not installed: {', '.join(missing)}")
    run = H2Bench(options.seconds, options.backend)
    try:
        run.start_backends()
        print(
            f"{machine()}; backend {options.backend}; {options.rounds} rounds of {options.seconds} s, medians\n",
            flush=True,
        )
        for name in chosen:
            here = [each for each in balancers if each.startswith("lbsvc") or shutil.which(each)]
            results: dict[str, list[Round | str]] = {each: [] for each in here}
            for _ in range(options.rounds):
                for balancer, rounds in results.items():
                    rounds.append(run.round(balancer, WORKLOADS[name]))
            print(table(name, results), flush=True)
    finally:
        run.bench.close()


if __name__ == "__main__":
    main()
