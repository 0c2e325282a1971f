"""What the guide to rollouts shows runs, and names every check that there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from noria import system

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "roll-out.md").read_text()


def test_its_python_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "roll-out.md", "exec"), names)
    assert isinstance(names["rollout"], system.Rollout)


def test_every_check_of_a_rollout_is_explained() -> None:
    made = set()
    for path in (ROOT / "src" / "noria" / "deployment" / "rollout").glob("*.py"):
        text = path.read_text()
        made |= set(re.findall(r'(?:Check|_value_check)\(\s*"([^"]+)"', text))
        made |= set(re.findall(r'name(?:: str)? = "([^"]+)"', text))
    assert {"sample ratio", "guardrail", "paired value", "lost outcomes", "score parity"} <= made
    missing = [name for name in made if f"| `{name}` |" not in GUIDE]
    assert not missing


def test_every_style_is_explained() -> None:
    assert all(f"| `{style}` |" in GUIDE for style in ("canary", "blue-green", "bandit"))
