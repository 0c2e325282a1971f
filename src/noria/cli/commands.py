"""Every command in one list: its name, where it is written, and one sentence. The overview and the docs are made from it."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """``target`` is ``module:function`` under ``noria.cli``; it is imported when the command is called."""

    name: str
    target: str
    about: str


GROUPS: dict[str, tuple[Command, ...]] = {
    "Declare": (
        Command("init", "declare:init", "Write a declaration to start from, for the files or the request you name."),
        Command("check", "declare:check", "Find every mistake in a declaration, each with its place."),
        Command("diff", "declare:diff", "Show what differs between two declarations, or two records."),
    ),
    "Turn the wheel": (
        Command("turn", "wheel:turn", "Do what is due now, once."),
        Command("up", "wheel:up", "Keep turning, serve predictions, and keep the report fresh."),
        Command("serve", "wheel:serve", "Serve predictions only."),
        Command("replay", "replay:replay", "Run history through the same code under a simulated clock."),
    ),
    "Single steps": (
        Command("scope", "steps:scope", "Answer whether ML is worth it here: the charter."),
        Command("train", "steps:train", "Train, evaluate and gate the candidates now."),
        Command("gate", "steps:gate", "Show the gate's verdict on the newest candidate, check by check."),
        Command("predict", "steps:predict", "Score rows, or a file of them, with the champion as of a moment."),
        Command("estimate", "estimate:estimate", "Estimate what another policy would have made, from the log."),
    ),
    "Decide": (
        Command("approve", "decide:approve", "Sign a release that waits for a person, or refuse it."),
        Command("review", "review:review", "Show the predictions that wait for a person, or decide on one."),
        Command("weights", "weights:weights", "Show or change the weights of combined objectives, without training."),
        Command("promote", "decide:promote", "Make a bundle the champion by hand."),
        Command("rollback", "decide:rollback", "Go back to the champion before."),
        Command("drill", "drill:drill", "Rehearse a rollback on a copy, under load, and time it."),
        Command("ack", "decide:ack", "Acknowledge an open alert."),
        Command("repair", "decide:repair", "Look the stored bytes over, and mend what can be mended."),
    ),
    "Look": (
        Command("status", "look:status", "Show the wheel: each step's state and since when."),
        Command("report", "look:report", "Write the report as one HTML page."),
        Command("value", "value:value", "Show what the decisions were worth, by what, net of costs."),
        Command("diagnose", "diagnosis:diagnose", "Show what is wrong, why, and which step to return to."),
        Command("labels", "labels:labels", "Show how mature the labels are, which are doubted; take in corrections."),
        Command("trace", "look:trace", "Go from a prediction or a record back to the raw files."),
        Command(
            "readiness", "readiness:readiness", "Compute the ML Test Score from evidence, and what to do for the next point."
        ),
        Command("story", "story:story", "Tell the thirteen steps on a simulated stream, trap by trap."),
    ),
}

COMMANDS: tuple[Command, ...] = tuple(command for group in GROUPS.values() for command in group)


def overview() -> str:
    """The text of ``noria --help``.

    >>> "replay" in overview()
    True
    """
    lines = ["noria: the whole lifecycle of a machine-learning system as one closed loop", ""]
    lines += ["Usage: noria COMMAND [system.py] [OPTIONS]", ""]
    for title, commands in GROUPS.items():
        lines.append(f"{title}:")
        lines += [f"  {command.name:<10}{command.about}" for command in commands]
        lines.append("")
    lines += [
        "Every command takes --help, --json and --home. Without a file it reads ./system.py, and keeps everything",
        "in .noria/NAME beside it. Settings come from NORIA_… variables: see docs/reference/settings.md.",
        "Other options: --version, --install-completion.",
    ]
    return "\n".join(lines)
