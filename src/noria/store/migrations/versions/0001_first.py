"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from noria.store.dialect import guards

revision = "0001"
down_revision = None

_big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "entries",
        sa.Column("seq", _big, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("key", _key, nullable=False, unique=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("parents", sa.Text, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
    )
    op.create_index("entries_kind_key_seq", "entries", ["kind", "key", "seq"])
    op.create_index("entries_kind_seq", "entries", ["kind", "seq"])
    op.create_table(
        "edges",
        sa.Column("parent", sa.Text, sa.ForeignKey("entries.id"), primary_key=True),
        sa.Column("child", sa.Text, sa.ForeignKey("entries.id"), primary_key=True),
    )
    op.create_table(
        "commits",
        sa.Column("n", _big, primary_key=True, autoincrement=True),
        sa.Column("lake_table", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("key", _key, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.Text, nullable=False),
        sa.Column("head", sa.Text, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("lake_table", "version", name="commits_version"),
        sa.UniqueConstraint("lake_table", "key", name="commits_key"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("renewed", sa.BigInteger, nullable=False),
        sa.Column("tick", sa.Float(53), nullable=False),
    )
    for table in ("entries", "edges", "commits"):
        for statement in guards(op.get_bind().dialect.name, table):
            op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    raise NotImplementedError("a ledger is never taken back to an older schema")
