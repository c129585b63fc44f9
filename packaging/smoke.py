"""What an installed semreg must be able to do, in an empty folder, with nothing but what is installed.

    python smoke.py VERSION      VERSION is the one that was built; check.py runs this

Ends with an AssertionError or another error at the first thing that does not work.
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import semreg


def command(*words: str) -> str:
    """What ``semreg`` prints, run as a user runs it; its exit code must be 0."""
    program = Path(sys.executable).with_name("semreg")
    done = subprocess.run([str(program), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"semreg {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def installed(version: str) -> None:
    """The package that was built is what is imported, and nothing heavy with it."""
    assert semreg.__version__ == version, (semreg.__version__, version)
    assert "site-packages" in Path(semreg.__file__).parts, semreg.__file__
    assert not {"numpy", "torch", "SimpleITK", "itk", "matplotlib"} & set(sys.modules)
    assert command("--version").strip() == f"semreg {version}"
    findings = json.loads(command("doctor", "--json"))
    assert findings["healthy"], findings
    if find_spec("itk"):
        states = {row["name"]: row["state"] for row in findings["findings"]}
        assert states["itk"] == states["semreg-itkv4"] == "ok", states


def pair(folder: Path) -> tuple[str, str]:
    """Two small images of the phantom, as files."""
    command("demo", "-o", str(folder), "--images-only", "--size", "24")
    return str(folder / "fixed.nii.gz"), str(folder / "moving.nii.gz")


def registers(fixed: str, moving: str) -> None:
    """With MIND, with a preset and with the file of a network; files, page and verdict appear."""
    import torch

    network = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.ReLU())
    torch.jit.script(network.eval()).save("net.pt")  # type: ignore[no-untyped-call]
    runs = {"plain": (), "preset": ("--preset", "ct-mr-abdomen"), "network": ("--model", "net.pt")}
    for name, words in runs.items():
        command("register", fixed, moving, "-o", name, "--quiet", *words)
        for file in ("warped.nii.gz", "transform.h5", "field.nii.gz", "report.html", "record.json", "config.toml"):
            assert Path(name, file).stat().st_size > 100, (name, file)
    command("report", "plain", "--figures")


def drives_itk(fixed_path: str, moving_path: str) -> None:
    """ITK's own metric interface calls Python, and gets a value and a derivative from it."""
    import itk
    import semreg.itk.api  # noqa: F401 - puts the classes into itk

    fixed, moving = itk.imread(fixed_path, itk.F), itk.imread(moving_path, itk.F)
    metric = itk.ImpactImageToImageMetricv4[type(fixed), type(moving)].New()
    metric.AddModelConfiguration(itk.ImpactModelConfiguration("mind"))
    metric.SetFixedImage(fixed)
    metric.SetMovingImage(moving)
    metric.SetVirtualDomainFromImage(fixed)
    metric.SetMovingTransform(itk.TranslationTransform[itk.D, 3].New())
    metric.Initialize()
    assert 0 < metric.GetValue() < 100
    derivative = itk.Array[itk.D]()
    metric.GetDerivative(derivative)
    assert any(derivative[axis] for axis in range(3))


def main() -> None:
    """All of it."""
    installed(sys.argv[1])
    images = pair(Path("images"))
    registers(*images)
    if find_spec("itk"):
        drives_itk(*images)
    command("demo", "-o", "demo", "--size", "48")
    assert Path("demo/report.html").is_file()


if __name__ == "__main__":
    main()
