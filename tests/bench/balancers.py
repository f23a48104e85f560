"""The balancers that compare.py measures: a configuration for the same work, and the command.

One process, one thread, connections to backends kept, TCP or HTTP checks as each does them by default.
Layers: "l4" forwards bytes, "http" speaks HTTP/1.1 and adds X-Forwarded-For, "tls" does so over TLS 1.2 and 1.3 with one
ECDSA certificate.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Site:
    """Where configurations are written, and the ports of the backends."""

    folder: Path
    backends: tuple[int, ...]

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def certificate(self) -> tuple[str, str, str]:
        """Paths of a certificate, of its key, and of both in one file; made when first asked for."""
        cert, key, both = (self.folder / name for name in ("cert.pem", "key.pem", "both.pem"))
        if not both.exists():
            subprocess.run(
                [
                    *[
                        "openssl",
                        "req",
                        "-x509",
                        "-newkey",
                        "ec",
                        "-pkeyopt",
                        "ec_paramgen_curve:prime256v1",
                        "-nodes",
                        "-days",
                        "30",
                    ],
                    *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
                    *("-keyout", str(key), "-out", str(cert)),
                ],
                check=True,
                capture_output=True,
            )
            both.write_text(cert.read_text() + key.read_text())
            key.chmod(0o644)  # nginx's workers are another user
        return str(cert), str(key), str(both)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def haproxy(site: Site, layer: str, port: int) -> list[str]:
    extra = "" if layer == "l4" else " http-reuse always\n option forwardfor\n"
    tls = f" ssl crt {site.certificate()[2]}" if layer == "tls" else ""
    servers = "".join(f" server s{at} 127.0.0.1:{to} check inter 5s\n" for at, to in enumerate(site.backends))
    conf = site.write(
        "haproxy.cfg",
        "global\n nbthread 1\n maxconn 8000\n"
        f"defaults\n mode {'tcp' if layer == 'l4' else 'http'}\n"
        " timeout connect 5s\n timeout client 300s\n timeout server 300s\n"
        f"frontend f\n bind 127.0.0.1:{port} backlog 4096{tls}\n default_backend b\nbackend b\n{extra}{servers}",
    )
    return ["haproxy", "-db", "-f", conf]


def nginx(site: Site, layer: str, port: int) -> list[str]:
    servers = "".join(f"server 127.0.0.1:{to};" for to in site.backends)
    listen = f"listen 127.0.0.1:{port} backlog=4096;"
    if layer == "l4":
        module = "/usr/lib/nginx/modules/ngx_stream_module.so"
        load = f"load_module {module};\n" if Path(module).exists() else ""
        body = f"stream {{ upstream u {{ {servers} }} server {{ {listen} proxy_pass u; }} }}"
    else:
        load = tls = ""
        if layer == "tls":
            cert, key, _ = site.certificate()
            listen = f"listen 127.0.0.1:{port} backlog=4096 ssl;"
            tls = f"ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;\n "
        body = (
            "http { access_log off; keepalive_requests 100000000; keepalive_timeout 300s;\n"
            f" upstream u {{ {servers} keepalive 256; keepalive_requests 100000000; }}\n"
            f" {tls}server {{ {listen} location / {{ proxy_pass http://u; proxy_http_version 1.1;\n"
            '  proxy_set_header Connection ""; proxy_set_header Host $host;\n'
            "  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; } } }"
        )
    conf = site.write(
        "nginx.conf",
        f"{load}worker_processes 1; pid nginx.pid; error_log nginx.err;\n"
        f"events {{ worker_connections 8192; }}\n{body}\n",
    )
    return ["nginx", "-p", str(site.folder), "-c", conf, "-g", "daemon off;"]


def caddy(site: Site, layer: str, port: int) -> list[str]:
    to = " ".join(f"127.0.0.1:{each}" for each in site.backends)
    where, tls = f"http://127.0.0.1:{port}", ""
    if layer == "tls":
        cert, key, _ = site.certificate()
        where, tls = f"https://localhost:{port}", f" tls {cert} {key}\n"
    conf = site.write(
        "Caddyfile",
        "{\n admin off\n auto_https off\n}\n"
        f"{where} {{\n{tls} reverse_proxy {to} {{\n"
        "  transport http {\n   keepalive_idle_conns_per_host 256\n  }\n }\n}\n",
    )
    return ["caddy", "run", "--adapter", "caddyfile", "--config", conf]


def lbsvc(site: Site, layer: str, port: int, log: str = "access_log: off\n", pool: str = "") -> list[str]:
    tls = ""
    if layer == "tls":
        cert, key, _ = site.certificate()
        tls = f"    tls: {{certificates: [{{cert: {cert}, key: {key}}}]}}\n"
    conf = site.write(
        "lb.yaml",
        "listeners:\n  main:\n"
        f"    bind: 127.0.0.1:{port}\n    protocol: {'tcp' if layer == 'l4' else 'http'}\n"
        f"    max_connections: 20000\n    pool: b\n{tls}"
        f"pools:\n  b:\n    backends: [{', '.join(f'127.0.0.1:{to}' for to in site.backends)}]\n"
        f"    health_check: {{type: tcp, interval: 5s}}\n{pool}"
        f"admin:\n  bind: 127.0.0.1:{free_port()}\n{log}",
    )
    return [sys.executable, "-m", "twisted", "--log-level", "warn", "loadbalancer", "--config", conf]


def lbsvc_with_log(site: Site, layer: str, port: int) -> list[str]:
    return lbsvc(site, layer, port, "access_log: {path: access.log}\n")


def lbsvc_ahead(site: Site, layer: str, port: int) -> list[str]:
    """With connections to the backends that are made ahead (net/ahead.py)."""
    return lbsvc(site, layer, port, pool="    connections: {keep_alive: 64}\n")


def lbsvc_compiled(site: Site, layer: str, port: int) -> list[str]:
    """The wheel that mypyc has made, of the Python that COMPILED names (-I: not what PYTHONPATH leads to)."""
    return [os.environ["COMPILED"], "-I", *lbsvc(site, layer, port)[1:]]


BALANCERS: dict[str, Callable[[Site, str, int], list[str]]] = {
    "haproxy": haproxy,
    "nginx": nginx,
    "caddy": caddy,
    "lbsvc": lbsvc,
    "lbsvc+compiled": lbsvc_compiled,
    "lbsvc+log": lbsvc_with_log,
    "lbsvc+ahead": lbsvc_ahead,
}
