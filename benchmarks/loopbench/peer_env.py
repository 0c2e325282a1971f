"""The environments of the monitors people would use instead, each apart from ours and made once from the registry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "peers"
ENVIRONMENTS = {"evidently": ("evidently", "pyarrow", "pandas<3"), "nannyml": ("nannyml", "pyarrow", "pandas<3", "statsmodels")}


def python(peer: str) -> Path:
    """The interpreter that has the peer; its environment is made when it is not there."""
    folder = CACHE / peer
    if not (folder / "complete").exists():
        uv = str(Path(sys.executable).parent / "uv")
        subprocess.run([uv, "venv", "-q", "--allow-existing", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", str(folder / "bin" / "python"), *ENVIRONMENTS[peer]], check=True)
        (folder / "complete").touch()
    return folder / "bin" / "python"


if __name__ == "__main__":
    for name in ENVIRONMENTS:
        print(python(name))
