"""Statistics: arrays in, estimates out. No I/O, nothing drawn without a seed; blocks of time are the observations."""

from noria.stats.calibration import calibration_test, ece, logistic_fit, reliability
from noria.stats.change import Shape, begun, moved, shape
from noria.stats.distances import chi2, hellinger, jensen_shannon, ks, psi, wasserstein
from noria.stats.interleaving import Preference, credit, interleave, preference
from noria.stats.intervals import around, block_mean, block_statistic, proportion
from noria.stats.longrun import block_sums, inflation, mean_error
from noria.stats.metrics import METRICS, Metric, better, compute, estimate, linear, metric_named, paired, row_loss
from noria.stats.offpolicy import OffPolicy, effective_size, off_policy, support
from noria.stats.power import blocks_needed
from noria.stats.ratio import ratio, ratio_difference, ratio_sequence
from noria.stats.sequential import drawn_as_declared, excess, half_width, mean_sequence, rate_sequence, sample_ratio

__all__ = [
    "METRICS",
    "Metric",
    "OffPolicy",
    "Preference",
    "Shape",
    "around",
    "begun",
    "better",
    "block_mean",
    "block_statistic",
    "block_sums",
    "blocks_needed",
    "calibration_test",
    "chi2",
    "compute",
    "credit",
    "drawn_as_declared",
    "ece",
    "effective_size",
    "estimate",
    "excess",
    "half_width",
    "hellinger",
    "inflation",
    "interleave",
    "jensen_shannon",
    "ks",
    "linear",
    "logistic_fit",
    "mean_error",
    "mean_sequence",
    "metric_named",
    "moved",
    "off_policy",
    "paired",
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
    "shape",
    "support",
    "wasserstein",
]
