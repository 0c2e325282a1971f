"""The thirteen steps: the life of an advertising model, with every trap that it meets, told as it happens on a simulated stream."""

from noria.story.tell import Chapter, Trap, plain, tell

__all__ = ["Chapter", "Trap", "plain", "tell"]
