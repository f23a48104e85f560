"""PEM files, read once and with care, and what is said of those that cannot be used.

Promises: reading neither waits for a pipe nor takes more than a bounded number of bytes; no message holds a path, nor
anything out of a file but the labels of its blocks. A block that has begun and does not end is a fault: a file that is
being written is told from one that holds less. Called by certificates.py.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from typing import Final

from lbsvc.errors import LbsvcError

#: Bytes of the largest file that is read: the bundle of all public CAs is a quarter of it.
LARGEST: Final = 1 << 20

_BEGIN: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,64})-----")


class CertificateFault(LbsvcError):
    """A file that cannot be used.

    `which` of the files: "cert", "key" or "ca"; `message` reads as the end of a sentence that begins with that file;
    `path` is for whoever may show it.
    """

    def __init__(self, which: str, message: str, path: str = "") -> None:
        super().__init__(f"{which}: {message}")
        self.which = which
        self.message = message
        self.path = path


def read_file(path: str, which: str) -> tuple[bytes, int]:
    """A file's content and mode. Neither waits for a pipe nor reads a disk full."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise CertificateFault(which, f"is {'a directory' if stat.S_ISDIR(mode) else 'no regular file'}", path)
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(LARGEST + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CertificateFault(which, f"cannot be read: {_why(error)}", path) from None
    except ValueError:  # a NUL, or what the file system's encoding does not have
        raise CertificateFault(which, "is no path", path) from None
    if len(content) > LARGEST:
        raise CertificateFault(which, f"is too large (more than {LARGEST >> 20} MiB)", path)
    if not content.strip():
        raise CertificateFault(which, "is empty", path)
    return content, mode


def _why(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "no such file"
    words = error.strerror or "unknown error"
    return words[:1].lower() + words[1:]


def read_blocks(content: bytes, which: str, path: str) -> Iterator[tuple[bytes, bytes]]:
    """The PEM blocks of a file, each with its label; text between them is nobody's."""
    if content[:1] == b"\x30" and b"-----BEGIN" not in content:
        raise CertificateFault(which, "is DER or PKCS#12, not PEM", path)
    label, lines = b"", []
    for line in content.removeprefix(b"\xef\xbb\xbf").splitlines():
        line = line.strip()
        begins = _BEGIN.fullmatch(line)
        if begins:
            if label:
                break
            label, lines = begins[1], [line]
        elif label:
            lines.append(line)
            if line == b"-----END " + label + b"-----":
                yield label, b"\n".join(lines) + b"\n"
                label = b""
    if label:
        raise CertificateFault(which, f"has a block without an end ({label.decode()}): is it written completely?", path)
