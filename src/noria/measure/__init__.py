"""What several steps measure alike: closed outcomes, decisions and their value, profiles of tables, slices."""

from noria.measure.before import before_acts
from noria.measure.decision import Decision, Policy, act, choose, outcome_means, parse_policy, worth_of_acts
from noria.measure.draws import held_out, uniforms
from noria.measure.given import Given, given
from noria.measure.keys import by_pairs, predicted_keys
from noria.measure.offpolicy import OtherPolicy, other_policy
from noria.measure.outcomes import blocks_of, closed, closed_until, scored_last, usable
from noria.measure.profile import Profile, against, distance, profile
from noria.measure.rails import OUTCOME, PER_PREDICTION, business_numbers, business_rails, outcome_of
from noria.measure.single import SingleAct, single_act
from noria.measure.slices import by_slice
from noria.measure.slicesearch import Slice, slice_search
from noria.measure.tally import numbers_of
from noria.measure.value import (
    bounds,
    columns_read,
    expected,
    known_labels,
    numeric_act,
    numeric_policy,
    policies,
    seen,
    value,
    without_label,
)

__all__ = [
    "OUTCOME",
    "PER_PREDICTION",
    "Decision",
    "Given",
    "OtherPolicy",
    "Policy",
    "Profile",
    "SingleAct",
    "Slice",
    "act",
    "against",
    "before_acts",
    "blocks_of",
    "bounds",
    "business_numbers",
    "business_rails",
    "by_pairs",
    "by_slice",
    "choose",
    "closed",
    "closed_until",
    "columns_read",
    "distance",
    "expected",
    "given",
    "held_out",
    "known_labels",
    "numbers_of",
    "numeric_act",
    "numeric_policy",
    "other_policy",
    "outcome_means",
    "outcome_of",
    "parse_policy",
    "policies",
    "predicted_keys",
    "profile",
    "scored_last",
    "seen",
    "single_act",
    "slice_search",
    "uniforms",
    "usable",
    "value",
    "without_label",
    "worth_of_acts",
]
