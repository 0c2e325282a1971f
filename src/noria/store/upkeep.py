"""Care of the lake's files: joining small ones, removing what nothing refers to, checking, and repairing."""

from __future__ import annotations

from noria.store.lake import Fault, Lake


def upkeep(lake: Lake) -> None:
    """See ``Lake.upkeep``."""


def check(lake: Lake, *, deep: bool) -> list[Fault]:
    """See ``Lake.check``."""
    return []


def repair(lake: Lake, *, accept_loss: bool) -> list[str]:
    """See ``Lake.repair``."""
    return []
