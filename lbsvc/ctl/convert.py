"""`lbctl convert`: the configuration of one of five smaller balancers, in our words.

Promises: what goes to standard output is a whole configuration that config/loader.py takes (this has been tried before it
is written); what could not be carried over, or means something else now, goes to standard error, a line for each, with its
place. What cannot be understood ends with exit code 78, every mistake at once, and nothing on standard output. Which of
the five it is, its shape tells, or --from. Called by main.py.

Decision: where the old program did not keep its word, what it did is carried over if nobody would notice else (weights
that its algorithm ignored, checks by TCP), and what it promised where we can keep it (paths, breakers, retries).
"""

from __future__ import annotations

import sys
from typing import Final

import click

from lbsvc.config.document import Items, Mapping
from lbsvc.config.loader import check_text
from lbsvc.ctl import convert_akash, convert_l4lb, convert_loadex, convert_urls
from lbsvc.ctl.client import EX_CONFIG
from lbsvc.ctl.convert_new import New, write
from lbsvc.ctl.convert_old import Old, Report, read_old
from lbsvc.ctl.session import json_option, say, the_session
from lbsvc.errors import ConfigErrors, Mistake

#: What they are called, and how they are recognised.
KINDS: Final = {
    "akash": "JSON with `listen` and `Backends` of `address`",
    "loadex": "a command line with -backends",
    "adaptive": "YAML with `strategy` or `server.admin_port`",
    "vietddude": "YAML or JSON with `algorithm` and `backends` of `url`",
    "l4lb": "YAML with `loadbalancer`",
}
_CONVERTERS: Final = {
    "akash": convert_akash.convert,
    "adaptive": convert_urls.convert_adaptive,
    "vietddude": convert_urls.convert_vietddude,
    "l4lb": convert_l4lb.convert,
}


def convert_text(text: str, file: str, kind: str | None = None) -> tuple[str, New, list[str]]:
    """Which of the five it is, the new configuration, and what there is to say. Raises ConfigErrors."""
    report = Report(file)
    if kind is None and not text.lstrip().startswith("{") and convert_loadex.LOOKS.search(text):
        kind = "loadex"
    if kind == "loadex":
        new = convert_loadex.convert(text, report)
    else:
        root = read_old(text, report)
        if root is None:
            report.stop(f"is none of the configurations that are known: {_known()}")
        kind = kind or _kind_of(root, report)
        new = _CONVERTERS[kind](Old(report, root))
    report.check()
    try:
        check_text(written(kind, new, file), file)
    except ConfigErrors as errors:
        what = "what comes of it would not be taken"
        raise ConfigErrors(
            [Mistake(file, 0, 0, "", f"{what}: {each.key}: {each.message}") for each in errors.mistakes]
        ) from None
    return kind, new, report.lines


def written(kind: str, new: New, file: str) -> str:
    """The text of the new configuration."""
    name = {"akash": "Akash", "loadex": "Loadex"}.get(kind, kind)
    return write(new.tree, [f"Made by lbctl convert of {file} ({name}): a beginning, to be looked through."])


def _known() -> str:
    return "; ".join(f"{name} ({shape})" for name, shape in KINDS.items())


def _kind_of(root: Mapping, report: Report) -> str:
    entries = {entry.key.lower(): entry.value for entry in root.entries.values()}
    if "listeners" in entries and "pools" in entries:
        report.stop("is a configuration of ours already")
    server = entries.get("server")
    inner = {entry.key.lower() for entry in server.entries.values()} if isinstance(server, Mapping) else set()
    listed = entries.get("backends")
    items = [entry.value for entry in listed.items] if isinstance(listed, Items) else []
    keys = {entry.key.lower() for item in items if isinstance(item, Mapping) for entry in item.entries.values()}
    if "loadbalancer" in entries or ("healthcheck" in entries and "url" not in keys):
        return "l4lb"
    if "strategy" in entries or "admin_port" in inner:
        return "adaptive"
    if "url" in keys:
        return "vietddude" if "algorithm" in entries or "id" in keys or not inner else "adaptive"
    if "port" in keys and "address" in keys:
        return "l4lb"
    if items and not isinstance(entries.get("listen"), Mapping) and ("address" in keys or "listen" in entries):
        return "akash"
    return report.stop(
        f"is none of the configurations that are known ({_known()}); --from says which it is meant to be"
    )


@click.command("convert")
@click.argument("file", required=False, type=click.Path())
@click.option("--from", "kind", type=click.Choice(list(KINDS)), help="Which it is. [default: its shape tells]")
@click.option("--flags", help="Loadex's command line itself, in place of FILE.")
@json_option
@click.pass_context
def command(ctx: click.Context, file: str | None, kind: str | None, flags: str | None) -> None:
    """Convert the configuration of a smaller balancer to ours, on standard output.

    FILE (- for standard input) is Akash's JSON (akash), a command line of Loadex (loadex), the YAML of the adaptive API
    balancer (adaptive), YAML or JSON of vietddude/load-balancer (vietddude), or the layer 4 balancer's YAML (l4lb). What
    cannot be carried over is said on standard error, line by line. 78: it cannot be understood.

    \b
      lbctl convert config.json > lb.yaml
      lbctl convert --flags '-port 8080 -backends http://127.0.0.1:8001,http://127.0.0.1:8002 -algo lc'
    """
    if (file is None) == (flags is None):
        raise click.UsageError("give FILE or --flags, one of them")
    if flags is not None and kind not in (None, "loadex"):
        raise click.UsageError("--flags is for loadex")
    name = "command line" if file is None else ("standard input" if file == "-" else file)
    session = the_session(ctx)
    try:
        text = flags if flags is not None else _read(file or "")
        kind, new, lines = convert_text(text, name, "loadex" if flags is not None else kind)
    except ConfigErrors as errors:
        lines = [str(mistake) for mistake in errors.mistakes]
        if session.is_json:
            session.line({"ok": False, "errors": lines}, "")
        for line in lines:
            say(line)
        ctx.exit(EX_CONFIG)
    for line in lines:
        say(line)
    result = {"ok": True, "from": kind, "configuration": new.tree, "remarks": lines}
    session.show(result, lambda: written(kind, new, name))


def _read(file: str) -> str:
    try:
        if file == "-":
            content = sys.stdin.buffer.read()
        else:
            with open(file, "rb") as opened:
                content = opened.read()
        return content.decode("utf-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "this is not UTF-8 text"
        raise ConfigErrors([Mistake(file, 0, 0, "", f"cannot be read: {why}")]) from None
