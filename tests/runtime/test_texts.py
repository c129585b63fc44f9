"""Promises of files in text: whatever is wrong with one is said in a sentence, and no cell of a table is a formula."""

from __future__ import annotations

import os

import pytest

from semreg.errors import ConfigError, ImageError
from semreg.runtime.texts import parse_json, parse_table, parse_toml, read_bytes, read_text, shown, table_text


def test_only_regular_files_are_read(tmp_path):
    """A pipe would be waited for without end, a device has none; a name that none can have is one too."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name, said in (
        ("pipe", "no regular file"), ("link", "no regular file"), (".", "it is a folder"), ("gone", "no such file"),
        ("a" * 300, "name too long"), ("a\0b", "no name of a file"),
    ):  # fmt: skip
        with pytest.raises(ImageError, match=f"expected points, got .*{said}"):
            read_bytes(tmp_path / name, "points", ImageError)
    (tmp_path / "latin").write_bytes(b"\xe9")
    with pytest.raises(ConfigError, match="no text in UTF-8"):
        read_text(tmp_path / "latin", "a table")


@pytest.mark.parametrize("parse", [parse_json, lambda text: parse_toml(f"a = {text}")["a"]])
def test_what_cannot_be_handled_is_refused(parse):
    """Numbers of thousands of digits and values nested without end are refused, and not too late."""
    assert parse("[[[1]]]") == [[[1]]]
    for text in ("9" * 5000, "9" * 400, "[" * 5000 + "]" * 5000, "[" * 150 + "]" * 150):
        with pytest.raises(ValueError, match=r"limit|digits|nested"):
            parse(text)


@pytest.mark.parametrize("text", ['"\\ud800"', "NaN", "[1e999]", '{"\\udfff": 1}'])
def test_json_that_cannot_be_written_again_is_refused(text):
    """Half of a pair of surrogates is no text, and infinity no number of JSON."""
    with pytest.raises(ValueError, match=r"surrogates|finite"):
        parse_json(text)


def test_a_table_survives_and_holds_no_formula():
    """Numbers and words stay; what a spreadsheet would run is a text."""
    rows = [["-1.5", "=1+1", "a;b"], ["+x", "@cmd", "-nan"], ['"', "\tx", "é"]]
    text = table_text(rows)
    found = [row for _, row in parse_table(text, ",")]
    assert found == [["-1.5", "'=1+1", "a;b"], ["'+x", "'@cmd", "-nan"], ['"', "'\tx", "é"]]
    with pytest.raises(ValueError, match="line 2: field larger"):
        list(parse_table("a,b\n" + "x" * 140_000))


def test_a_long_value_is_shown_in_part():
    """A message stays a sentence."""
    assert shown("a" * 5000) == "a" * 200 + "…"
