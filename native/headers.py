"""Fetch the headers of ITK 5.4 from Debian's package into the folder ``headers`` beside this file; installs nothing.

Needs apt-get and dpkg. The package may be of a later release than the machine's: apt is shown the machine's own
sources with the release's name replaced and verifies what it fetches with Debian's keys; the checksum is checked again.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

RELEASE = "trixie"
PACKAGE = "libinsighttoolkit5-dev"
VERSION = "5.4.3-5"
ARCHITECTURE = "amd64"
SHA256 = "78ab1332990b6652b2e9553b0be549c5548c3b9713766a9ef5338641724e92b5"
SOURCES = Path("/etc/apt")
KEYRINGS = Path("/usr/share/keyrings")
TARGET = Path(__file__).parent / "headers"
HINT = "install ITK 5.4's headers otherwise and set the environment variable ITK_INCLUDE_DIR to their folder"


def main() -> None:
    """Fetch, check, unpack; nothing is left half-written."""
    if (TARGET / "usr/include/ITK-5.4").is_dir():
        print(f"{TARGET} has the headers already")
        return
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            sys.exit(f"expected {tool} to fetch ITK's headers with, found none: {HINT}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # apt fetches as a user of its own
        package = fetch(folder)
        digest = hashlib.sha256(package.read_bytes()).hexdigest()
        if digest != SHA256:
            sys.exit(f"expected {PACKAGE} {VERSION} with SHA-256 {SHA256}, got {digest}: {HINT}")
        unpacked = TARGET.with_suffix(".part")
        shutil.rmtree(unpacked, ignore_errors=True)
        run(["dpkg", "-x", str(package), str(unpacked)])
        shutil.rmtree(TARGET, ignore_errors=True)
        unpacked.rename(TARGET)
    print(f"ITK {VERSION}'s headers are in {TARGET}")


def fetch(folder: Path) -> Path:
    """The package file, fetched by apt into ``folder`` with lists and cache of its own."""
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    keys = ",".join(map(str, sorted(KEYRINGS.glob("debian-archive-*.gpg"))))
    sources = folder / "sources.list"
    sources.write_text("".join(f"deb [signed-by={keys}] {uri} {RELEASE} main\n" for uri in mirrors()))
    options = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "APT::Architecture": ARCHITECTURE,
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", *[f"-o{key}={value}" for key, value in options.items()]]
    run([*apt, "update"])
    run([*apt, "download", f"{PACKAGE}={VERSION}"], cwd=folder)
    return next(folder.glob("*.deb"))


def mirrors() -> list[str]:
    """Where the machine gets Debian's packages from."""
    texts = [
        path.read_text(encoding="utf-8")
        for pattern in ("sources.list", "sources.list.d/*.list", "sources.list.d/*.sources")
        for path in sorted(SOURCES.glob(pattern))
    ]
    found = re.findall(r"^(?:URIs:|deb\s+(?:\[[^\]]*\]\s+)?)\s*(\S+/debian)/?(?=\s|$)", "\n".join(texts), re.MULTILINE)
    if not found:
        sys.exit(f"expected a source of Debian's packages in {SOURCES}, found none: {HINT}")
    return list(dict.fromkeys(found))


def run(command: list[str], cwd: Path | None = None) -> None:
    """Run a command; stop with what it said where it fails."""
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode:
        said = (result.stderr or result.stdout).strip().splitlines()
        sys.exit(f"expected {command[0]} to succeed, got: {' '.join(said[-3:])}: {HINT}")


if __name__ == "__main__":
    main()
