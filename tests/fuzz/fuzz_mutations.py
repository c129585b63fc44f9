"""Bytes and texts that are nearly right: mutations that follow from a seed alone. Knows no format."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

NUMBER = re.compile(rb"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")
NUMBERS = (
    b"nan", b"-nan", b"inf", b"-inf", b"1e999", b"-1e999", b"1e308", b"-1", b"0", b"-0.0", b"1e-320", b"1,5", b"abc",
    b"", b"100000", b"4294967296", b"9223372036854775808", b"1e30", b"0x10", b"1_000", b"9" * 5000, b"1.5", b"2", b"3",
    b"--1", b"1e", b"\xd9\xa1\xd9\xa2",
)  # fmt: skip
"""What stands where a number should."""


def mutated(data: bytes, random_: random.Random, *, text: bool) -> bytes:
    """The bytes after one to three mutations; of a ``text`` more often of its words than of its bytes."""
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        many = TEXTUAL if text and random_.random() < 0.8 else BINARY
        data = random_.choice(many)(data, random_)
    return data


def _cut(data: bytes, random_: random.Random) -> bytes:
    return data[: random_.randrange(len(data) + 1)]


def _flip(data: bytes, random_: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 8)) if data else 0):
        changed[random_.randrange(len(changed))] ^= 1 << random_.randrange(8)
    return bytes(changed)


def _noise(data: bytes, random_: random.Random) -> bytes:
    place, size = random_.randrange(len(data) + 1), random_.choice((1, 2, 4, 8, 16))
    value = random_.choice((random_.randbytes(size), b"\xff" * size, b"\0" * size))
    return data[:place] + value + data[place + size :]


def _lost(data: bytes, random_: random.Random) -> bytes:
    place, size = random_.randrange(len(data) + 1), random_.choice((1, 4, 16, 64))
    return data[:place] + data[place + size :]


def _twice(data: bytes, random_: random.Random) -> bytes:
    place, size = random_.randrange(len(data) + 1), random_.choice((1, 4, 16, 64))
    return data[: place + size] + data[place:]


def _number(data: bytes, random_: random.Random) -> bytes:
    """Another number in the place of one."""
    found = list(NUMBER.finditer(data[: 1 << 16]))
    if not found:
        return _flip(data, random_)
    one = random_.choice(found)
    return data[: one.start()] + random_.choice(NUMBERS) + data[one.end() :]


def _line_gone(data: bytes, random_: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    if lines:
        del lines[random_.randrange(len(lines))]
    return b"".join(lines)


def _line_again(data: bytes, random_: random.Random) -> bytes:
    lines = data.splitlines(keepends=True) or [b"\n"]
    number = random_.randrange(len(lines))
    return b"".join([*lines[:number], *[lines[number]] * random_.choice((2, 2, 3, 500)), *lines[number + 1 :]])


def _lines_swapped(data: bytes, random_: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    random_.shuffle(lines)
    return b"".join(lines)


def _word(data: bytes, random_: random.Random) -> bytes:
    """A word of the text in the place of another."""
    found = list(re.finditer(rb"\w+", data[: 1 << 16]))
    if len(found) < 2:
        return _noise(data, random_)
    one, other = random_.sample(found, 2)
    return data[: one.start()] + other[0] + data[one.end() :]


def _fewer(data: bytes, random_: random.Random) -> bytes:
    """One of several values between spaces or commas left out, or one more."""
    found = list(re.finditer(rb"[ ,;\t]+[^ ,;\t\r\n]+", data[: 1 << 16]))
    if not found:
        return _lost(data, random_)
    one = random_.choice(found)
    return data[: one.start()] + random_.choice((b"", one[0] * 2, one[0] * 300)) + data[one.end() :]


def _coded(data: bytes, random_: random.Random) -> bytes:
    """In another encoding, or with other ends of lines."""
    text = data.decode("latin-1")
    how = random_.randrange(6)
    if how == 0:
        return text.encode("utf-16")
    if how == 1:
        return b"\xef\xbb\xbf" + data
    if how == 2:
        return data.replace(b"\n", b"\r\n")
    if how == 3:
        return data.replace(b"\n", b"\r")
    return data.replace(b".", b",") if how == 4 else data + b"\0" * 9


def _odd(data: bytes, random_: random.Random) -> bytes:
    """A letter that has a meaning, or that none expects."""
    place = random_.randrange(len(data) + 1)
    odd = random_.choice((
        b"\0", b"\xff", b'"', b"'", b"#", b"\\", b"\\ud800", b"[" * 3000, b"{", b"}", b"]", b"(", b")", b"<", b">",
        b"/", b"\xe2\x80\xae", b"a" * 140_000, b"=1+1", b"\n\n", b"\x1b[31m", b"%n%s", b"../", b"~nouser/",
    ))  # fmt: skip
    return data[:place] + odd + data[place:]


Mutation = Callable[[bytes, random.Random], bytes]
BINARY: tuple[Mutation, ...] = (_cut, _flip, _flip, _noise, _noise, _lost, _twice)
TEXTUAL: tuple[Mutation, ...] = (
    _number, _number, _number, _line_gone, _line_again, _lines_swapped, _word, _word, _fewer, _fewer, _coded, _odd,
    _odd,
)  # fmt: skip
