"""Promises of the catalogue: only ``fetch`` connects, and a file is what it was when it was fetched, or is refused.

The client is the real one; the hub is a server on this machine.
"""

from __future__ import annotations

import hashlib
import re
import resource
import signal
import socket
import sys
import time
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest

from hub import Hub, running_hub
from semreg.errors import ConfigError, ModelError, ModelNotFoundError, OutputError
from semreg.features.catalogue import LOCK_FILE, default_folder, entries, fetch, find, locate
from semreg.features.catalogue.entries import PINNED
from semreg.features.catalogue.lock import read_lock
from semreg.features.descriptors import DESCRIPTORS

NAME, PATH = "ts/m730", "TS/M730.pt"
CONTENT = bytes(range(256)) * 4096  # 1 MiB: several blocks
OTHER = CONTENT[::-1]
NEXT = "b" * 40
SHARED = Path(__file__).parents[3] / "shared" / "data" / "models"


@pytest.fixture(autouse=True)
def _direct_connections(monkeypatch):
    """No proxy and no offline mode of whoever runs the tests; a token of theirs that must never be sent."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("HF_TOKEN", "hf_implicit")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


@pytest.fixture
def hub():
    with running_hub() as running:
        running.files[PINNED, PATH] = CONTENT
        running.branches["main"] = PINNED
        yield running


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def test_fetch_brings_the_file_and_writes_down_what_came(hub, tmp_path):
    """The file lies where the repository has it, the lock says what it is, and nothing else is left anywhere."""
    home = Path(huggingface_hub.constants.HF_HOME)
    before = files_in(home)
    fetched = fetch(NAME, tmp_path, mirror=hub.address)
    assert (fetched.path, fetched.sha256, fetched.revision) == (tmp_path / PATH, sha256(CONTENT), PINNED)
    assert fetched.transferred
    assert all(asked.path.endswith(f"/resolve/{PINNED}/{PATH}") for asked in hub.asked)
    assert fetched.path.read_bytes() == CONTENT
    assert files_in(tmp_path) == {PATH, LOCK_FILE}
    assert files_in(home) == before
    locked = read_lock(tmp_path).get(NAME)
    assert (locked.repository, locked.path, locked.revision) == (find(NAME).repository, PATH, PINNED)
    assert (locked.sha256, locked.size) == (sha256(CONTENT), len(CONTENT))
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", locked.date)


def test_fetched_files_are_readable_by_others(hub, tmp_path):
    """A fetched file has the rights of any new file, so that a shared folder can be shared."""
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert fetch(NAME, tmp_path, mirror=hub.address).path.stat().st_mode == ordinary.stat().st_mode


def test_progress_grows_to_the_whole_size(hub, tmp_path):
    """The caller hears of each block: bytes that have come, and the total."""
    heard = []
    fetch(NAME, tmp_path, mirror=hub.address, on_progress=lambda come, total: heard.append((come, total)))
    assert len(heard) > 2
    assert [come for come, _ in heard] == sorted({come for come, _ in heard})
    assert heard[-1] == (len(CONTENT), len(CONTENT))
    assert {total for _, total in heard} == {len(CONTENT)}


def test_what_is_there_is_not_fetched_again(hub, tmp_path):
    """A file that the lock knows opens no connection, whoever is named as mirror."""
    first = fetch(NAME, tmp_path, mirror=hub.address)
    asked = len(hub.asked)
    again = fetch(NAME, tmp_path, mirror="http://127.0.0.1:1")
    assert (again.path, again.sha256, again.revision) == (first.path, first.sha256, first.revision)
    assert not again.transferred
    assert len(hub.asked) == asked


def test_changed_file_is_refused(hub, tmp_path):
    """A file that changed on the disk is refused by fetch and by locate, with both checksums."""
    path = fetch(NAME, tmp_path, mirror=hub.address).path
    path.write_bytes(OTHER)
    for call in (
        lambda: fetch(NAME, tmp_path, mirror=hub.address),
        lambda: fetch(NAME, tmp_path, mirror=hub.address, revision="main"),
        lambda: locate(NAME, [tmp_path]),
    ):
        with pytest.raises(ModelError, match=sha256(CONTENT)) as caught:
            call()
        assert sha256(OTHER) in str(caught.value)
        assert path.read_bytes() == OTHER


@pytest.mark.parametrize("large", [True, False])
def test_other_content_under_the_same_revision_is_refused(hub, tmp_path, large):
    """What the lock knows must come again; another content leaves no file and the lock as it was."""
    fetch(NAME, tmp_path, mirror=hub.address).path.unlink()
    lock = (tmp_path / LOCK_FILE).read_text(encoding="utf-8")
    hub.files[PINNED, PATH], hub.large = OTHER, large
    with pytest.raises(ModelError, match=sha256(CONTENT)) as caught:
        fetch(NAME, tmp_path, mirror=hub.address)
    assert sha256(OTHER) in str(caught.value)
    assert files_in(tmp_path) == {LOCK_FILE}
    assert (tmp_path / LOCK_FILE).read_text(encoding="utf-8") == lock
    assert hub.transfers() == (1 if large else 2)  # a promised checksum that is wrong spares the transfer


def test_content_must_be_what_the_hub_promised(hub, tmp_path):
    """A file that is not what the hub's own checksum says is refused."""
    hub.promised = OTHER
    with pytest.raises(ModelError, match="the hub's own"):
        fetch(NAME, tmp_path, mirror=hub.address)
    assert files_in(tmp_path) == set()


def test_fetched_revision_stays_until_another_is_asked_for(hub, tmp_path):
    """Without a revision the locked one comes again although ``main`` moved on; by name the new one replaces it."""
    fetch(NAME, tmp_path, mirror=hub.address).path.unlink()
    hub.branches["main"] = NEXT
    hub.files[NEXT, PATH] = OTHER
    assert fetch(NAME, tmp_path, mirror=hub.address).revision == PINNED
    moved = fetch(NAME, tmp_path, mirror=hub.address, revision="main")
    assert (moved.revision, moved.sha256, moved.transferred) == (NEXT, sha256(OTHER), True)
    assert hub.asked[-1].path.endswith(f"/resolve/{NEXT}/{PATH}")  # by commit: the branch may move in between
    assert read_lock(tmp_path).get(NAME).revision == NEXT
    transfers = hub.transfers()
    assert not fetch(NAME, tmp_path, mirror=hub.address, revision="main").transferred
    assert hub.transfers() == transfers
    moved.path.unlink()
    assert fetch(NAME, tmp_path, mirror=hub.address).revision == NEXT


def test_lock_keeps_the_other_models(hub, tmp_path):
    """Fetching one model leaves what is known of the others."""
    hub.files[PINNED, "TS/M291.pt"] = OTHER
    fetch(NAME, tmp_path, mirror=hub.address)
    fetch("ts/m291", tmp_path, mirror=hub.address)
    assert read_lock(tmp_path).get(NAME).sha256 == sha256(CONTENT)
    assert read_lock(tmp_path).get("ts/m291").sha256 == sha256(OTHER)


def test_copied_file_is_taken_over_or_left_alone(hub, tmp_path):
    """A file that was copied by hand is locked without a transfer if it is the hub's, and never overwritten."""
    (tmp_path / "TS").mkdir()
    (tmp_path / PATH).write_bytes(CONTENT)
    assert not fetch(NAME, tmp_path, mirror=hub.address).transferred
    assert hub.transfers() == 0
    assert read_lock(tmp_path).get(NAME).sha256 == sha256(CONTENT)
    (tmp_path / LOCK_FILE).unlink()
    for large in (True, False):
        hub.large = large
        (tmp_path / PATH).write_bytes(OTHER)
        with pytest.raises(ModelError, match="which was not fetched"):
            fetch(NAME, tmp_path, mirror=hub.address)
        assert files_in(tmp_path) == {PATH}
        assert (tmp_path / PATH).read_bytes() == OTHER


@pytest.fixture
def at_once(monkeypatch):
    """Nobody waits before trying again: a sleep in this process is an error."""

    def sleep(seconds):
        raise AssertionError(f"waited {seconds} s")

    monkeypatch.setattr(time, "sleep", sleep)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, "HTTP 401, a repository that is closed or not there: give a token"),
        (403, "HTTP 403, a repository that is closed or not there: give a token"),
        (404, "HTTP 404, no such file or revision: give another revision"),
        (429, "HTTP 429: try again later, give a mirror"),
        (503, "HTTP 503: try again later, give a mirror"),
    ],
)
def test_refusals_say_what_to_do(hub, tmp_path, status, sentence):
    """One sentence: which file of which revision, from where, why not, and where to copy it by hand. No waiting."""
    hub.status = status
    with pytest.raises(ModelNotFoundError) as caught:
        fetch(NAME, tmp_path, mirror=hub.address)
    message = str(caught.value)
    assert sentence in message
    assert f"expected {PATH} of {find(NAME).repository} at {PINNED[:12]} from {hub.address}, got" in message
    assert str(tmp_path / PATH) in message
    assert "\n" not in message
    assert files_in(tmp_path) == set()


def test_missing_revision_is_named(hub, tmp_path):
    """A revision that the repository does not have is in the message."""
    with pytest.raises(ModelNotFoundError, match=r"at v9 from .* got HTTP 404, no such file or revision"):
        fetch(NAME, tmp_path, mirror=hub.address, revision="v9")


@pytest.mark.usefixtures("at_once")
def test_unreachable_hub_is_said_at_once(tmp_path):
    """Where nobody answers, the message comes without waiting and says what was tried and what to do."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ModelNotFoundError) as caught:
            fetch(NAME, tmp_path, mirror=address)
    assert address in str(caught.value)
    assert f"copy the file to {tmp_path / PATH} by hand, or give a mirror" in str(caught.value)
    assert files_in(tmp_path) == set()


def test_unknown_host_is_said_at_once(tmp_path):
    """A machine without a network gets the same sentence: names that cannot be resolved are no other error."""
    with pytest.raises(ModelNotFoundError, match="got no connection"):
        fetch(NAME, tmp_path, mirror="http://no-such-host.invalid")


def test_broken_transfer_leaves_nothing(hub, tmp_path):
    """A connection that breaks halfway leaves no part of a file and no lock, and the next fetch succeeds."""
    hub.cut = True
    with pytest.raises(ModelNotFoundError, match="got no connection or a broken one"):
        fetch(NAME, tmp_path, mirror=hub.address)
    assert files_in(tmp_path) == set()
    hub.cut = False
    assert fetch(NAME, tmp_path, mirror=hub.address).path.read_bytes() == CONTENT


@pytest.mark.parametrize("claimed", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_size_must_be_what_the_hub_promised(hub, tmp_path, claimed):
    """A file of another size than the hub said leaves nothing."""
    hub.claimed, hub.large = claimed, False
    with pytest.raises(ModelNotFoundError, match=f"expected {claimed} bytes of .*, got {len(CONTENT)}"):
        fetch(NAME, tmp_path, mirror=hub.address)
    assert files_in(tmp_path) == set()


def test_refused_transfer_leaves_nothing(hub, tmp_path):
    """A hub that has the file and does not send it is said so; the page it sends instead is never taken for a model."""
    hub.transfer_status, hub.large = 503, False
    with pytest.raises(ModelNotFoundError, match="got HTTP 503"):
        fetch(NAME, tmp_path, mirror=hub.address)
    assert files_in(tmp_path) == set()


def test_interrupted_fetch_leaves_nothing(hub, tmp_path):
    """Whoever stops a transfer finds no part of a file."""

    def stop(_come: int, _total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(NAME, tmp_path, mirror=hub.address, on_progress=stop)
    assert files_in(tmp_path) == set()


@pytest.mark.parametrize("size", [len(CONTENT), 1000])
def test_full_disk_is_said_and_leaves_nothing(hub, tmp_path, size):
    """A write that the system refuses halfway is an OutputError in one sentence, and no part of a file stays."""
    hub.files[PINNED, PATH] = CONTENT[:size]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"expected to write a model to .*; make room there"):
            fetch(NAME, tmp_path, mirror=hub.address)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert files_in(tmp_path) == set()


def test_file_larger_than_the_disk_is_not_begun(hub, tmp_path):
    """A size that cannot fit is refused before the transfer."""
    hub.claimed = 10**18
    with pytest.raises(OutputError, match=f"expected room for {10**18} bytes"):
        fetch(NAME, tmp_path, mirror=hub.address)
    assert hub.transfers() == 0


def test_folder_that_cannot_be_written_is_named(hub, tmp_path):
    """A file in the place of the folder is an OutputError that names it."""
    (tmp_path / "models").write_text("not a folder")
    with pytest.raises(OutputError, match="expected a folder to write to"):
        fetch(NAME, tmp_path / "models", mirror=hub.address)


def test_only_the_mirror_is_asked(hub, tmp_path):
    """A mirror, on another port and below a path, is asked in place of the hub, and nobody else."""
    with running_hub() as mirror:
        mirror.files[PINNED, PATH] = CONTENT
        fetch(NAME, tmp_path, mirror=f"{mirror.address}/huggingface/")
        assert [asked.method for asked in mirror.asked] == ["HEAD", "GET"]
        assert all(asked.path.startswith(f"/huggingface/{find(NAME).repository}/resolve/") for asked in mirror.asked)
    assert hub.asked == []


def test_server_that_is_no_hub_is_refused(hub, tmp_path):
    """An answer without a commit cannot be written down and is refused."""
    hub.names_commits = False
    with pytest.raises(ModelError, match="expected a hub that names its commits"):
        fetch(NAME, tmp_path, mirror=hub.address)


@pytest.mark.parametrize("address", ["mirror.example", "ftp://mirror.example", "http://", "http://a b", "http://a:x"])
def test_wrong_mirror_is_a_wrong_setting(tmp_path, address):
    """An address that cannot be is a ConfigError, not a network error."""
    with pytest.raises(ConfigError, match="expected a mirror as https://host, got"):
        fetch(NAME, tmp_path, mirror=address)


def test_token_goes_to_the_hub_alone(hub, tmp_path):
    """A token is sent where it is given and to the hub only, not to the store behind it; none is found by itself."""
    with running_hub() as store:
        store.files[PINNED, PATH] = CONTENT
        hub.store = store.address.replace("127.0.0.1", "localhost")  # another host, not another port alone
        fetch(NAME, tmp_path, mirror=hub.address, token="hf_given")  # noqa: S106
        assert {asked.token for asked in hub.asked} == {"Bearer hf_given"}
        assert [(asked.method, asked.token) for asked in store.asked] == [("GET", None)]
        hub.asked.clear()
        fetch(NAME, tmp_path / "second", mirror=hub.address)
        assert {asked.token for asked in hub.asked} == {None}


def test_missing_client_is_said_with_the_command(monkeypatch, tmp_path):
    """Without huggingface_hub the message has the command that installs it."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"pip install 'semreg\[hub\]'"):
        fetch(NAME, tmp_path)


def test_unreadable_lock_is_refused(hub, tmp_path):
    """A damaged lock is never taken for an empty one."""
    (tmp_path / LOCK_FILE).write_text("[[files]]\nname = 3\n")
    with pytest.raises(ModelError, match="expected a lock as `semreg models fetch` writes it, got"):
        fetch(NAME, tmp_path, mirror=hub.address)


def test_a_model_that_cannot_be_read(tmp_path: Path) -> None:
    """A folder in the place of a model's file has no checksum."""
    from semreg.features.catalogue.lock import checksum

    with pytest.raises(ModelError, match=r"expected a model that can be read, got .*: Is a directory"):
        checksum(tmp_path)


def test_locate_finds_fetched_and_copied_files(hub, tmp_path):
    """The first folder that has the file counts, laid out as the repository or holding the bare file."""
    bare, tree, empty = tmp_path / "bare", tmp_path / "tree", tmp_path / "empty"
    bare.mkdir()
    (bare / "M730.pt").write_bytes(CONTENT)
    fetch(NAME, tree, mirror=hub.address)
    assert locate(NAME, [empty, bare, tree]) == bare / "M730.pt"
    assert locate(NAME, [str(tree), bare]) == tree / PATH
    with pytest.raises(ModelNotFoundError) as caught:
        locate("ts/m731", [bare, tree])
    assert f"got nothing in {bare}, {tree}: run `semreg models fetch ts/m731`" in str(caught.value)
    with pytest.raises(ModelNotFoundError, match="no folder at all"):
        locate(NAME, [])


def test_locate_verifies_a_bare_file_by_the_lock_beside_it(hub, tmp_path):
    """A lock that was copied with its files is believed where they lie flat, too."""
    fetch(NAME, tmp_path, mirror=hub.address).path.rename(tmp_path / "M730.pt")
    assert locate(NAME, [tmp_path]) == tmp_path / "M730.pt"
    (tmp_path / "M730.pt").write_bytes(OTHER)
    with pytest.raises(ModelError, match=sha256(CONTENT)):
        locate(NAME, [tmp_path])


def test_nothing_but_fetch_connects(monkeypatch, tmp_path):
    """Listing, finding and locating models opens no socket; fetching tries to."""
    opened = []

    def refuse(*address: object) -> None:
        opened.append(address)
        raise OSError("no connections in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert entries()
    find(NAME)
    with pytest.raises(ModelNotFoundError):
        locate(NAME, [tmp_path])
    assert opened == []
    with pytest.raises(ModelNotFoundError):
        fetch(NAME, tmp_path, mirror="http://127.0.0.1:1")
    assert opened


def test_names_find_their_models():
    """Each model is found by its name and by its path, in any case of letters, and no two share either."""
    known = entries()
    assert len({entry.name for entry in known}) == len({entry.path for entry in known}) == len(known)
    for entry in known:
        assert find(entry.name.upper()) == find(entry.path) == entry
        assert entry.spec.name == entry.name
        assert entry.spec.licence
        assert entry.spec.source
        assert entry.use


def test_unknown_names_get_the_nearest():
    """A name that nobody has is refused with the nearest one; a built-in model is no file."""
    with pytest.raises(ModelNotFoundError, match="got 'anatomics': did you mean 'anatomix'"):
        find("anatomics")
    for name in DESCRIPTORS:
        with pytest.raises(ModelError, match="built in"):
            find(name)


def test_what_is_not_stated_is_said():
    """A voxel size that the catalogue does not have is named as unknown, save for formulas, which have none."""
    for entry in entries():
        formula = entry.name.startswith("mind/")
        silent = entry.spec.spacing_mm is None and not formula
        assert any("voxel size" in words for words in entry.unknown) == silent
        assert any("field of view" in words for words in entry.unknown) == (
            not entry.field_of_view and not entry.name.startswith("dinov2")
        )


def test_earlier_ct_files_get_what_the_zoo_prescribed():
    """−370 HU becomes 0 and one unit is 436.6 HU, between −1024 and 276 HU."""
    normalisation = find("ts/m291-2").spec.normalisation
    (low, high), (start, end) = normalisation.window, normalisation.to
    assert (low, high) == (-1024, 276)
    assert (low - -370) / 436.6 == pytest.approx(start)
    assert (high - low) / (end - start) == pytest.approx(436.6)


def test_default_folder_is_in_the_home(monkeypatch, tmp_path):
    """Models go below the user's home where no folder is named."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "semreg" / "models"


def test_documentation_lists_the_known_models():
    """docs/models.md names each model of the present layout and the built-in ones."""
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([^`]+)`", text, flags=re.MULTILINE))
    assert named == {entry.name for entry in entries() if not entry.earlier} | set(DESCRIPTORS)


@pytest.mark.parametrize("name", ["ts/m730-1", "mind/r1d2-2d"])
def test_real_files_are_found_by_name(name):
    """Files of the zoo that somebody copied into one folder are found by the names of the catalogue."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the files of real models in {SHARED}")
    assert locate(name, [SHARED]).name == Path(find(name).path).name


def test_hub_of_the_tests_answers_as_the_client_expects(hub: Hub):
    """The client's own reading of this hub: commit, checksum and size, so that the tests above are about fetch."""
    url = huggingface_hub.hf_hub_url(find(NAME).repository, PATH, revision="main", endpoint=hub.address)
    metadata = huggingface_hub.get_hf_file_metadata(url, token=False)
    assert (metadata.commit_hash, metadata.etag, metadata.size) == (PINNED, sha256(CONTENT), len(CONTENT))
