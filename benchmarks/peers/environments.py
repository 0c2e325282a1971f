"""The environments of what people would use instead: each has one of its own under ``.cache/peers``, made once. Standard library only."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "peers"
SERVERS: dict[str, tuple[str, ...]] = {
    "mlflow": ("mlflow", "uvicorn"),
    "litserve": ("litserve",),
    "fastapi": ("fastapi", "uvicorn", "uvloop", "httptools"),
    "bentoml": ("bentoml",),
}
"""What each server's environment holds, besides scikit-learn and joblib in the versions that are used here."""
MONITORS: dict[str, tuple[str, ...]] = {
    "evidently": ("evidently", "pyarrow", "pandas<3"),
    "nannyml": ("nannyml", "pyarrow", "pandas<3", "statsmodels"),
}


def environment(peer: str) -> Path:
    """The folder of a peer's programs; its environment is made when it is not there yet."""
    folder = CACHE / peer
    done = folder / "complete"
    if not done.exists():
        print(f"making the environment of {peer} in {folder}", file=sys.stderr, flush=True)
        same = [f"{name}=={importlib.metadata.version(name)}" for name in ("scikit-learn", "joblib")]
        wanted = MONITORS[peer] if peer in MONITORS else (*SERVERS[peer], *same)
        uv = str(Path(sys.executable).parent / "uv")
        subprocess.run([uv, "venv", "-q", "--allow-existing", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", str(folder / "bin" / "python"), *wanted], check=True)
        done.touch()
    return folder / "bin"
