"""Where things are kept: the ledger of records, the lake of tables, artifacts, events that came, measurements, and the SQL engine."""

from noria.store.artifacts import Artifacts
from noria.store.engine import Engine, Scan
from noria.store.events import LABELS_SOURCE, Appended, Event, EventLog, NewEvent
from noria.store.home import Home
from noria.store.lake import Commit, Fault, Lake
from noria.store.lease import Lease
from noria.store.ledger import Ledger
from noria.store.measurements import Measurements

__all__ = [
    "LABELS_SOURCE",
    "Appended",
    "Artifacts",
    "Commit",
    "Engine",
    "Event",
    "EventLog",
    "Fault",
    "Home",
    "Lake",
    "Lease",
    "Ledger",
    "Measurements",
    "NewEvent",
    "Scan",
]
