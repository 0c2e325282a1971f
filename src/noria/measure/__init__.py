"""What several steps measure alike: closed outcomes, decisions and their value, profiles of tables, slices."""

from noria.measure.decision import Decision, Policy, act, choose, outcome_means, parse_policy
from noria.measure.outcomes import blocks_of, closed, closed_until, usable
from noria.measure.profile import Profile, against, distance, profile
from noria.measure.slices import by_slice
from noria.measure.value import bounds, columns_read, expected, known_labels, numeric_act, policies, seen, value, without_label

__all__ = [
    "Decision",
    "Policy",
    "Profile",
    "act",
    "against",
    "blocks_of",
    "bounds",
    "by_slice",
    "choose",
    "closed",
    "closed_until",
    "columns_read",
    "distance",
    "expected",
    "known_labels",
    "numeric_act",
    "outcome_means",
    "parse_policy",
    "policies",
    "profile",
    "seen",
    "usable",
    "value",
    "without_label",
]
