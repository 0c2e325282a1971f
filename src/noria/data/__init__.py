"""The second step: data comes in, is verified, becomes rows to predict, labels, and training sets.

Of the tables it writes ``source.<name>``, ``quarantine`` and ``outcomes``; of the records ``SchemaFrozen``, ``Ingested``, ``Blocked``, ``Verified``,
``CohortClosed``, ``Snapshot`` and ``TrainingSet``.
"""

from noria.data.ingest import ingest
from noria.data.labels import close
from noria.data.spine import spine

__all__ = ["close", "ingest", "spine"]
