"""Readiness: the ML Test Score, computed from what the ledger shows."""

from noria.readiness.score import Answer, Score, score, state
from noria.readiness.tests import SECTIONS, TESTS

__all__ = ["SECTIONS", "TESTS", "Answer", "Score", "score", "state"]
