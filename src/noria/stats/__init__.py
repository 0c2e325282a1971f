"""Statistics: arrays in, estimates out. No I/O, nothing drawn without a seed; blocks of time are the observations."""

from noria.stats.calibration import calibration_test, ece, logistic_fit, reliability
from noria.stats.distances import chi2, hellinger, jensen_shannon, ks, psi, wasserstein
from noria.stats.diversity import coverage, effective_number, entropy, evenness
from noria.stats.domain import crossed, domain_auc, nearest, rank_auc
from noria.stats.expected import expected
from noria.stats.interleaving import Preference, credit, interleave, preference
from noria.stats.intervals import around, block_mean, block_statistic, proportion
from noria.stats.labelshift import Shift, label_shift, shift_reference
from noria.stats.longrun import block_sums, inflation, mean_error
from noria.stats.metrics import METRICS, Metric, better, compute, estimate, linear, metric_named, paired, row_loss
from noria.stats.offpolicy import OffPolicy, effective_size, off_policy, support
from noria.stats.power import blocks_needed
from noria.stats.ratio import ratio, ratio_difference, ratio_sequence
from noria.stats.sequential import drawn_as_declared, excess, half_width, mean_sequence, rate_sequence, sample_ratio
from noria.stats.spread import Spread, ordinary, spread

__all__ = [
    "METRICS",
    "Metric",
    "OffPolicy",
    "Preference",
    "Shift",
    "Spread",
    "around",
    "better",
    "block_mean",
    "block_statistic",
    "block_sums",
    "blocks_needed",
    "calibration_test",
    "chi2",
    "compute",
    "coverage",
    "credit",
    "crossed",
    "domain_auc",
    "drawn_as_declared",
    "ece",
    "effective_number",
    "effective_size",
    "entropy",
    "estimate",
    "evenness",
    "excess",
    "expected",
    "half_width",
    "hellinger",
    "inflation",
    "interleave",
    "jensen_shannon",
    "ks",
    "label_shift",
    "linear",
    "logistic_fit",
    "mean_error",
    "mean_sequence",
    "metric_named",
    "nearest",
    "off_policy",
    "ordinary",
    "paired",
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
    "shift_reference",
    "spread",
    "support",
    "wasserstein",
]
