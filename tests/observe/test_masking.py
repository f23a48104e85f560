"""Secrets in queries: never a value under a sensitive name, never a change to any other."""

from __future__ import annotations

from urllib.parse import quote, unquote_plus

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from lbsvc.observe.masking import SENSITIVE, is_sensitive, masked

PLAIN_NAMES = ("q", "page", "id", "sort", "lang", "ref")

plain_values = st.text("abcdefghijklmnopqrstuvwxyz0123456789-._~%2B+=/?:@", max_size=20)


@st.composite
def sensitive_names(draw: st.DrawFn) -> str:
    """A name that contains a sensitive word, in any case, with any of its characters percent-encoded."""
    word = draw(st.sampled_from(SENSITIVE))
    text = draw(st.sampled_from(("", "x_", "access-", "a[b]"))) + word + draw(st.sampled_from(("", "s", "_id", "]")))
    encoded = ""
    for char in text:
        char = char.upper() if draw(st.booleans()) else char
        encoded += f"%{ord(char):02{draw(st.sampled_from('xX'))}}" if draw(st.booleans()) else char
    return encoded


pairs = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(PLAIN_NAMES), plain_values, st.just(False)),
        st.tuples(sensitive_names(), st.from_regex(r"[a-z0-9;/?=]{0,8}LEAK[a-z0-9;%]{0,8}", fullmatch=True),
                  st.just(True)),
    ),
    max_size=6,
)  # fmt: skip


class MaskingTests(TestCase):
    def check(self, url: str, expected: str) -> None:
        self.assertEqual(masked(url), expected)

    def test_examples(self) -> None:
        """The words of the contract, anywhere in a name, in any case, encoded or not."""
        self.check("/a?token=1", "/a?token=***")
        self.check("/a?x=1&access_token=s3&y=2", "/a?x=1&access_token=***&y=2")
        self.check("/a?X-Api-KEY=1", "/a?X-Api-KEY=***")
        self.check("/a?%74oken=1&p%61ssword=2", "/a?%74oken=***&p%61ssword=***")
        self.check("/a?user%5Bpassword%5D=1", "/a?user%5Bpassword%5D=***")
        self.check("/a?client_secret=a=b=c", "/a?client_secret=***")
        self.check("/a?X-Amz-Signature=1&OAuth=2", "/a?X-Amz-Signature=***&OAuth=***")
        self.check("/a?%E2%84%AAEY=1", "/a?%E2%84%AAEY=***")  # the Kelvin sign's lower case is k

    def test_what_stays(self) -> None:
        """No query, no value, no sensitive name: as it came."""
        for url in ("/", "/token=1", "/key/secret?x=1", "/a?token", "/a?", "/a?x=token", "/a?%zz=1&b=%",
                    "*", "/a?pass=1", "https://www.example.com/token?q=auth"):  # fmt: skip
            self.check(url, url)

    def test_semicolons(self) -> None:
        """A backend may read `;` as a separator: then too nothing leaks, and otherwise nothing changes."""
        self.check("/a?x=1;token=2", "/a?x=1;token=***")
        self.check("/a?x=1;token=2;y=3&z=4", "/a?x=1;token=***&z=4")
        self.check("/a?token=1;2&z=4", "/a?token=***&z=4")
        self.check("/a?x=1;y=2", "/a?x=1;y=2")

    def test_fragments(self) -> None:
        """What a hand-made Referer carries behind a `#` is read as a query too."""
        self.check("https://h/cb#access_token=1&x=2", "https://h/cb#access_token=***&x=2")
        self.check("https://h/cb?key=1#token=2", "https://h/cb?key=***#token=***")
        self.check("https://h/#token=1?y=2", "https://h/#token=***")

    def test_users(self) -> None:
        """A user and password before a Referer's host are masked, an @ elsewhere is left alone."""
        self.check("http://me:secret@h/a?b=1", "http://***@h/a?b=1")
        self.check("http://me:secret@h/", "http://***@h/")
        self.check("/a@b?c=d@e", "/a@b?c=d@e")
        self.check("//a@b", "//a@b")

    def test_bare_bytes(self) -> None:
        """Bytes above 0x7f hide no name, whether they came to us by Latin-1 or as backslash escapes."""
        raw = b"https://h/?\xe2\x84\xaaey=LEAK&\xe9=1"
        self.check(raw.decode("latin-1"), "https://h/?\xe2\x84\xaaey=***&\xe9=1")
        self.check(raw.decode("ascii", "backslashreplace"), r"https://h/?\xe2\x84\xaaey=***&\xe9=1")

    @given(pairs)
    def test_never_leaks_and_never_changes_the_rest(self, parts: list[tuple[str, str, bool]]) -> None:
        """Whatever the mixture: sensitive values are gone, the others are byte for byte the same."""
        url = "/path?" + "&".join(f"{name}={value}" for name, value, _ in parts)
        result = masked(url)
        self.assertNotIn("LEAK", result)
        shown = result.removeprefix("/path?").split("&") if parts else []
        for (name, value, secret), pair in zip(parts, shown, strict=True):
            self.assertEqual(pair, f"{name}=***" if secret else f"{name}={value}")

    @given(st.text(max_size=60))
    def test_any_text(self, text: str) -> None:
        """Any text at all: no exception, no new line, and masking twice is masking once."""
        result = masked(text)
        self.assertEqual(masked(result), result)

    @given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12))
    def test_names_by_definition(self, name: str) -> None:
        """A name is sensitive exactly when its decoded, lower-cased form contains one of the words."""
        expected = any(word in name.lower() for word in SENSITIVE)
        self.assertEqual(is_sensitive(quote(name, safe="")), expected)
        self.assertEqual(unquote_plus(quote(name, safe="")), name)
