"""Promises of ``semreg serve``: a job goes its way to its result; nothing is read without the token, or by a path."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("httpx", reason="needs httpx")

import h5py
import httpx

from blobs import blobs
from conftest import eventually, grid_at, rotation
from dicom_pair import CT, header, write_series
from secrets_in import SECRET, secrets_in
from service_client import QUICK, pair, picture, service

FIXED = grid_at((3.0, -7.0, 11.0), (14, 12, 8), (2.1, 1.9, 4.0), rotation(3))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A service with two workers that takes 1 MB, and a folder of models."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "models").mkdir()
    (folder / "models" / "own.pt").write_bytes(b"no model")
    (folder / "outside.pt").write_bytes(b"no model")
    flags = ("--workers", 2, "--max-size", 1, "--models", folder / "models", "--verbose")
    with service(folder / "jobs", *flags) as found:
        yield found


@pytest.fixture(scope="module")
def done(server):
    """The id of a job that has ended well, whose images had the name of a patient."""
    parts = {
        "fixed": (f"/data/{SECRET}/../fixed.PNG", picture()),
        "moving": (f"{SECRET}.png", picture((1.5, -1.0))),
        "fixed_mask": (f"{SECRET}.png", picture()),
    }
    data = {"settings": QUICK, "effort": "fast", "inverse": "true"}
    answer = server.client.post("/jobs", files=parts, data=data)
    assert answer.status_code == 202, answer.text
    identifier = answer.json()["id"]
    assert answer.headers["location"] == f"/jobs/{identifier}"
    shares = []

    def ended():
        job = server.job(identifier)
        shares.append(job["share"])
        return job["state"] in ("done", "failed") and job

    job = eventually(ended)
    assert job["state"] == "done", job
    assert shares == sorted(shares)
    assert len({share for share in shares if 0 < share < 1}) > 1
    return identifier


def jobs_in(server):
    """What lies in the folder of the jobs."""
    return sorted(path.name for path in (server.folder / "jobs").iterdir())


def test_a_job_gives_what_the_command_writes(server, done):
    """Verdict, list, single files and the archive are those of the folder; another program reads the warped image."""
    job = server.job(done)
    assert job["verdict"] in ("PASS", "REVIEW", "FAIL")
    assert (job["error"], job["share"], job["before"]) == (None, 1.0, 0)
    assert job["created"] < job["started"] < job["ended"]
    result = server.folder / "jobs" / done / "result"
    listed = server.client.get(f"/jobs/{done}/files").json()
    assert {each["name"]: each["bytes"] for each in listed} == {
        path.name: path.stat().st_size for path in result.iterdir()
    }
    assert {"transform.h5", "inverse.h5", "warped.nii.gz", "report.html", "record.json"} <= {e["name"] for e in listed}
    with zipfile.ZipFile(io.BytesIO(server.client.get(f"/jobs/{done}/result.zip").content)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            path.name: path.read_bytes() for path in result.iterdir()
        }
    answer = server.client.get(f"/jobs/{done}/files/warped.nii.gz")
    assert answer.content == (result / "warped.nii.gz").read_bytes()
    assert answer.headers["cache-control"] == "no-store"
    assert "fixed mask" in server.client.get(f"/jobs/{done}/log").text
    assert done in [each["id"] for each in server.client.get("/jobs").json()]


def test_every_answer_stays_in_no_cache(server, done):
    """Those of errors too, also of one that nobody foresaw."""
    log = server.folder / "jobs" / done / "register.log"
    kept = log.rename(log.with_name("kept"))
    log.mkdir()
    try:
        paths = ("/health", "/jobs", "/nothing", f"/jobs/{done}/files/none", f"/jobs/{done}/log")
        answers = [server.client.get(path) for path in paths]
    finally:
        log.rmdir()
        kept.rename(log)
    answers += [httpx.get(f"{server.url}/jobs"), server.client.post("/jobs"), server.client.put("/jobs")]
    assert [answer.status_code for answer in answers] == [200, 200, 404, 404, 500, 401, 415, 405]
    for answer in answers:
        assert answer.headers.get_list("cache-control") == ["no-store"]
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"]


def test_no_name_from_outside_is_kept_or_said(server, done):
    """Names of files that came in stand nowhere: not in the folder of the job, nor in what the service says."""
    place = server.folder / "jobs" / done
    assert {path.name for path in place.iterdir()} == {
        "fixed.png", "moving.png", "fixed_mask.png", "settings.toml", "job.json", "register.log", "progress.json",
        "result",
    }  # fmt: skip
    assert secrets_in(place) == {}
    assert json.loads((place / "result" / "record.json").read_text())["private"] is True
    assert SECRET not in server.said.read_text()
    assert done in server.said.read_text()  # it does say something


def test_nothing_is_there_without_the_token(server, done):
    """Every page but /health refuses no token, a wrong one, another scheme, a part of it, and two at once."""
    paths = server.client.get("/openapi.json").json()["paths"]
    asked = [(method, path) for path, methods in paths.items() for method in methods]
    assert len(asked) == 10
    asked += [("get", "/openapi.json"), ("get", "/docs"), ("get", "/redoc"), ("get", "/"), ("get", "//health"),
              ("get", "/health/"), ("options", "/jobs"), ("head", "/jobs"), ("post", "/jobs")]  # fmt: skip
    bearer = f"Bearer {server.token}"
    wrong = [
        {}, {"Authorization": ""}, {"Authorization": "Bearer"}, {"Authorization": bearer[:-1]},
        {"Authorization": f"{bearer}x"}, {"Authorization": f"Basic {server.token}"}, {"Authorization": server.token},
        [("Authorization", bearer), ("Authorization", "Bearer x")], {"Cookie": f"token={server.token}"},
    ]  # fmt: skip
    with httpx.Client(base_url=server.url, trust_env=False) as stranger:
        for method, path in asked:
            named = path.replace("{identifier}", done).replace("{name}", "warped.nii.gz")
            for headers in wrong:
                answer = stranger.request(method, f"{named}?token={server.token}", headers=headers)
                if path == "/health":
                    assert answer.json() == {"status": "ok"}
                    continue
                assert answer.status_code == 401, (method, path, headers)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert method == "head" or list(answer.json()) == ["error"]
        # a large body is refused before it is read
        assert stranger.post("/jobs", content=iter([b"x" * 65536])).status_code == 401
    assert server.job(done)["state"] == "done"
    told = server.said.read_text() + "".join(p.read_text("utf-8", "replace") for p in server.folder.rglob("*.log"))
    assert server.token not in told
    assert (server.folder / "token").stat().st_mode & 0o777 == 0o600
    assert server.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "name",
    [
        "../job.json", "..%2fjob.json", "%2e%2e/job.json", "..%2f..%2f..%2ftoken", "/etc/passwd", "%2fetc%2fpasswd",
        ".", "..", "", "record.json/", "./record.json", "../result/record.json", "figures/../record.json",
        "record.json%00", "..\\job.json", "RECORD.JSON",
    ],
)  # fmt: skip
def test_files_are_found_by_their_names_alone(server, done, name):
    """No path leads to another file than those in the list, nor to these by another way."""
    status, text = server.raw("GET", f"/jobs/{done}/files/{name}")
    assert (status, text) == (307, "") or (status, list(json.loads(text))) == (404, ["error"])


@pytest.mark.parametrize("name", ["0" * 32, "0" * 31, "..", "%2e%2e", "x", "..%2fjobs", "%00", "J" * 500])
def test_an_id_that_is_none_is_one_answer(server, name):
    """An id that there is not and one of a wrong form: 404 with the same sentence, for every method."""
    for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/files"), ("GET", "/log"), ("POST", "/cancel")):
        status, text = server.raw(method, f"/jobs/{name}{rest}")
        assert (status, list(json.loads(text))) in ((404, ["error"]), (405, ["error"]))
        if "/" not in name and "%2f" not in name:
            assert json.loads(text)["error"].startswith("expected the id of a job")


def hdf5(tmp_path: Path) -> bytes:
    """An HDF5 file whose values are those of another file of this machine."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("values", (4,), "u1", external=[("/etc/passwd", 0, 4)])
    return (tmp_path / "a.h5").read_bytes()


NRRD = b"NRRD0004\ntype: uint8\ndimension: 2\nsizes: 4 4\nencoding: raw\nData File: /etc/passwd\n\n"
META = b"ObjectType = Image\nNDims = 2\nDimSize = 4 4\nElementType = MET_UCHAR\nElementDataFile = /etc/passwd\n"
WRONG = {
    "an unknown setting": ({}, {"settings": "[refine]\niteration = 3\n"}, "did you mean 'refine.iterations'"),
    "no TOML": ({}, {"settings": "refine = ["}, "expected settings in TOML"),
    "no JSON": ({}, {"settings": '{"refine": '}, "expected settings in JSON"),
    "a value out of range": ({}, {"settings": "[refine]\niterations = 0\n"}, "refine.iterations >= 1"),
    "an unknown preset": ({}, {"preset": "lung"}, "did you mean lung-ct"),
    "an unknown effort": ({}, {"effort": "best"}, "effort of fast or quality"),
    "an unknown part": ({}, {"settngs": "seed=1"}, "did you mean settings"),
    "neither true nor false": ({}, {"inverse": "maybe"}, "inverse as true or false"),
    "a model by a path": ({}, {"settings": '{"models": [{"model": "OUTSIDE"}]}'}, "expected a model called"),
    "a moving model by a path": ({}, {"settings": '{"models": [{"moving": "OUTSIDE"}]}'}, "expected a model called"),
    "a model above": ({}, {"settings": '{"models": [{"model": "../outside.pt"}]}'}, "expected a model called"),
    "an image as a model": ({}, {"settings": '{"models": [{"model": "fixed.png"}]}'}, "expected a model called"),
    "a member by a path": ({}, {"settings": '{"ensemble": {"models": ["OUTSIDE"]}}'}, "expected a model called"),
    "a start by a path": ({}, {"settings": '{"start": "OUTSIDE"}'}, "expected a model called"),
    "no moving image": ({"moving": None}, {}, "got no moving"),
    "no format": ({"moving": ("moving.exe", b"x")}, {}, "whose names end in"),
    "no ending": ({"moving": ("/etc/passwd", b"x")}, {}, "whose names end in"),
    "a pair of files": ({"moving": ("moving.hdr", b"x")}, {}, "whose names end in"),
    "a text for a file": ({"moving": (None, b"x")}, {}, "expected a file as moving"),
    "voxels elsewhere in NRRD": ({"moving": ("moving.nrrd", NRRD)}, {}, "voxels in the same file"),
    "voxels elsewhere in MetaImage": ({"moving": ("moving.mha", META)}, {}, "voxels in the same file"),
    "HDF5 by another name": ({"moving": ("moving.tif", "HDF5")}, {}, "got HDF5"),
    "HDF5 after a preface": ({"moving": ("moving.nii", "LATE")}, {}, "got HDF5"),
    "no archive": ({"moving": ("moving.zip", b"PK\3\4 and no more")}, {}, "expected an archive"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_sentence_and_leaves_nothing(server, tmp_path, case):
    """422 with what was expected, the nearest name where there is one, and no folder that stays."""
    more, data, said = WRONG[case]
    files = {name: value for name, value in pair(**more).items() if value is not None}
    data = {name: value.replace("OUTSIDE", str(server.folder.parent / "outside.pt")) for name, value in data.items()}
    if "HDF5" in case:
        preface = b"\0" * 1024 if files["moving"][1] == "LATE" else b""
        files["moving"] = (files["moving"][0], preface + hdf5(tmp_path))
    before = jobs_in(server)
    answer = server.client.post("/jobs", files=files, data=data)
    assert (answer.status_code, list(answer.json())) == (422, ["error"])
    assert said in answer.json()["error"]
    assert jobs_in(server) == before


def test_what_is_no_form_is_refused(server):
    """No form, one that ends early, and a part twice: one sentence each, and nothing stays."""
    before = jobs_in(server)
    assert server.client.post("/jobs", json={"fixed": 1}).status_code == 415
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    part = b'--x\r\nContent-Disposition: form-data; name="fixed"; filename="a.png"\r\n\r\n'
    for body, status in (
        (part + b"abc", 400), (b"abc", 400), (b"", 400), (part + b"a\r\n" + part + b"b\r\n--x--\r\n", 422),
    ):  # fmt: skip
        answer = server.client.post("/jobs", content=body, headers=kind)
        assert (answer.status_code, list(answer.json())) == (status, ["error"]), body
    assert jobs_in(server) == before


def test_too_much_is_refused_and_leaves_nothing(server):
    """Beyond the limit: 413, when it is announced and when it comes piece by piece; a text that is too long too."""
    before = jobs_in(server)
    large = pair(moving=("moving.png", bytes(1_100_000)))
    assert server.client.post("/jobs", files=large).status_code == 413
    request = server.client.build_request("POST", "/jobs", files=large)
    pieces = [request.read()[start : start + 30_000] for start in range(0, len(request.read()), 30_000)]
    kind = {"Content-Type": request.headers["Content-Type"]}
    try:
        answer = server.client.post("/jobs", content=iter(pieces), headers=kind)
        assert (answer.status_code, list(answer.json())) == (413, ["error"])
    except httpx.TransportError:  # the connection is closed before all was sent, and the answer may not be read then
        pass
    assert jobs_in(server) == before
    assert server.client.get("/health").status_code == 200


def test_an_archive_that_grows_is_refused(server):
    """Zeros that are packed to a thousandth: refused while they are unpacked, and nothing stays."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../../slice", bytes(30_000_000))
    before = jobs_in(server)
    answer = server.client.post("/jobs", files=pair(fixed=("series.zip", data.getvalue())))
    assert answer.status_code == 422
    assert "far larger" in answer.json()["error"]
    assert jobs_in(server) == before


def test_series_of_dicom_go_in_and_come_out(server, tmp_path):
    """Slices in an archive, whatever their names lead to, are registered, and slices are in the result."""
    parts = {}
    for name, shift in (("fixed", (0.0, 0.0, 0.0)), ("moving", (2.0, -1.0, 0.5))):
        write_series(tmp_path / name, blobs(FIXED, shift).data[0].numpy(), FIXED, header(CT, "CT"))
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
            for number, path in enumerate(sorted((tmp_path / name).iterdir())):
                archive.write(path, f"../../{number}/{path.name}")
        parts[name] = (f"{name}.zip", data.getvalue())
    answer = server.client.post("/jobs", files=parts, data={"settings": QUICK, "dicom": "true"})
    assert answer.status_code == 202, answer.text
    identifier = answer.json()["id"]
    job = server.reaches(identifier, "done", "failed")
    assert job["error"] is None
    place = server.folder / "jobs" / identifier
    slices = FIXED.size_xyz[2]
    assert sorted(path.name for path in (place / "fixed").iterdir()) == [f"{n:05d}.dcm" for n in range(1, slices + 1)]
    names = [each["name"] for each in server.client.get(f"/jobs/{identifier}/files").json()]
    assert len([name for name in names if name.startswith("dicom/")]) == slices
    warped = server.client.get(f"/jobs/{identifier}/files/warped.nii.gz").content
    (tmp_path / "warped.nii.gz").write_bytes(warped)
    assert np.ptp(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "warped.nii.gz")))) > 0


def test_what_cannot_be_registered_fails_in_one_sentence(server):
    """A file that is no image: failed, with the sentence of the command, without a path of the machine; no files."""
    identifier = server.submit(moving=("moving.nii.gz", b"no image"))
    job = server.reaches(identifier, "done", "failed")
    assert job["state"] == "failed"
    assert re.match(r"register: expected .*moving\.nii\.gz", job["error"])
    assert str(server.folder) not in job["error"]
    assert str(server.folder) not in server.client.get(f"/jobs/{identifier}/log").text
    for rest in ("/files", "/files/record.json", "/result.zip"):
        answer = server.client.get(f"/jobs/{identifier}{rest}")
        assert (answer.status_code, list(answer.json())) == (409, ["error"])
    assert server.client.delete(f"/jobs/{identifier}").status_code == 204
    assert identifier not in jobs_in(server)


def test_a_model_of_the_folder_is_found_by_its_name(server):
    """A file in the folder that --models names is loaded by its bare name; no answer says where that folder is."""
    identifier = server.submit('{"models": [{"model": "own.pt"}]}')
    job = server.reaches(identifier, "done", "failed")
    assert job["state"] == "failed"
    assert "model" in job["error"]
    assert str(server.folder.parent) not in job["error"]
    settings = (server.folder / "jobs" / identifier / "settings.toml").read_text()
    assert str(server.folder.parent / "models" / "own.pt") in settings
