"""Promises of the tables of pairs: what is read, where paths start, and that nothing doubtful gets through."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from semreg.batch import read_table
from semreg.errors import ConfigError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "pairs.toml"


@pytest.fixture
def files(tmp_path):
    """A folder with files of every role."""
    for name in ("f.nii", "m.nii", "a.csv", "b.csv", "c.csv", "d.csv", "lf.nii", "lm.nii", "mask.nii", "t.h5"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "series").mkdir()
    return tmp_path


def table(folder, text, name="pairs.toml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


HEAD = '[[pair]]\nname = "one"\nfixed = "f.nii"\nmoving = "m.nii"\n'


def test_toml_and_csv_say_the_same(files, monkeypatch):
    """Both forms give equal pairs, with paths from the table's folder wherever the process is."""
    toml = HEAD + (
        'fixed_mask = "mask.nii"\nfixed_landmarks = ["a.csv", "b.csv"]\nmoving_landmarks = ["c.csv", "d.csv"]\n'
        'fixed_labels = "lf.nii"\nmoving_labels = "lm.nii"\ninitial = "t.h5"\npreset = "lung-ct"\n'
        '"set.refine.iterations" = 4\nwhat = "a lung"\n[pair.set.align]\ntransform = "none"\n'
    )
    rows = (
        "name;fixed;moving;fixed_mask;fixed_landmarks;moving_landmarks;fixed_labels;moving_labels;initial;preset;"
        "set.refine.iterations;what;set.align.transform\n"
        "one;f.nii;m.nii;mask.nii;a.csv | b.csv;c.csv|d.csv;lf.nii;lm.nii;t.h5;lung-ct;4;a lung;none\n;;;\n"
    )
    first = table(files, toml)
    second = table(files, "\ufeff" + rows, "pairs.csv")
    monkeypatch.chdir("/")
    (one,), (other,) = read_table(first), read_table(second)
    assert {**vars(one), "where": ""} == {**vars(other), "where": ""}
    assert one.fixed == files / "f.nii"
    assert one.moving_landmarks == (files / "c.csv", files / "d.csv")
    assert one.settings == ("refine.iterations=4", "align.transform=none")
    assert (one.preset, one.notes) == ("lung-ct", (("what", "a lung"),))
    assert set(one.files) >= {"fixed_landmarks.1", "initial", "fixed_mask", "moving_labels"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('fixed_landmark = "a.csv"', "did you mean fixed_landmarks"),
        ('movng_mask = "mask.nii"', "did you mean moving_mask"),
        ('lisence = "MIT"', "did you mean"),
        ('fixed_mask = "gone.nii"', "fixed_mask to be a file that is there, got .*gone.nii"),
        ('fixed_labels = "series"\nmoving_labels = "lm.nii"', "fixed_labels to be a file, got the folder"),
        ('fixed_landmarks = ["a.csv"]', "got 1 and 0"),
        ('fixed_landmarks = ["a.csv", "b.csv"]\nmoving_landmarks = ["c.csv"]', "got 2 and 1"),
        ('moving_labels = "lm.nii"', "got moving_labels alone"),
        ("initial = 4", "initial to be text, got 4"),
        ('preset = ""', "preset to be text"),
        ('fixed_mask = "a\\u0000b"', "fixed_mask to be a path"),
    ],
)
def test_a_row_that_cannot_run_is_refused_by_name(files, more, said):
    """Slips, missing files, halves of a pair and wrong types: one sentence with the file, the row and its name."""
    with pytest.raises(ConfigError, match=said) as caught:
        read_table(table(files, HEAD + more + "\n"))
    assert "pairs.toml, pair 1 (one)" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../up", "a/b", "a\\\\b", ".hidden", "-o", "index.html", "Cohort.CSV", "tail.", " a", "x" * 201, "a:b"]
)
def test_unsafe_names_are_refused(files, name):
    """No name leaves the output folder, hides, looks like a flag, or takes the place of what a batch writes."""
    with pytest.raises(ConfigError, match="expected a name"):
        read_table(table(files, HEAD.replace('"one"', f'"{name}"')))


def test_names_differ_whatever_their_case(files):
    """Two rows of one name, also in another case, are refused, and both rows are named."""
    with pytest.raises(ConfigError, match=r"pair 2 \(ONE\).*'ONE'.*pair 1 \(one\)"):
        read_table(table(files, HEAD + HEAD.replace("one", "ONE")))


def test_names_differ_however_accents_are_written(files):
    """A letter with its accent and a letter followed by one are the same name to some file systems."""
    two = HEAD.replace("one", "caf\u00e9") + HEAD.replace("one", "cafe\u0301")
    with pytest.raises(ConfigError, match="expected a name of its own"):
        read_table(table(files, two))


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.toml"])
def test_all_bad_rows_are_said_at_once(files, name):
    """Whoever mends a table need not start the command once a row."""
    rows = [("one", "gone.nii"), ("..", "m.nii"), ("ok", "m.nii"), ("ok", "m.nii"), ("long", "m" * 300)]
    text = "name,fixed,moving\n" + "".join(f"{name},f.nii,{moving}\n" for name, moving in rows) + "short,f.nii\n"
    if name.endswith("toml"):
        text = "".join(HEAD.replace("one", name).replace("m.nii", moving) for name, moving in rows)
        text += HEAD.replace("one", "short").replace('moving = "m.nii"\n', "")
    with pytest.raises(ConfigError) as refused:
        read_table(table(files, text, name))
    said = str(refused.value)
    parts = (
        "gone.nii: there is no",
        "safe|no dot",
        "a name of its own",
        "mmm: there is no",
        r"\(short\): expected moving",
    )
    for part in parts:
        assert re.search(part, said), part
    assert said.count("; ") >= 4


def test_all_rows_are_checked(files):
    """An error in the last row is found before anything runs; a missing key is named."""
    rest = HEAD.replace("one", "two") + HEAD.replace("one", "three").replace('moving = "m.nii"', "")
    with pytest.raises(ConfigError, match=r"pair 3 \(three\): expected moving"):
        read_table(table(files, HEAD + rest))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.csv", "name,fixed,moving\n", "at least one pair"),
        ("p.csv", "name,fixed,moving\na,f.nii,m.nii,extra\n", r"line 2 \(a\): expected 3 cells"),
        ("p.csv", "name,fixed,moving,fixed\na,f.nii,m.nii,f.nii\n", "'fixed' twice"),
        ("p.toml", "[[pair\n", "in TOML"),
        ("p.toml", "title = 'x'\n" + HEAD, "got title"),
        ("p.toml", "", r"expected \[\[pair\]\]"),
        ("p.toml", "pair = 4", r"expected \[\[pair\]\]"),
    ],
)
def test_what_is_no_table_is_refused(files, name, text, said):
    """Empty tables, broken TOML, rows that are too long, columns that are there twice: one sentence with the file."""
    with pytest.raises(ConfigError, match=said) as caught:
        read_table(table(files, text, name))
    assert name in str(caught.value)


def test_empty_cells_at_the_end_are_no_cells(files):
    """Rows that a spreadsheet has ended with separators are read as without them."""
    (pair,) = read_table(table(files, "name,fixed,moving,,\none,f.nii,m.nii,,,, \n,,,,,,\n", "pairs.csv"))
    assert (pair.name, pair.moving, pair.notes) == ("one", files / "m.nii", ())


def test_files_that_are_no_text_are_refused(files):
    """A table that is missing, a folder or binary is one sentence."""
    (files / "binary.csv").write_bytes(b"\xff\xfe\x00\x80")
    for name, said in (("gone.csv", "no such file"), ("series", "it is a folder"), ("binary.csv", "no text in UTF-8")):
        with pytest.raises(ConfigError, match=said):
            read_table(files / name)


def test_unknown_names_that_are_no_slips_are_notes(files):
    """Columns such as age are kept as text and not used."""
    (pair,) = read_table(table(files, HEAD + "age = 61\nscanner = 'A'\n"))
    assert pair.notes == (("age", "61"), ("scanner", "A"))
    assert pair.settings == ()


@pytest.mark.skipif(not SHARED.is_file(), reason="the folder of real pairs, ../shared/data, is not here")
def test_the_list_of_real_pairs_is_read_as_it_is():
    """Lists of landmarks stay in order, notes are kept, every file is there."""
    pairs = {pair.name: pair for pair in read_table(SHARED)}
    liver = pairs["liver_19_cyc_1_9"]
    assert [path.name for path in liver.fixed_landmarks] == [
        "exhMaster_landmarks_liver_lps.csv",
        "exhMaster_landmarks_outside_lps.csv",
    ]
    assert [note for note, _ in liver.notes] == ["what", "licence"]
    assert pairs["abdomen_mr_ct"].moving_labels.name == "ct_common10.nii.gz"


def test_settings_of_a_table_are_those_of_the_flags(tmp_path: Path) -> None:
    """True, false and lists of a TOML table reach the settings as ``--set`` would bring them."""
    (tmp_path / "p.toml").write_text(
        '[[pair]]\nname = "a"\nfixed = "f.nii"\nmoving = "m.nii"\n'
        "set.refine.symmetric = true\nset.models.0.layers = [0, -1]\nset.features.spacing_mm = 2\n"
    )
    for name in ("f.nii", "m.nii"):
        (tmp_path / name).write_text("")
    (pair,) = read_table(tmp_path / "p.toml")
    assert {"refine.symmetric=true", "models.0.layers=[0, -1]", "features.spacing_mm=2"} <= set(pair.settings)


def test_a_table_that_is_no_csv(tmp_path: Path) -> None:
    """A table with a cell beyond what the reader takes says which file and line."""
    (tmp_path / "p.csv").write_text("name,fixed,moving\na,f.nii," + "m" * 140_000 + "\n")
    with pytest.raises(ConfigError, match=r"expected a table of pairs in CSV, got .*p.csv, line \d+: field larger"):
        read_table(tmp_path / "p.csv")
