"""From shadow to full: the rules by which a release moves, the evidence they look at, and the moves themselves."""

from noria.deployment.rollout.arms import days_to_decision
from noria.deployment.rollout.moves import advance, begin, promote, rollback
from noria.deployment.rollout.planning import Planned, planned

__all__ = ["Planned", "advance", "begin", "days_to_decision", "planned", "promote", "rollback"]
