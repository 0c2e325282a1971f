"""Where things are kept: the ledger of records, the lake of tables, artifacts, measurements, and the SQL engine over them."""

from noria.store.artifacts import Artifacts
from noria.store.engine import Engine, Scan
from noria.store.home import Home
from noria.store.lake import Commit, Fault, Lake
from noria.store.lease import Lease
from noria.store.ledger import Ledger
from noria.store.measurements import Measurements

__all__ = ["Artifacts", "Commit", "Engine", "Fault", "Home", "Lake", "Lease", "Ledger", "Measurements", "Scan"]
