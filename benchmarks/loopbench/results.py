"""What a run left in its ledger, as plain data, and the file of results: one JSON line a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from noria.core import Check, Verdict
from noria.records import Alerted, Blocked, Diagnosed, Verified
from noria.store import Home


def read(home: Home, after: int) -> dict[str, Any]:
    """Alerts, blocks, failed verifications and diagnoses since the entry ``after``."""
    alerts = [
        {
            "at": entry.at.isoformat(),
            "name": entry.record.name,
            "subject": entry.record.subject,
            "state": entry.record.state,
            "harm": entry.record.harm,
            "severity": entry.record.severity,
            "since": entry.record.since.isoformat(),
            "message": entry.record.message,
        }
        for entry in home.ledger.read(Alerted, after=after)
    ]
    blocked = [
        {"at": e.at.isoformat(), "source": e.record.source, "reason": e.record.reason}
        for e in home.ledger.read(Blocked, after=after)
    ]
    verified = [
        {"at": e.at.isoformat(), "source": e.record.source, "checks": [_check(check) for check in e.record.checks]}
        for e in home.ledger.read(Verified, after=after)
        if e.record.verdict is Verdict.FAIL
    ]
    diagnosed = [
        {
            "at": entry.at.isoformat(),
            "symptoms": list(entry.record.symptoms),
            "back_to": entry.record.back_to,
            "blocks": entry.record.blocks_retraining,
            "causes": [
                {
                    "name": cause.name,
                    "verdict": str(cause.verdict),
                    "weight": cause.weight,
                    "step": cause.step,
                    "evidence": [_check(check) for check in cause.evidence],
                }
                for cause in entry.record.causes
            ],
        }
        for entry in home.ledger.read(Diagnosed, after=after)
    ]
    return {"alerts": alerts, "blocked": blocked, "verified": verified, "diagnosed": diagnosed}


def _check(check: Check) -> dict[str, Any]:
    value = check.estimate.value if check.estimate is not None else None
    return {"name": check.name, "verdict": str(check.verdict), "subject": check.subject, "value": value, "detail": check.detail}


def load(path: Path) -> Iterator[dict[str, Any]]:
    """Every result of a file; a line that was cut off by a kill is left out."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue
