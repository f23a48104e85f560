"""YAML to nodes: the 1.2 core rules, places, keys, anchors, and text that is not YAML."""

from __future__ import annotations

import math

import yaml
from twisted.trial.unittest import TestCase
from typing_extensions import override

from lbsvc.config import document
from lbsvc.config.document import Mapping, Node, Scalar, read_document
from lbsvc.config.scalars import ENORMOUS, resolve


def read(text: str | bytes) -> tuple[Node, list[str]]:
    node, mistakes = read_document(text, "f")
    return node, [str(mistake) for mistake in mistakes]


def entries(text: str) -> dict[str, object]:
    """The scalars of a mapping that has no mistakes."""
    node, mistakes = read(text)
    assert isinstance(node, Mapping) and not mistakes, mistakes
    return {key: entry.value.value for key, entry in node.entries.items() if isinstance(entry.value, Scalar)}


class ScalarTests(TestCase):
    def test_only_true_and_false_are_booleans(self) -> None:
        """yes, no, on and off are text."""
        self.assertEqual([resolve(t) for t in ("true", "True", "FALSE")], [True, True, False])
        for text in ("yes", "no", "on", "off", "Y", "tRUE"):
            self.assertEqual(resolve(text), text)

    def test_nulls(self) -> None:
        """null, ~ and nothing at all are null; nil and none are text."""
        self.assertEqual([resolve(t) for t in ("null", "Null", "NULL", "~", "")], [None] * 5)
        self.assertEqual([resolve(t) for t in ("nil", "None")], ["nil", "None"])

    def test_integers(self) -> None:
        """Decimal, 0o and 0x; a leading zero means nothing; 10:30 and 1_000 are text."""
        read = [resolve(t) for t in ("010", "-3", "+7", "0o17", "0xfF", "10:30", "1_000", "0b1", "0o8")]
        self.assertEqual(read, [10, -3, 7, 15, 255, "10:30", "1_000", "0b1", "0o8"])

    def test_floats(self) -> None:
        """Points, exponents and infinities; versions and dates are text."""
        read = [resolve(t) for t in ("1.5", ".5", "1.", "1e3", "-.inf", "1.2.3", "2001-01-01", ".", "-", "+.")]
        self.assertEqual(read, [1.5, 0.5, 1.0, 1000.0, -math.inf, "1.2.3", "2001-01-01", ".", "-", "+."])
        self.assertTrue(math.isnan(resolve(".nan")))  # type: ignore[arg-type]

    def test_very_long_numbers_are_only_enormous(self) -> None:
        """Numbers beyond Python's limit for conversions are read, as numbers too large for any key."""
        self.assertEqual(resolve("9" * 5000), ENORMOUS)
        self.assertEqual(resolve("-" + "9" * 5000), -ENORMOUS)
        self.assertEqual(resolve("0x" + "f" * 5000), ENORMOUS)
        self.assertEqual(resolve("9" * 5000 + ".0"), math.inf)

    def test_digits_of_other_scripts_are_text(self) -> None:
        """Only ASCII digits make numbers."""
        self.assertEqual(resolve("1\u0663"), "1\u0663")

    def test_quoted_is_text(self) -> None:
        """What is quoted, or tagged !!str, is text whatever it looks like."""
        self.assertEqual(
            entries("a: '1'\nb: \"true\"\nc: !!str 5\nd: ! 5"), {"a": "1", "b": "true", "c": "5", "d": "5"}
        )

    def test_core_tags(self) -> None:
        """The tags of the core rules say what a scalar is."""
        self.assertEqual(
            entries("a: !!int '5'\nb: !!float 5\nc: !!bool 'true'\nd: !!null ''"),
            {"a": 5, "b": 5, "c": True, "d": None},
        )
        self.assertEqual(read("a: !!int x")[1], ["f:1:4: a: the tag !!int does not fit what follows it"])


class DocumentTests(TestCase):
    parser: object = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    @override
    def setUp(self) -> None:
        self.patch(document, "PARSER", self.parser)

    def assert_mistakes(self, text: str | bytes, *expected: str) -> None:
        self.assertEqual(read(text)[1], [*expected])

    def test_places(self) -> None:
        """Keys and items know their line and column, counted from 1."""
        node, _ = read("a:\n  b: [x,  y]\n")
        assert isinstance(node, Mapping)
        inner = node.entries["a"].value
        assert isinstance(inner, Mapping)
        entry = inner.entries["b"]
        self.assertEqual((entry.line, entry.column), (2, 3))
        assert isinstance(entry.value, document.Items)
        self.assertEqual([(item.line, item.column) for item in entry.value.items], [(2, 7), (2, 11)])

    def test_nothing_is_null(self) -> None:
        """A text without a document is a null at 1:1."""
        for text in ("", "# nothing\n", "---\n"):
            node, mistakes = read(text)
            assert isinstance(node, Scalar)
            self.assertEqual((node.value, mistakes), (None, []))

    def test_duplicate_keys(self) -> None:
        """A key that is there twice is a mistake at the second place, however it is quoted."""
        self.assert_mistakes("a:\n  b: 1\n  'b': 2\n", "f:3:3: a.b: is here twice (first in line 2)")

    def test_duplicate_keys_in_lists(self) -> None:
        """The path to a duplicate key goes through lists."""
        self.assert_mistakes("a: [{b: 1, b: 2}]", "f:1:12: a[0].b: is here twice (first in line 1)")

    def test_keys_that_are_no_text(self) -> None:
        """A list or mapping as a key is refused; braces in braces say to quote."""
        self.assert_mistakes("a: {{ x }}", "f:1:5: a: a key must be text; if {{…}} is meant as text, quote it")

    def test_anchors_and_aliases(self) -> None:
        """An alias is the value of its anchor, and a later anchor of the same name counts from there."""
        self.assertEqual(entries("a: &x 1\nb: *x\nc: &x 2\nd: *x"), {"a": 1, "b": 1, "c": 2, "d": 2})

    def test_merge_keys(self) -> None:
        """Merged entries come after written ones, earlier sources before later ones."""
        node, mistakes = read("x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz:\n  <<: [*x, *y]\n  a: 0\n")
        assert isinstance(node, Mapping)
        inner = node.entries["z"].value
        assert isinstance(inner, Mapping)
        found = {k: e.value.value for k, e in inner.entries.items() if isinstance(e.value, Scalar)}
        self.assertEqual((found, mistakes), ({"a": 0, "b": 1, "c": 2}, []))
        self.assertEqual((inner.entries["c"].line, inner.entries["c"].column), (2, 14))

    def test_merge_keys_that_cannot_be(self) -> None:
        """Only mappings are merged, once in each mapping; a quoted << is a key."""
        self.assert_mistakes("<<: 1", "f:1:1: <<: merges mappings only: <<: *name, or a list of these")
        self.assert_mistakes("<<: [{}, 1]", "f:1:1: <<: merges mappings only: <<: *name, or a list of these")
        self.assert_mistakes("<<: {}\n<<: {}", "f:2:1: <<: is here twice; to merge several, write a list: <<: [*a, *b]")
        self.assertEqual(entries("'<<': 1"), {"<<": 1})

    def test_unknown_alias(self) -> None:
        """An alias without an anchor may be text that wants quotes."""
        self.assert_mistakes(
            "host: *abc", "f:1:7: host: no anchor &abc comes before this; if this is text that begins with *, quote it"
        )

    def test_alias_inside_its_anchor(self) -> None:
        """A value cannot contain itself."""
        self.assert_mistakes("a: &a [*a]", "f:1:8: a[0]: *a stands inside what it refers to")

    def test_aliases_that_multiply(self) -> None:
        """What aliases add is bounded, so that a small text stays small."""
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
        self.assertEqual(
            [m.partition(": ")[2] for m in read("\n".join(lines))[1]], ["aliases repeat more than 200000 values"]
        )

    def test_merges_that_multiply(self) -> None:
        """What merge keys add is bounded too."""
        lines = ["a0: &a0 {" + ", ".join(f"k{i}: 1" for i in range(1000)) + "}"]
        lines += [f"a{i}: {{<<: *a0}}" for i in range(1, 300)]
        self.assertEqual(
            [m.partition(": ")[2] for m in read("\n".join(lines))[1]], ["aliases repeat more than 200000 values"]
        )

    def test_deep_nesting(self) -> None:
        """Nesting is bounded, written out or made of aliases."""
        self.assert_mistakes("[" * 900, "f:1:52: nested too deeply: at most 50 levels")
        self.assertEqual(len(read("[" * 100_000)[1]), 1)
        self.assertEqual(len(read("- " * 50_000)[1]), 1)
        self.assertEqual(len(read("{a: " * 50_000)[1]), 1)
        lines = ["a0: &a0 x"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 60)]
        self.assert_mistakes("\n".join(lines), "f:51:12: nested too deeply: at most 50 levels")

    def test_second_document(self) -> None:
        """A configuration is one document."""
        self.assert_mistakes(
            "a: 1\n---\nb: 1\n", "f:2:1: a second document begins here; a configuration is one document"
        )

    def test_tags(self) -> None:
        """Tags other than the core ones are refused, on values of every kind."""
        message = "is not known; if this is text that begins with !, quote it"
        self.assert_mistakes(
            "a: !x 1\nb: !!set {c}\nc: !!python/object:os.system []",
            f"f:1:4: a: the tag !x {message}",
            f"f:2:4: b: the tag !!set {message}",
            f"f:3:4: c: the tag !!python/object:os.system {message}",
        )

    def test_control_characters(self) -> None:
        """Characters that YAML or an editor cannot show are refused where they stand."""
        self.assert_mistakes(
            "a: 1\nb: x\0",
            'f:2:5: the character U+0000 cannot stand here; in double quotes it can be written as "\\u0000"',
        )
        self.assert_mistakes(
            "a: \u2028",
            'f:1:4: the character U+2028 cannot stand here; in double quotes it can be written as "\\u2028"',
        )
        self.assert_mistakes("a: \ud800", "f:1:4: the character U+D800 cannot stand here")
        self.assertEqual(entries('a: "\\u2028\\0"'), {"a": "\u2028\0"})

    def test_bytes(self) -> None:
        """Bytes are UTF-8, with or without a mark, or UTF-16 with one; the place of a wrong one is told."""
        for encoding in ("utf-8", "utf-8-sig", "utf-16"):
            node, mistakes = read("ä: 1".encode(encoding))
            assert isinstance(node, Mapping)
            self.assertEqual((list(node.entries), mistakes), (["ä"], []))
        self.assert_mistakes(b"a: 1\nb: \xe4\n", "f:2:4: this is not UTF-8 text")
        self.assert_mistakes(b"\xff\xfea", "f:1:1: this is not UTF-8 text")

    def test_size(self) -> None:
        """A text beyond 16 MiB is not read."""
        self.assert_mistakes(b" " * (document.MAX_BYTES + 1), "f:1:1: the configuration is larger than 16 MiB")

    def test_escapes_that_name_nothing(self) -> None:
        """Escapes for half a character, or beyond the last one, are mistakes."""
        for text in ('a: "\\uD800"', 'a: "\\UFFFFFFFF"', 'a: "\\U00110000"'):
            self.assertEqual(len(read(text)[1]), 1, text)

    def test_syntax_that_quoting_mends(self) -> None:
        """Where quotes would help, the message says so, at the place where they belong."""
        cases = {
            "host: *.x": (1, 7, "a value that begins with * must be in quotes: quote it"),
            "{host: *.x}": (1, 8, "a value that begins with * must be in quotes: quote it"),
            "- *": (1, 3, "a value that begins with * must be in quotes: quote it"),
            "a: &.x": (1, 4, "a value that begins with & must be in quotes: quote it"),
            "{bind: :80}": (1, 8, "a value cannot begin with : here: quote it"),
            "bind: [::1]:443": (1, 8, "a value cannot begin with : here: quote it"),
            "a: ,b": (1, 4, "a value cannot begin with , here: quote it"),
            "a: @x": (1, 4, "a value that begins with @ must be in quotes: quote it"),
            "a: %20": (1, 4, "a value that begins with % must be in quotes: quote it"),
            "{w: ${W:-3}}": (1, 6, "inside { } and [ ] a ${…} must be in quotes: quote it"),
            "[^/u/([0-9]+)$]": (1, 7, "text that contains [ must be in quotes inside { } and [ ]: quote it"),
            "a: - b": (1, 4, "- cannot begin a value here: quote it, or begin a new line"),
            "a: ? b": (1, 4, "? cannot begin a value here: quote it, or begin a new line"),
            "a: > 5": (1, 4, "> begins a block of text: quote it if that is not meant"),
            "a: |x": (1, 4, "| begins a block of text: quote it if that is not meant"),
            "a: b: c": (1, 5, 'a colon makes no key here: quote the value if it contains ": ", or mend the indentation'),
            "a: ]": (1, 4, "a value is missing here; if this is text, quote it"),
            "a: 'x' y": (1, 8, "this fits neither the value before it nor the indentation: "
                         "quote the whole value, or mend it"),
        }  # fmt: skip
        for text, (line, column, message) in cases.items():
            self.assert_mistakes(text, f"f:{line}:{column}: {message}")

    def test_other_syntax(self) -> None:
        """What is never closed is told where it begins; tabs and backslashes are named."""
        self.assert_mistakes("a: 'x\n\n", "f:1:4: this quote is never closed")
        self.assert_mistakes("a:\n\tb: 1", "f:2:1: a tab cannot indent: use spaces")
        message = "in double quotes a backslash begins an escape: use single quotes, or write \\\\"
        self.assertEqual([m.partition(": ")[2] for m in read('a: "C:\\p"')[1]], [message])
        (found,) = read("b: 1\na: [1, 2\n")[1]
        self.assertTrue(found.endswith("expected a comma or the end of what [ begins (line 2)"), found)

    def test_no_secret_is_shown(self) -> None:
        """A syntax error shows none of the text but one character."""
        for text in ("token: @hunter2", "token: hunter2: x", "{token: hunter2[}", 'token: "\\phunter2"'):
            self.assertNotIn("hunter2", str(read(text)[1]))


class PureDocumentTests(DocumentTests):
    """The same with PyYAML's own parser, for where libyaml is not."""

    parser = yaml.SafeLoader
