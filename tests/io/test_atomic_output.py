"""Files and folders of results: all of them or none, whatever stops the writing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from semreg.errors import ConfigError, ImageError, OutputError
from semreg.io import atomic_output, staging
from semreg.io.files import OutputFolder, atomic_file, check_output_folder
from semreg.io.result_folder import ResultFolder


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ValueError])
def test_interrupted_file_leaves_the_old_one(error, tmp_path):
    """Whatever stops the writing of a file, the file of before stays and no temporary one remains."""
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(error), atomic_file(path) as partial:  # noqa: PT012 - the block is what is interrupted
        partial.write_text("half")
        raise error
    assert path.read_text(encoding="utf-8") == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_no_link_is_followed_and_no_name_becomes_too_long(tmp_path):
    """Temporary names cannot be foreseen, so nobody's link leads elsewhere; a name of 255 bytes can be written."""
    victim, path = tmp_path / "victim", tmp_path / ("a" * 251 + ".txt")
    victim.write_text("theirs")
    (tmp_path / ".partial-a.txt").symlink_to(victim)
    (tmp_path / "a.txt").symlink_to(victim)
    for name in (tmp_path / "a.txt", path):
        with atomic_file(name) as partial:
            assert partial.name == name.name
            partial.write_text("mine")
        assert name.read_text(encoding="utf-8") == "mine"
    assert victim.read_text(encoding="utf-8") == "theirs"
    with pytest.raises(OutputError, match="No such file"), atomic_file(tmp_path / "gone" / "a.txt"):
        pass


def test_folders_inside_an_output_folder_are_merged(tmp_path):
    """What is written into a folder of the stage takes the place of the old file there; its neighbours stay."""
    out = tmp_path / "out"
    (out / "figures").mkdir(parents=True)
    (out / "figures" / "a.png").write_text("old")
    (out / "figures" / "mine.png").write_text("mine")
    with OutputFolder(out) as folder:
        folder.stage("figures").mkdir()
        (folder.stage("figures") / "a.png").write_text("new")
        assert (out / "figures" / "a.png").read_text(encoding="utf-8") == "old"
    found = {
        path.relative_to(out).as_posix(): path.read_text(encoding="utf-8") for path in out.rglob("*") if path.is_file()
    }
    assert found == {"figures/a.png": "new", "figures/mine.png": "mine"}
    assert folder.files == [out / "figures" / "a.png"]


def test_output_folder_holds_all_files_or_none(tmp_path):
    """Files appear together at the end, over those of before, and the folder holds nothing else."""
    out = tmp_path / "deep" / "out"
    with OutputFolder(out) as folder:
        folder.stage("a.txt").write_text("a")
        folder.stage("b.txt").write_text("b")
        assert [item for item in out.iterdir() if not item.name.startswith(".")] == []
    assert folder.files == [out / "a.txt", out / "b.txt"]
    with OutputFolder(out) as folder:
        folder.stage("b.txt").write_text("new")
    assert sorted(item.name for item in out.iterdir()) == ["a.txt", "b.txt"]
    assert (out / "b.txt").read_text(encoding="utf-8") == "new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ImageError])
def test_interrupted_output_folder_leaves_nothing(error, tmp_path):
    """What stops a run leaves no file, and no folder that was not there before."""
    (tmp_path / "kept").mkdir()
    for out in (tmp_path / "deep" / "out", tmp_path / "kept"):
        with pytest.raises(error), OutputFolder(out) as folder:  # noqa: PT012 - the block is what is interrupted
            folder.stage("a.txt").write_text("half")
            raise error
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_folder_that_is_not_entered_stages_nothing(tmp_path: Path) -> None:
    """Files are staged inside of the block alone."""
    with pytest.raises(OutputError, match="expected an entered OutputFolder, got one that is closed: use with on"):
        OutputFolder(tmp_path).stage("a")


def test_a_place_that_is_taken_by_a_folder(tmp_path: Path) -> None:
    """Where a folder has the name of a file that is to be put there, it is said, and nothing half-made is left."""
    (tmp_path / "out" / "field.nii.gz").mkdir(parents=True)
    with (
        pytest.raises(OutputError, match=r"expected to write to .*out, got: "),
        OutputFolder(tmp_path / "out") as folder,
    ):
        folder.stage("field.nii.gz").write_text("new")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["field.nii.gz"]


def test_ctrl_c_while_files_are_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When everything is written an interruption waits until all files are in their place, and then stops."""
    replace, calls = Path.replace, []

    def interrupted(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return replace(self, target)

    def write() -> None:
        with OutputFolder(tmp_path / "out") as folder:
            for name in ("a", "b"):
                folder.stage(name).write_text(name)
            monkeypatch.setattr(Path, "replace", interrupted)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b"]


def test_a_folder_that_somebody_else_uses_stays(tmp_path: Path) -> None:
    """What fails leaves no folder that it made, unless there is something of somebody else in it."""

    def fail() -> None:
        with OutputFolder(tmp_path / "new" / "out"):
            (tmp_path / "new" / "theirs").write_text("")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["theirs"]


def test_output_folder_is_checked(tmp_path):
    """A folder is made with its parents; a file in its place is an OutputError with the system's reason."""
    assert check_output_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").touch()
    for bad, reason in (("file", "File exists"), ("file/below", "Not a directory")):
        with pytest.raises(OutputError, match=reason):
            check_output_folder(tmp_path / bad)
        with pytest.raises(OutputError, match=reason), OutputFolder(tmp_path / bad):
            pass


def test_output_folder_without_permission(tmp_path):
    """A folder where nothing may be written is an OutputError."""
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match="Permission denied"):
        check_output_folder(tmp_path)


FULL_DISK = """
import resource, signal, sys, torch
from pathlib import Path
from semreg import Field, Grid, Volume, write_field, write_image, write_transform
from semreg.errors import OutputError
from semreg.io.files import OutputFolder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
grid = Grid.of_shape((20, 30, 40))
field = Field(torch.randn(3, 20, 30, 40, generator=torch.Generator().manual_seed(0)), grid)
image = Volume(field.vox[:1], grid)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
for name in sys.argv[2:]:
    try:
        with OutputFolder(sys.argv[1]) as folder:
            if name.startswith("field"):
                write_field(field, folder.stage(name))
            elif name.startswith("image"):
                write_image(image, folder.stage(name))
            else:
                write_transform(field, folder.stage(name))
    except OutputError as error:
        print(f"{name}: {error}; left: {list(Path(sys.argv[1]).parent.iterdir())}")
    else:
        print(f"{name}: no error")
"""


def test_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    """When a file cannot grow as on a full disk there is one OutputError and no file, in every format."""
    names = ["field.nii.gz", "image.nii.gz", "image.nii", "field.mha", "image.nrrd", "transform.h5"]
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "out"), *names]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == len(names)
    for name, line in zip(names, lines, strict=True):
        assert line.startswith(f"{name}: expected to write ")
        assert line.endswith("; left: []")


def test_what_a_dead_run_has_left_is_removed(tmp_path):
    """A folder whose run was killed goes with the next run in its place; those of runs that go on, and links, stay."""
    code = (
        "import os, sys; from semreg.io.atomic_output import OutputFolder as O; O(sys.argv[1]).__enter__(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 9
    (left,) = tmp_path.iterdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".semreg-run-link").symlink_to(tmp_path / "elsewhere")
    with OutputFolder(tmp_path) as first:
        assert not left.exists()
        first.stage("a").write_text("1")
        with OutputFolder(tmp_path) as second:
            second.stage("b").write_text("2")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "elsewhere", ".semreg-run-link"}


class KilledError(BaseException):
    """Stands for SIGKILL: nothing of the run goes on."""


def files_in(folder: Path) -> dict[str, str]:
    """Relative names and texts of all files that are no leftovers of a run."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    return {name: text for name, text in found.items() if not name.startswith(".semreg-")}


def write_run(folder: Path, which: str, names: tuple[str, ...]) -> OutputFolder:
    """A run that is about to put its files in place."""
    output = OutputFolder(folder, record="record.json")
    output.__enter__()
    for name in names:
        output.stage(name).parent.mkdir(exist_ok=True)
        output.stage(name).write_text(which, encoding="utf-8")
    output.stage("record.json").write_text(json.dumps({"outputs": [*names, "record.json"], "of": which}))
    return output


def killed_at(step: int, output: OutputFolder, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Put the files in place, killed before the step of this number; whether there are so many."""
    left = [step]

    def counted(action):
        def run(*arguments, **more):
            left[0] -= 1
            if left[0] < 0:
                raise KilledError
            return action(*arguments, **more)

        return run

    try:
        with monkeypatch.context() as patch:
            for name in ("replace", "unlink", "mkdir", "write_text"):
                patch.setattr(Path, name, counted(getattr(Path, name)))
            patch.setattr("shutil.rmtree", lambda *_, **__: None)
            output._publish()
    except KilledError:
        os.close(output._lock)  # as the system does
        return True
    output._discard()
    return False


def test_no_kill_leaves_two_results_in_one_folder(tmp_path, monkeypatch):
    """Killed before any step of putting files in place: the old result, the new one, or none by the record's word."""
    old, new = ("figures/a.png", "field", "inverse", "warped"), ("field", "figures/b.png", "warped", "z")
    seen = []
    for step in range(100):
        folder = tmp_path / str(step)
        write_run(folder, "old", old).__exit__(None, None, None)
        before = files_in(folder)
        output = write_run(folder, "new", new)
        output.stale = ["inverse", "figures/a.png", "evaluation.json"]
        killed = killed_at(step, output, monkeypatch)
        found = files_in(folder)
        record = json.loads(found.pop("record.json"))
        seen.append("unfinished" if "unfinished" in record else record["of"])
        assert len(set(found.values())) <= 1
        if seen[-1] == "unfinished":
            assert {*old, *new} <= set(record["outputs"])
        else:
            assert found.keys() | {"record.json"} == (before.keys() if seen[-1] == "old" else {*new, "record.json"})
        again = write_run(folder, "again", ("field",))
        again.stale = record["outputs"]
        again.__exit__(None, None, None)
        assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["field", "record.json"]
        assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
        if not killed:
            break
    assert seen == sorted(seen, key=["old", "unfinished", "new"].index)
    assert seen.count("unfinished") > 8
    assert seen[-1] == "new"


def test_an_unfinished_folder_is_no_result(tmp_path):
    """Readers of results say so in one sentence; an unfinished evaluation is none."""
    folder = ResultFolder(tmp_path)
    (tmp_path / "record.json").write_text('{"unfinished": true, "outputs": []}', encoding="utf-8")
    (tmp_path / "evaluation.json").write_text('{"unfinished": true, "outputs": []}', encoding="utf-8")
    assert folder.evaluation() is None
    with pytest.raises(ConfigError, match=r"expected a complete result in .*: give its command again"):
        folder.record()


def test_an_interruption_at_any_line_of_its_making_leaves_nothing(tmp_path):
    """A signal that comes while the folders are made, before or after any line of it, leaves none of them."""
    here = {atomic_output.__file__, staging.__file__}

    def make(stop):
        """Enter the folder, and raise before the line of this number that is run on the way."""
        seen = 0

        def trace(frame, event, _):
            nonlocal seen
            if frame.f_code.co_filename not in here or frame.f_code.co_name in ("_discard", "__exit__"):
                return None
            if event == "line":
                seen += 1
                if seen == stop:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        output = OutputFolder(tmp_path / "deep" / "out")
        sys.settrace(trace)
        try:
            output.__enter__()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        output.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        return False

    stop = 1
    while make(stop):
        assert list(tmp_path.iterdir()) == [], stop
        stop += 1
    assert stop > 15
