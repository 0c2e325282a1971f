"""The second step: data comes in, is verified, becomes rows to predict, labels, and training sets.

Of the tables it writes ``source.<name>``, ``quarantine`` and ``outcomes``; of the records ``SchemaFrozen``, ``Ingested``, ``Blocked``, ``Verified``,
``CohortClosed``, ``Relabelled``, ``Snapshot`` and ``TrainingSet``.
"""

from noria.data.check import check
from noria.data.history import history_columns, history_features, last_column, seasonal_column
from noria.data.ingest import ingest
from noria.data.labels import close
from noria.data.relabel import relabel
from noria.data.spine import spine
from noria.data.training import TrainingFrames, labelled, recalibration_set, snapshot, training_set
from noria.data.verify import verify

__all__ = [
    "TrainingFrames",
    "check",
    "close",
    "history_columns",
    "history_features",
    "ingest",
    "labelled",
    "last_column",
    "recalibration_set",
    "relabel",
    "seasonal_column",
    "snapshot",
    "spine",
    "training_set",
    "verify",
]
