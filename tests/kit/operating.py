"""What an operator does, for tests of the real process: calls of the admin API, reloads, loads that count every error.

Promises: each wait has a deadline; a load runs until it is told to end and then says what went wrong, by kind, where nothing
did an empty mapping. Used by tests/integration. Bytes, seconds.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.kit.processes import DEADLINE, Balancer, RawClient, run, until

Tree = dict[str, Any]


class Answer:
    """What the admin interface said: `value` is the JSON of its body, None where there is none."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.etag = response.getheader("ETag", "")
        self.body = response.read()
        self.value: Any = json.loads(self.body) if "json" in response.getheader("Content-Type", "") else None


def ask(port: int, method: str, path: str, value: object = None, **headers: str) -> Answer:
    """One call of the admin listener on loopback; `_` in names of headers is a dash."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    body = None
    if value is not None:
        body = json.dumps(value)
        sent["Content-Type"] = "application/json"
    try:
        connection.request(method, path, body, sent)
        return Answer(connection.getresponse())
    finally:
        connection.close()


class Operator:
    """Somebody who runs a service: what its file says is `tree`, which `reload` writes and has applied."""

    def __init__(self, balancer: Balancer) -> None:
        self.balancer = balancer
        self.port = balancer.admin_port
        self.tree: Tree = yaml.safe_load(balancer.file.read_text())

    def api(self, method: str, path: str, value: object = None, **headers: str) -> Answer:
        """A call below /api/v1."""
        return ask(self.port, method, "/api/v1" + path, value, **headers)

    def write(self) -> None:
        """The file says what the tree says, from one moment to the next."""
        file = self.balancer.file
        new = file.with_name("new.yaml")
        new.write_text(yaml.safe_dump(self.tree, sort_keys=False))
        new.rename(file)

    def reload(self) -> Answer:
        """Write the file, and have it applied; whatever the answer."""
        self.write()
        return self.api("POST", "/reload")

    def apply(self) -> list[str]:
        """Write the file, and have it applied: what has changed, in words. Fails where it is refused."""
        answer = self.reload()
        assert answer.status == 200, answer.body
        changes: list[str] = answer.value["changes"]
        return changes

    def backend(self, pool: str, name: str) -> Tree | None:
        """A backend as the status shows it; None where it is not there."""
        pools = self.api("GET", "/status").value["pools"]
        for each in (each for pool_ in pools if pool_["name"] == pool for each in pool_["backends"]):
            if each["name"] == name:
                found: Tree = each
                return found
        return None

    def set(self, pool: str, name: str, **fields: object) -> None:
        """Change a backend at run time."""
        answer = self.api("PATCH", f"/pools/{pool}/backends/{name}", fields)
        assert answer.status == 200, answer.body

    def wait_for(self, pool: str, name: str, condition: Callable[[Tree], bool], what: str) -> None:
        """Until a backend that is there is as `condition` says."""

        def is_so() -> bool:
            found = self.backend(pool, name)
            return found is not None and condition(found)

        until(is_so, f"{pool}/{name}: {what}")

    def wait_until_gone(self, pool: str, name: str) -> None:
        """Until the status does not show a backend any more."""
        until(lambda: self.backend(pool, name) is None, f"{pool}/{name}: gone")


def descriptors(pid: int) -> int:
    """How many are open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


class Repeated:
    """A job that is done again and again in a thread; it says what went wrong, and is None's where nothing did."""

    def __init__(self, job: Callable[[], str | None]) -> None:
        self.errors: Counter[str] = Counter()
        self.done = 0
        self._job = job
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                wrong = self._job()
            except (OSError, EOFError, AssertionError) as error:
                wrong = f"{type(error).__name__}: {error}"
            if wrong is not None:
                self.errors[wrong] += 1
            self.done += 1

    def wait(self, count: int) -> None:
        """Until it has been done `count` times more."""
        aim = self.done + count
        until(lambda: self.done >= aim, f"done {count} times more")

    def stop(self) -> None:
        """End it."""
        self._ending.set()
        self._thread.join(DEADLINE)

    def end(self) -> Mapping[str, int]:
        """End it, and say what went wrong, by kind."""
        self.stop()
        return dict(self.errors)


def fresh_requests(port: int, path: str = "/") -> Repeated:
    """Requests, each on a connection of its own, as a loop of curls makes them."""

    def job() -> str | None:
        with RawClient(port) as client:
            answer = client.get(path, "Connection: close")
        return None if answer.status == 200 else f"{answer.status} {answer.body[:60]!r}"

    return Repeated(job)


def h2_requests(port: int, folder: Path, path: str = "/") -> Repeated:
    """Runs of h2load over new connections, which speak HTTP/2 at once."""

    def job() -> str | None:
        url = f"http://127.0.0.1:{port}{path}"
        result = run(["h2load", "-n", "2000", "-c", "4", "-m", "10", url], folder=folder)
        text = result.stdout.decode()
        ok = re.search(r"2000 succeeded, 0 failed, 0 errored, 0 timeout", text) and re.search(r"2000 2xx", text)
        return None if ok and result.returncode == 0 else f"{result.returncode}: {text[-500:]}"

    return Repeated(job)
