"""SHA-256 of files."""

from __future__ import annotations

import hashlib

import pytest

from semreg.io.digests import BLOCK, sha256_of, sha256_of_open


def test_files_count_one_after_the_other(tmp_path):
    """The checksum of several files is that of their bytes in a row, longer than a block and empty ones too."""
    parts = (b"x" * (BLOCK + 3), b"", b"end")
    paths = [tmp_path / str(number) for number in range(len(parts))]
    for path, content in zip(paths, parts, strict=True):
        path.write_bytes(content)
    assert sha256_of(*paths) == hashlib.sha256(b"".join(parts)).hexdigest()
    assert sha256_of(*paths) != sha256_of(*reversed(paths))
    with paths[0].open("rb") as file:
        file.seek(BLOCK)
        assert sha256_of_open(file) == hashlib.sha256(b"xxx").hexdigest()
        assert not file.closed


def test_the_file_that_cannot_be_read_is_named(tmp_path):
    """An error says which of several files it was, also where the operating system does not."""
    (tmp_path / "there").write_bytes(b"1")
    with pytest.raises(FileNotFoundError) as error:
        sha256_of(tmp_path / "there", tmp_path / "missing")
    assert error.value.filename == str(tmp_path / "missing")
