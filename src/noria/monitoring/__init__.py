"""Monitoring: windows of traffic and of closed outcomes, alerts, and the one retraining policy."""

from noria.monitoring.alerts import alert, open_alerts
from noria.monitoring.retraining import (
    STALE,
    gate_key,
    given_up,
    last_order,
    retraining,
    span_closed,
    span_needed,
    stands,
    unmet,
)
from noria.monitoring.watch import watch

__all__ = [
    "STALE",
    "alert",
    "gate_key",
    "given_up",
    "last_order",
    "open_alerts",
    "retraining",
    "span_closed",
    "span_needed",
    "stands",
    "unmet",
    "watch",
]
