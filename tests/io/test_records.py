"""Promises of records as files: plain, stable JSON of any record, and the same record read back."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from run_records import make_run, write_run
from semreg.errors import ConfigError
from semreg.io.records import Recorded, plain, record_of, stable_json, understood, versions
from semreg.quality import locate, read_result
from semreg.quality.run import InputFile


@dataclass(frozen=True)
class Part:
    """A part of a record."""

    share: float | None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kept(Recorded):
    """A record."""

    part: Part
    parts: dict[str, Part] = field(default_factory=dict)
    later: int = 3


def test_a_record_becomes_what_json_holds():
    """Parts, tuples and numbers of NumPy are plain, by the names of the fields; NaN and infinity are null."""
    record = Kept(Part(math.nan, ("b", "a")), {"z": Part(np.float64(0.5)), "y": Part(-math.inf)})
    part = {"share": None, "names": ["b", "a"]}
    parts = {"z": {"share": 0.5, "names": []}, "y": {"share": None, "names": []}}
    assert record.to_dict() == plain(record) == {"part": part, "parts": parts, "later": 3}
    assert json.loads(stable_json(record)) == record.to_dict()
    with pytest.raises(TypeError, match="expected what JSON holds, got complex"):
        plain({"a": 1j})


def test_the_same_record_is_the_same_text():
    """Keys are sorted, whatever the order in which they came, and letters stay letters."""
    assert stable_json({"ü": 1, "a": (1, 2)}) == '{\n  "a": [\n    1,\n    2\n  ],\n  "ü": 1\n}\n'


def test_a_record_is_read_back(tmp_path):
    """What was written is an equal object; what a later version adds has its default in the file of an earlier one."""
    record = Kept(Part(0.25, ("a",)), {"z": Part(None)}, 7)
    found = json.loads(stable_json(record))
    assert record_of(Kept, found, tmp_path) == record
    del found["later"]
    assert record_of(Kept, found, tmp_path).later == 3


@pytest.mark.parametrize("change", [{"part": None}, {"later": "many"}, {"parts": [1]}])
def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path, change):
    """A file that another version wrote, or somebody else, is named, with what is wrong and what to do."""
    found = Kept(Part(0.25)).to_dict() | change
    with pytest.raises(ConfigError) as error:
        record_of(Kept, found, tmp_path / "kept.json")
    said = str(error.value)
    assert f"expected {tmp_path / 'kept.json'} as this version writes it" in said
    assert next(iter(change)) in said
    assert said.endswith("run the command that wrote it again")


def test_what_cannot_be_understood_is_none(tmp_path):
    """Where a file is only asked, not needed, none, half of one and another one's are the same: None."""
    path = tmp_path / "kept.json"
    assert understood(Kept, path) is None
    for text in ("{", "[1]", '{"part": 3}', "\xff"):
        path.write_bytes(text.encode("latin-1"))
        assert understood(Kept, path) is None
    path.write_text(stable_json(Kept(Part(0.5))), encoding="utf-8")
    assert understood(Kept, path) == Kept(Part(0.5))


def test_versions_name_what_computes():
    """The versions of the package, of Python and of what computes."""
    assert set(versions()) == {"semreg", "python", "torch", "SimpleITK", "numpy"}
    assert all(versions().values())


def test_the_folder_of_a_result_has_one_reader(tmp_path):
    """A run is read as it was written; images are found where they are, beside the folder or inside it."""
    out = tmp_path / "out"
    out.mkdir()
    run = make_run({name: InputFile(path=f"data/{name}.nii", sha256="0") for name in ("fixed", "moving")})
    write_run(out, run)
    result = read_result(out)
    assert (result.record, result.evaluation, result.verdict) == (run, None, None)
    (out / "moving.nii").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fixed.nii").touch()
    assert result.located("fixed") == tmp_path / "data" / "fixed.nii"
    assert result.located("moving") == out / "moving.nii"
    assert result.located("fixed_mask") is None
    assert str(locate("gone.nii", out)) == "gone.nii"
    write_run(out, make_run())
    with pytest.raises(ConfigError, match="expected a record that names both images"):
        read_result(out)
