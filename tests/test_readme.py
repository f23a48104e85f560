"""README.md says nothing that is not so: configurations that load, words, links and lines of files that exist.

What it says can be run is run by tests/integration/test_readme.py. A word in backticks is one of ours (a key, a metric, a
command, a call, a reason, a file, or at least something that stands in what we ship), or it is listed here as others'.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from functools import lru_cache
from typing import Any

import click
import yaml
from twisted.trial.unittest import TestCase

from lbsvc.admin.operations import OPERATIONS
from lbsvc.config.jsonschema import paths
from lbsvc.config.loader import load_text
from lbsvc.ctl.main import lbctl
from lbsvc.errors import ConfigErrors
from lbsvc.tap import Options
from tests.kit.processes import ROOT, scratch_folder
from tests.readme import KINDS, README, Block, anchors, differs, furnish, read_blocks, read_links, read_spans, whole
from tests.test_makefile import targets
from tests.test_monitoring import known

#: Words of others: programs, their options and settings, what stands in RFCs.
FOREIGN = {
    *("%2F", ";parameters", "(a+)+$"),
    "--web.listen-address=127.0.0.1:9091",
    *(
        "abortonclose",
        "PROXY UNKNOWN",
        "Client-Cert",
        "X-SSL-Client-*",
        "Upgrade: h2c",
        "grpc-timeout",
        "MemoryDenyWriteExecute",
        "journalctl -p warning -u lbsvc",
    ),
}

#: Below these keys are names that people choose.
FREE = {"split", "set", "headers", "listeners", "pools"}

SHIPPED = ("lbsvc", "etc", "systemd", "twisted", ".ci", "tests/bench", "tests/kit", "tests/contracts")


@lru_cache(None)
def shipped() -> str:
    """All that we ship, as one text."""
    suffixes = {".py", ".yaml", ".yml", ".json", ".sh", ".service", ".socket", ".js", ".html", ".css", ".md", ""}
    files = [f for folder in SHIPPED for f in sorted((ROOT / folder).rglob("*")) if f.is_file()]
    return "\n".join(f.read_text(errors="replace") for f in files if f.suffix in suffixes)


def stands(words: str) -> bool:
    """Do these words stand in what we ship?"""
    return words in shipped() and re.search(rf"(?<!\w){re.escape(words)}(?!\w)", shipped()) is not None


@lru_cache(None)
def keys() -> tuple[str, ...]:
    """Every key of the configuration, as `pools.retry.when`."""
    return tuple(re.sub(r"\.(N|\[\])(?=\.|$)", "", path) for path in paths())


def is_key(path: str) -> bool:
    return any(f".{key}".endswith(f".{path}") for key in keys())


def unknown_keys(tree: Any, above: str = "") -> list[str]:
    """The keys in a piece of YAML that no section has; `above` is where it stands."""
    if isinstance(tree, list):
        return [key for each in tree for key in unknown_keys(each, above)]
    if not isinstance(tree, dict):
        return []
    found = []
    for key, below in tree.items():
        path = f"{above}.{key}" if above else str(key)
        found += [path] if not is_key(path) else unknown_keys(below, path) if key not in FREE else []
    return found


def misused(words: list[str]) -> str:
    """What lbctl does not know of a command line."""
    command: click.Command = lbctl
    options = {name for each in lbctl.params for name in each.opts}
    for word in words[1:]:
        if word.startswith("-"):
            if word not in options | {"-h", "--help", "--version"}:
                return word
        elif isinstance(command, click.Group):
            found = command.get_command(click.Context(command), word)
            if found is None:
                return word
            command = found
            options |= {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    return ""


def is_call(span: str) -> bool:
    """Is it a page or a call of the admin interface, with its method or without?"""
    method, _, path = span.rpartition(" ")
    path = path.removeprefix("http://127.0.0.1:9901").partition("?")[0]
    calls = [(each.method, re.sub(r"\\{\w+\\}", "[^/]+", re.escape(each.path))) for each in OPERATIONS]
    pages = [("GET", page) for page in ("/livez", "/readyz", "/metrics", "/dashboard/", "/api/v1/openapi\\.json")]
    return any(method in ("", name) and re.fullmatch(pattern, path) for name, pattern in (*calls, *pages))


def wrong_word(span: str) -> str:
    """What is wrong with what stands in backticks; nothing if it is known."""
    first = span.split()[0]
    if first == "lbctl":
        unknown = misused(shlex.split(span.replace("…", "")))
        return f"no such command or option: {unknown}" if unknown else ""
    if first == "twist":
        options = {f"--{each.rstrip('=')}" for each in Options().longOpt} | {"--reactor"}
        unknown_options = set(re.findall(r"(?<= )--[\w-]+", span)) - options
        return f"no such option: {unknown_options}" if unknown_options else ""
    if span.startswith("lbsvc_"):
        return "" if {span, f"{span}_bucket"} & set(known()) else "no such metric"
    if first in ("python", "python3"):
        found = re.match(r"python3? (?:-m (tests[\w.]+)|(tests\S+)\.py)", span)
        module = (found[1] or found[2]).replace(".", "/") if found else "none"
        file = ROOT / module / "__main__.py" if (ROOT / module).is_dir() else ROOT / f"{module}.py"
        if not file.exists():
            return "no such module"
        strange = [option for option in re.findall(r" (--[\w-]+)", span) if f'"{option}"' not in file.read_text()]
        return f"no such option: {strange}" if strange else ""
    if first == "make":
        found = re.fullmatch(r"make -C etc ([\w-]+)", span)
        return "" if found and found[1] in targets() else "no such target"
    if span in FOREIGN or is_call(span) or (ROOT / span).exists():
        return ""
    if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", span):
        return "" if is_key(span) or f'"{span}"' in shipped() else "no such key or event"
    if re.match(r"(- )?[\w-]+: \S", span) or span.startswith("{"):
        try:
            tree = yaml.safe_load(span)
        except yaml.YAMLError:
            tree = None
        if isinstance(tree, dict | list):
            unknown_ones = unknown_keys(tree)
            return f"no such key: {unknown_ones}" if unknown_ones and span not in shipped() else ""
    return "" if is_key(span) or stands(span) else "it stands nowhere"


class ReadmeTests(TestCase):
    def setUp(self) -> None:
        self.text = README.read_text()
        self.blocks = read_blocks(self.text)

    def of_kind(self, kind: str) -> list[Block]:
        found = [block for block in self.blocks if block.kind == kind]
        self.assertTrue(found, kind)
        return found

    def test_every_block_has_a_mark(self) -> None:
        """Each fenced block says how it is tried, in a word that there is, and none is missed by who reads them."""
        self.assertEqual([str(block) for block in self.blocks if block.kind not in KINDS], [])
        self.assertEqual(2 * len(self.blocks), len(re.findall(r"^ *```", self.text, re.MULTILINE)))
        self.assertEqual([block.how for block in self.blocks if block.kind == "command"], ["run", "test"])
        for block, after in zip(self.blocks, self.blocks[1:], strict=False):
            if after.kind == "prints":
                self.assertEqual(block.kind, "run", after)

    def test_configurations(self) -> None:
        """Each configuration, and each piece of one, loads without a mistake and without a note."""
        for block in self.of_kind("config"):
            if block.how != "wrong":
                self.assertEqual(self.load(block), [], block)

    def test_wrong_configuration(self) -> None:
        """What is shown as wrong is refused in exactly the words that are shown."""
        for number, block in enumerate(self.blocks):
            if (block.kind, block.how) == ("config", "wrong"):
                shown = next(after for after in self.blocks[number:] if after.kind == "prints")
                self.assertEqual(differs(shown, str(self.assertRaises(AssertionError, self.load, block))), "", shown)

    def load(self, block: Block) -> list[str]:
        """The notes on a configuration, all that it names being there."""
        folder = scratch_folder()
        self.addCleanup(shutil.rmtree, folder)
        text = whole(block)
        furnish(text, folder)
        try:
            return load_text(text, f"{folder}/lb.yaml", os.environ).notes
        except ConfigErrors as error:
            raise AssertionError(
                "".join(f"{mistake}\n" for mistake in error.mistakes).replace(f"{folder}/", "")
            ) from None

    def test_parts_of_files(self) -> None:
        """Lines that are shown as those of a file stand in it."""
        for block in self.of_kind("part of"):
            self.assertIn(block.text, (ROOT / block.how).read_text(), block)

    def test_test_command(self) -> None:
        """The command for the tests is what .ci/run runs: it finds it by its mark."""
        (command,) = (block.text for block in self.of_kind("command") if block.how == "test")
        self.assertRegex(command, r"bin/trial tests\n$")
        self.assertIn("<!-- command: test -->", (ROOT / ".ci/run").read_text())

    def test_links(self) -> None:
        """Each file, picture and heading that is linked to exists; what is elsewhere has an address that could be one."""
        found = read_links(self.text)
        self.assertGreater(len(found), 10)
        wrong = []
        for link in found:
            target, _, anchor = link.partition("#")
            if re.match(r"https?://[\w.:-]+(/|$)", link):
                continue
            is_there = (ROOT / target).exists() if target else True
            if not is_there or (anchor and not target and anchor not in anchors(self.text)):
                wrong.append(link)
        self.assertEqual(wrong, [])

    def test_words(self) -> None:
        """Each word in backticks is known: keys, metrics, commands with their options, calls, reasons, files."""
        spans = read_spans(self.text)
        self.assertGreater(len(spans), 50)
        self.assertEqual({span: wrong for span in spans if (wrong := wrong_word(span))}, {})

    def test_no_wasted_exceptions(self) -> None:
        """Every word that is excused stands in the text."""
        self.assertEqual(FOREIGN - set(read_spans(self.text)), set())


class ReadingTests(TestCase):
    def test_words_that_are_wrong(self) -> None:
        """The check of words finds what does not exist, of each kind."""
        for span in (
            *("lbctl stats", "lbctl backend stop", "lbctl status --all", "twist loadbalancer --file x"),
            *("lbsvc_requests_total", "POST /api/v1/restart", "pools.web", "timeouts.patience"),
            *("helth_check: off", "limits: {body: 1MiB}", "etc/none.yaml", "no_such_word_at_all"),
            *("make -C etc everything", "make help", "python -m tests.nothing", "python -m tests.simulation --weeks 1"),
        ):
            self.assertTrue(wrong_word(span), span)

    def test_words_that_are_right(self) -> None:
        """The check of words knows what exists, of each kind."""
        for span in (
            *("lbctl status", "lbctl backend drain POOL NAME --wait", "twist loadbalancer --config FILE --check"),
            *("lbsvc_http_requests_total", "POST /api/v1/reload", "/readyz", "retry.when", "config.refused"),
            *("limits: {body_size: 1MiB}", "etc/lb.yaml", "no_backend", "split: {main: 95, next: 5}"),
            *("make -C etc help", "python -m tests.simulation --days 7"),
        ):
            self.assertEqual(wrong_word(span), "", span)

    def test_blocks(self) -> None:
        """A block is found with its mark, its line and its text; one without a mark has no kind."""
        text = "a\n<!-- run: the service -->\n```sh\nls\n```\n\n```\nb\n```\n"
        self.assertEqual(read_blocks(text), [Block(3, "sh", "ls\n", "run", "the service"), Block(7, "", "b\n", "", "")])

    def test_pieces(self) -> None:
        """A piece becomes a whole configuration: its place, an address, the pools that it names."""
        piece = Block(1, "yaml", "  routes:\n    - pool: a\n    - split: {b: 1, c: 2}\n", "config", "listeners.web")
        tree = yaml.safe_load(whole(piece))
        self.assertEqual(tree["listeners"]["web"]["bind"], ":8080")
        self.assertEqual(tree["listeners"]["web"]["routes"], [{"pool": "a"}, {"split": {"b": 1, "c": 2}}])
        self.assertEqual(set(tree["pools"]), {"a", "b", "c"})
        of_a_pool = Block(1, "yaml", "sticky: ip\nbackends: [10.0.0.1:80]\n", "config", "pools.shop")
        self.assertEqual(yaml.safe_load(whole(of_a_pool))["listeners"]["web"]["pool"], "shop")

    def test_comparing(self) -> None:
        """Output is compared line by line: `…` is anything, white space counts once, figures only where they are told to."""
        exact, loose = (Block(1, "", "a  9 ms\nb … c\n", "prints", how) for how in ("", "with other figures"))
        self.assertEqual(differs(exact, "a 9 ms\nb x y c\n"), "")
        self.assertEqual(differs(loose, "a 1.5 µs\nb x y c\n"), "")
        self.assertTrue(differs(exact, "a 8 ms\nb x y c\n"))
        self.assertTrue(differs(loose, "a x ms\nb x y c\n"))
        self.assertTrue(differs(loose, "a 1.5 µs\nb x y c\nd\n"))
        self.assertTrue(differs(loose, "a 1.5 µs\n"))

    def test_anchors(self) -> None:
        """Headings are named as links name them; comments of shells are none."""
        self.assertEqual(anchors("## TLS, and who\n```sh\n# no\n```\n"), {"tls-and-who"})
