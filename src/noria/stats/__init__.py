"""Statistics: arrays in, estimates out. No I/O, nothing drawn without a seed; blocks of time are the observations."""

from noria.stats.calibration import calibration_test, ece, logistic_fit, reliability
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
from noria.stats.interleaving import Preference, credit, interleave, preference
from noria.stats.intervals import around, block_mean, block_statistic, proportion, t_quantile
from noria.stats.longrun import block_sums, inflation, mean_error
from noria.stats.metrics import METRICS, Metric, better, compute, estimate, linear, metric_named, paired, row_loss
from noria.stats.offpolicy import OffPolicy, effective_size, off_policy, support
from noria.stats.power import blocks_needed
from noria.stats.ratio import ratio, ratio_difference, ratio_sequence
from noria.stats.sequential import drawn_as_declared, excess, half_width, mean_sequence, rate_sequence, sample_ratio
from noria.stats.slopes import Slope, partial_slope, pooled, scaled

__all__ = [
    "METRICS",
    "Metric",
    "OffPolicy",
    "Preference",
    "Slope",
    "around",
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
    "cramers_v",
    "credit",
    "drawn_as_declared",
    "ece",
    "effective_size",
    "estimate",
    "excess",
    "excess_flips",
    "half_width",
    "hellinger",
    "inflation",
    "interleave",
    "jensen_shannon",
    "jensen_shannon_each",
    "ks",
    "linear",
    "logistic_fit",
    "mean_error",
    "mean_sequence",
    "metric_named",
    "off_policy",
    "paired",
    "partial_slope",
    "pooled",
    "preference",
    "proportion",
    "psi",
    "rate_sequence",
    "ratio",
    "ratio_difference",
    "ratio_sequence",
    "reliability",
    "row_loss",
    "sample_ratio",
    "scaled",
    "support",
    "suspects",
    "t_quantile",
    "wasserstein",
    "wasserstein_binned",
]
