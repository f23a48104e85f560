"""Other people's proxies beside ours: HAProxy, and nginx as a proxy of streams, with the configuration that a test gives.

Promises: each is started in a folder of the test, is waited for until it accepts, and is stopped by its pid.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from tests.kit.processes import Child, answers, run, until


def program(name: str) -> str:
    """Where it is; the places of servers count too, which not everybody has on the path."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
    assert found is not None, f"{name} is not installed (.ci/run installs it)"
    return found


class Haproxy(Child):
    """`sections` are its frontends and backends; streams unless one says `mode http`. `port` is one that it listens on."""

    def __init__(self, sections: str, folder: Path, port: int) -> None:
        conf = folder / f"haproxy-{port}.cfg"
        conf.write_text(
            "global\n nbthread 1\n maxconn 1000\n ssl-default-bind-options ssl-min-ver TLSv1.2\n"
            "defaults\n mode tcp\n timeout connect 30s\n timeout client 60s\n timeout server 60s\n" + sections + "\n"
        )
        super().__init__([program("haproxy"), "-db", "-f", str(conf)], folder=folder)
        until(lambda: answers(port) or self.process.poll() is not None, f"haproxy on {port}")
        assert self.process.poll() is None, self.report()


class NginxStreams(Child):
    """`servers` is what stands inside its stream block. The module is a file of its own in Debian."""

    def __init__(self, servers: str, folder: Path, port: int) -> None:
        nginx = program("nginx")
        built = run([nginx, "-V"]).stderr.decode()
        load = ""
        if "--with-stream=dynamic" in built:
            found = re.search(r"--modules-path=(\S+)", built)
            assert found is not None, built
            load = f"load_module {found[1]}/ngx_stream_module.so;\n"
        conf = folder / f"nginx-{port}.conf"
        conf.write_text(
            f"{load}worker_processes 1; pid {folder}/nginx-{port}.pid; error_log {folder}/error.log;\n"
            f"events {{ worker_connections 256; }}\nstream {{\n{servers}\n}}\n"
        )
        command = [nginx, "-p", str(folder), "-c", str(conf), "-g", "daemon off; master_process off;"]
        super().__init__(command, folder=folder)
        until(lambda: answers(port) or self.process.poll() is not None, f"nginx on {port}")
        assert self.process.poll() is None, self.report()
