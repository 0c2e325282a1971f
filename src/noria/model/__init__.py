"""Packaged models: the encoder, the predictors, and the bundle that holds them safely.

A bundle scores rows and knows nothing of money, time or traffic. ``pack`` and ``load`` are the whole door; ``python -m
noria.model.verify FILE`` opens a bundle in a clean process.
"""

from noria.model.blend import Blend
from noria.model.bundle import GOLDEN_ROWS, Bundle, Golden, Model, Spec, check_parity, load, pack
from noria.model.calibration import Calibration
from noria.model.design import Design, fit_design
from noria.model.encoder import Column, Encoder, fit_encoder, masked
from noria.model.predictors import Constant, Linear, Passthrough, Rule, Trees, linear_from, trees_from

__all__ = [
    "GOLDEN_ROWS",
    "Blend",
    "Bundle",
    "Calibration",
    "Column",
    "Constant",
    "Design",
    "Encoder",
    "Golden",
    "Linear",
    "Model",
    "Passthrough",
    "Rule",
    "Spec",
    "Trees",
    "check_parity",
    "fit_design",
    "fit_encoder",
    "linear_from",
    "load",
    "masked",
    "pack",
    "trees_from",
]
