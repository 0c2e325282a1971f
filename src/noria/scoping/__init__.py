"""Scoping: is ML worth it here? Writes the ``Charter``."""

from noria.scoping.charter import charter, due, examine

__all__ = ["charter", "due", "examine"]
