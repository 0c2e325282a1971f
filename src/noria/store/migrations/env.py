"""Alembic runs this; the connection comes from ``noria.store.schema.migrate``."""

from __future__ import annotations

from alembic import context

from noria.store.schema import metadata

if hasattr(context, "config"):  # not when somebody merely imports this file
    context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=False)
    context.run_migrations()
