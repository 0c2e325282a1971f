"""What the newest records of the metric link say: a rule beside those of ``rules``, for it reads other records than windows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from noria.core import Estimate, Verdict
from noria.monitoring.facts import Finding
from noria.records import Linked
from noria.store import Home

NAME = "metric link"
IN_A_ROW = 2


def findings_of_link(home: Home, after: Callable[[str, str], datetime | None]) -> list[Finding]:
    """The finding on the link, once there is a record of it.

    Raised when the last two estimates, a week apart, both failed; cleared when the last two did not and one of them passed. It is harm when a better metric went with
    a worse value, and a fact when it brought nothing. ``after`` tells when it was last resolved: only later estimates count.
    """
    entries = home.ledger.read(Linked, newest=IN_A_ROW)
    if not entries:
        return []
    newest = entries[-1].record
    since = after(NAME, newest.metric)
    last = [entry.record for entry in entries if since is None or entry.record.window.end > since]
    failed = [record for record in last if record.verdict is Verdict.FAIL]
    raised = len(failed) == IN_A_ROW
    cleared = len(last) == IN_A_ROW and not failed and any(record.verdict is Verdict.PASS for record in last)
    begun = (failed[0] if failed else newest).window.end
    harm = any(record.account.startswith("broken") for record in failed)
    slope = next((newest.by[name] for name in ("windows lately", "windows") if harm and name in newest.by), newest.slope)
    said = f"the link from {newest.metric} to value is {newest.account}"
    return [Finding(NAME, newest.metric, "outcome", harm, raised, cleared, begun, _size(slope), 0.0, said)]


def _size(slope: Estimate) -> Estimate:
    return slope if slope.value is not None else Estimate(None, n=slope.n)
