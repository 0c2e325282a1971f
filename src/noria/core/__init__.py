"""The vocabulary: clock, ids, estimates, windows, errors. Imports nothing else of Noria."""

from noria.core.clock import Clock, SimulatedClock, SystemClock, stopwatch
from noria.core.errors import (
    Conflict,
    Corrupt,
    DataFault,
    DeclarationError,
    LeaseLost,
    NoriaError,
    NotEnoughData,
    NotFound,
    Problem,
    Refused,
    SettingsError,
    Unavailable,
)
from noria.core.estimate import Check, Estimate, Verdict, overall
from noria.core.ids import canonical, check_name, digest, digest_bytes, quoted
from noria.core.window import Window, duration, duration_text, floor, from_micros, micros, parse_time, windows

__all__ = [
    "Check",
    "Clock",
    "Conflict",
    "Corrupt",
    "DataFault",
    "DeclarationError",
    "Estimate",
    "LeaseLost",
    "NoriaError",
    "NotEnoughData",
    "NotFound",
    "Problem",
    "Refused",
    "SettingsError",
    "SimulatedClock",
    "SystemClock",
    "Unavailable",
    "Verdict",
    "Window",
    "canonical",
    "check_name",
    "digest",
    "digest_bytes",
    "duration",
    "duration_text",
    "floor",
    "from_micros",
    "micros",
    "overall",
    "parse_time",
    "quoted",
    "stopwatch",
    "windows",
]
