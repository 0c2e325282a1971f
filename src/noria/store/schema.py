"""The ledger's tables, and how a database gets them.

A new database gets them at once and is stamped with ``HEAD``; an older one is brought up by the migrations in
``migrations/`` (a test holds both ways to the same result); one that is up to date costs one query.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from noria.core import NotFound, Unavailable
from noria.store.dialect import WRITES, guards

HEAD = "0001"
MIGRATIONS = Path(__file__).parent / "migrations"
_big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

metadata = sa.MetaData()

entries = sa.Table(
    "entries",
    metadata,
    sa.Column("seq", _big, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("key", _key, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("parents", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Index("entries_kind_key_seq", "kind", "key", "seq"),
    sa.Index("entries_kind_seq", "kind", "seq"),
)

edges = sa.Table(
    "edges",
    metadata,
    sa.Column("parent", sa.Text, sa.ForeignKey("entries.id"), primary_key=True),
    sa.Column("child", sa.Text, sa.ForeignKey("entries.id"), primary_key=True),
)

commits = sa.Table(
    "commits",
    metadata,
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

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("token", sa.Text, nullable=False),
    sa.Column("place", sa.Text, nullable=False),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Column("renewed", sa.BigInteger, nullable=False),
    sa.Column("tick", sa.Float(53), nullable=False),
)

APPEND_ONLY = ("entries", "edges", "commits")

_version = sa.table("alembic_version", sa.column("version_num", sa.Text))


def prepare(engine: Engine, *, create: bool, write: bool) -> None:
    """Makes sure that the database has the tables of this version of Noria.

    Raises ``NotFound`` when it is empty and may not be created, ``Unavailable`` when it needs a migration and is open for reading
    only, or was written by a newer Noria.
    """
    version = _read_version(engine)
    if version == HEAD:
        return
    if version is None:
        if not (create and write):
            raise NotFound("there is no ledger here", hint="begin with `noria turn`, or check --home")
        _create(engine)
    elif int(version) > int(HEAD):
        raise Unavailable(
            f"this ledger was written by a newer Noria (its schema is {version}, this one knows {HEAD})", hint="update Noria"
        )
    elif not write:
        raise Unavailable(
            f"this ledger has the older schema {version} and is open for reading only", hint="run `noria turn` once"
        )
    else:
        migrate(engine)


def _read_version(engine: Engine) -> str | None:
    with engine.connect() as connection:
        try:
            return connection.execute(sa.select(_version.c.version_num)).scalar_one_or_none()
        except (sa.exc.OperationalError, sa.exc.ProgrammingError) as error:
            if "no such table" in str(error.orig) or "does not exist" in str(error.orig):
                return None
            raise


def _create(engine: Engine) -> None:
    with engine.connect().execution_options(**WRITES) as connection, connection.begin():
        if sa.inspect(connection).has_table("alembic_version"):
            return  # another process was first
        metadata.create_all(connection)
        add_guards(connection)
        connection.execute(sa.text("create table alembic_version (version_num varchar(32) not null primary key)"))
        connection.execute(_version.insert().values(version_num=HEAD))


def add_guards(connection: Connection) -> None:
    """Forbids the database itself to change or delete what was written."""
    for table in APPEND_ONLY:
        for statement in guards(connection.dialect.name, table):
            connection.exec_driver_sql(statement)


def migrate(engine: Engine, revision: str = "head") -> None:
    """Brings an older database to ``revision`` with Alembic (imported here: an up-to-date ledger never needs it)."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with engine.connect().execution_options(**WRITES) as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
