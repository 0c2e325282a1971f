"""docs/serve.md is gone through as a new user would: every command of it, in order, in one shell, against the real service."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "serve.md"
END = "end-of-command"


def commands() -> list[tuple[str, list[str]]]:
    """(command, the lines that the page shows below it)."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


class Shell:
    """One shell in which commands are typed one after the other."""

    def __init__(self, folder: Path, path: str, port: int) -> None:
        environment = {
            "PATH": f"{path}:/usr/bin:/bin",
            "HOME": str(folder),
            "NORIA_PORT": str(port),
            "PYTHONPATH": str(ROOT / "src"),
        }
        self._shell = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, command: str) -> tuple[int, str]:
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{command}\necho {END} $?\n")
        self._shell.stdin.flush()
        lines: list[str] = []
        for line in self._shell.stdout:
            before, mark, code = line.rpartition(END)
            lines.append(before if mark else line)
            if mark:
                return int(code), "".join(lines)
        pytest.fail(f"the shell ended at: {command}")

    def close(self) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait(30)
        assert self._shell.stdout is not None
        self._shell.stdout.close()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[tuple[Shell, int]]:
    """A shell in a folder with the example, with `noria` and `python` of this environment."""
    shutil.copytree(ROOT / "examples" / "fraud", tmp_path / "examples" / "fraud", ignore=shutil.ignore_patterns("data", ".noria"))
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tools / "noria").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from noria.cli import main; main()" "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    made = Shell(tmp_path, str(tools), port)
    yield made, port
    made.close()


def test_the_page_runs_from_nothing_to_a_drill(shell: tuple[Shell, int]) -> None:
    typed, port = shell
    transcript = []
    for command, shown in commands():
        line = command.replace(":8000", f":{port}")
        serves = command.startswith("noria serve")
        code, out = typed.run(f"{line} >serve.out 2>&1 & SERVICE=$!" if serves else line)
        if serves:
            wait = (
                f"for n in $(seq 600); do curl -s -o /dev/null http://127.0.0.1:{port}/ && break; sleep 0.1; done; cat serve.out"
            )
            code, out = typed.run(wait)
        transcript.append(f"$ {command}\n{out}")
        assert code == 0, (command, out)
        agrees(command, shown, out)
    code, out = typed.run("kill -INT $SERVICE; wait $SERVICE; echo $?; cat serve.out")
    Path(typed.run("pwd")[1].strip(), "transcript.txt").write_text("\n".join(transcript))
    assert out.startswith("0\n"), out
    assert "Traceback" not in out
    assert "leaked" not in out


def agrees(command: str, shown: list[str], out: str) -> None:
    """What the page shows is what came: the same fields of JSON; the same words elsewhere, whatever the numbers are."""
    for line in shown:
        if line.startswith("{"):
            assert shape(json.loads(out)) >= shape(json.loads(line)), (command, out)
        else:
            words = [word for word in re.findall(r"[A-Za-z_]{3,}", line) if not re.fullmatch(r"[0-9a-f]+", word)]
            missing = [word for word in words if word not in out]
            assert not missing, (command, missing, out)


def shape(value: object, at: str = "") -> set[str]:
    """The paths of a JSON document, without its values."""
    if isinstance(value, dict):
        return {path for name, part in value.items() for path in {f"{at}.{name}"} | shape(part, f"{at}.{name}")}
    if isinstance(value, list):
        return {path for part in value for path in shape(part, f"{at}[]")}
    return set()
