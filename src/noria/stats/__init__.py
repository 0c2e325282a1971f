"""Statistics: arrays in, estimates out. No I/O, nothing drawn without a seed; blocks of time are the observations."""

from noria.stats.calibration import calibration_test, ece, logistic_fit, reliability
from noria.stats.change import Shape, begun, episodes, moved, shape
from noria.stats.confident import confident_joint, excess_flips, suspects
from noria.stats.distances import (
    chi2,
    chi2_p,
    cramers_v,
    hellinger,
    jensen_shannon,
    jensen_shannon_each,
    ks,
    psi,
    wasserstein,
    wasserstein_binned,
)
from noria.stats.diversity import coverage, effective_number, entropy, evenness
from noria.stats.domain import crossed, domain_auc, nearest, rank_auc
from noria.stats.expected import expected
from noria.stats.interleaving import Preference, credit, interleave, preference
from noria.stats.intervals import around, block_mean, block_statistic, proportion, t_quantile
from noria.stats.labelshift import Shift, label_shift, shift_reference
from noria.stats.longrun import block_sums, inflation, mean_error
from noria.stats.metrics import METRICS, Metric, better, compute, estimate, linear, metric_named, paired, row_loss
from noria.stats.offpolicy import OffPolicy, effective_size, off_policy, support
from noria.stats.power import blocks_needed
from noria.stats.ratio import ratio, ratio_difference, ratio_sequence
from noria.stats.sequential import drawn_as_declared, excess, half_width, mean_sequence, rate_sequence, sample_ratio
from noria.stats.slopes import Slope, partial_slope, pooled, scaled
from noria.stats.spread import Spread, ordinary, spread

__all__ = [
    "METRICS",
    "Metric",
    "OffPolicy",
    "Preference",
    "Shape",
    "Shift",
    "Slope",
    "Spread",
    "around",
    "begun",
    "better",
    "block_mean",
    "block_statistic",
    "block_sums",
    "blocks_needed",
    "calibration_test",
    "chi2",
    "chi2_p",
    "compute",
    "confident_joint",
    "coverage",
    "cramers_v",
    "credit",
    "crossed",
    "domain_auc",
    "drawn_as_declared",
    "ece",
    "effective_number",
    "effective_size",
    "entropy",
    "episodes",
    "estimate",
    "evenness",
    "excess",
    "excess_flips",
    "expected",
    "half_width",
    "hellinger",
    "inflation",
    "interleave",
    "jensen_shannon",
    "jensen_shannon_each",
    "ks",
    "label_shift",
    "linear",
    "logistic_fit",
    "mean_error",
    "mean_sequence",
    "metric_named",
    "moved",
    "nearest",
    "off_policy",
    "ordinary",
    "paired",
    "partial_slope",
    "pooled",
    "preference",
    "proportion",
    "psi",
    "rank_auc",
    "rate_sequence",
    "ratio",
    "ratio_difference",
    "ratio_sequence",
    "reliability",
    "row_loss",
    "sample_ratio",
    "scaled",
    "shape",
    "shift_reference",
    "spread",
    "support",
    "suspects",
    "t_quantile",
    "wasserstein",
    "wasserstein_binned",
]
