"""Promises of the way out: one sentence, whatever happens, and nothing else on the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

from semreg.cli import main
from semreg.cli.way_out import guarded


def code_of(action):
    """The exit code."""
    with pytest.raises(SystemExit) as end:
        action()
    return end.value.code or 0


def failing(error: Exception, *arguments: str) -> int:
    """The exit code of a command that ends in an exception, after a library has said something."""

    def command():
        with guarded(arguments):
            os.write(2, b"HDF5-DIAG: error\n")
            raise error

    return code_of(command)


def test_what_nobody_foresaw_is_one_sentence_and_a_file(capfd, tmp_path, monkeypatch):
    """The file has the trace, the command line, and what libraries said; ``--debug`` shows it at once."""
    with monkeypatch.context() as there:
        there.setattr(tempfile, "tempdir", str(tmp_path))
        assert failing(LookupError("deep"), "apply", "a.h5") == 70
    (log,) = tmp_path.glob("semreg-error-*.log")
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("error: expected no LookupError, got one (deep)")
    assert str(log) in said.err
    text = log.read_text(encoding="utf-8")
    for part in ("test_way_out.py", "LookupError: deep", "['apply', 'a.h5']", "HDF5-DIAG"):
        assert part in text
    with monkeypatch.context() as there:
        there.setattr(tempfile, "tempdir", str(tmp_path))
        assert failing(LookupError("deep"), "apply", "--debug") == 70
        assert "Traceback" in capfd.readouterr().err
        there.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        assert failing(LookupError("deep")) == 70
    assert "no file could be written" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(36, "File name too long", "n" * 300), 2, "expected a file or folder that can be used, got nnn"),
        (OSError(28, "No space left on device"), 2, "expected to read and write, got: No space left"),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
    ],
)
def test_errors_of_the_system_are_sentences(error, code, said, capfd):
    """A full disk and a name that is too long are no fault of semreg; who stops reading needs no sentence."""
    assert failing(error) == code
    found = capfd.readouterr().err
    assert found.startswith(f"error: {said}") if said else found == ""


def test_what_libraries_say_is_not_shown(capfd):
    """What is written past Python's streams, and warnings, would come before the one sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with guarded(()):
            os.write(1, b"MetaImage: no\n")
            os.write(2, b"vnl_svd: no\n")
            warnings.warn("overflow", RuntimeWarning, stacklevel=1)
            sys.stdout.write("result\n")
    os.write(2, b"after\n")
    assert capfd.readouterr() == ("result\n", "after\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("convert", "a\udcff.tfm", "b.tfm"), r"error: expected names in UTF-8, got b'a\xff.tfm': rename"),
        (("convert", "a" * 300 + ".tfm", "b.tfm"), "error: expected a file or folder that can be used, got aaa"),
        (("convert", "a.tfm", "a" * 300 + ".tfm"), "error: expected a file or folder that can be used, got aaa"),
    ],
)
def test_names_that_no_file_can_have_are_refused(arguments, said, capfd):
    """Names of other encodings and names that are too long end in one sentence."""
    assert code_of(lambda: main(arguments)) == 2
    found = capfd.readouterr().err
    assert found.startswith(said)
    assert found.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_an_output_that_takes_nothing_ends_in_order():
    """A closed standard output is none; a full one is said; both without a word of Python."""
    for redirection, code, said in ((">&-", 0, ""), (">/dev/full", 2, "error: expected to read and write, got: No")):
        done = subprocess.run(  # noqa: S602 - the shell closes what it hands over
            f"{sys.executable} -m semreg --version {redirection}",
            shell=True,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code
        assert done.stderr.startswith(said) if said else done.stderr == ""
        assert done.stderr.count("\n") <= 1
