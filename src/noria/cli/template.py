"""The declaration that ``noria init`` writes: it passes ``noria check`` for the named files, and marks what was guessed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import polars as pl

from noria.core import NotFound, SettingsError


def declaration(name: str, files: list[Path], folder: Path) -> str:
    """The text of a declaration over ``files`` (rows to be predicted, where the label comes from, others), as if it lay in ``folder``."""
    if not files:
        raise SettingsError("no files were named", hint="noria init NAME predicted.parquet outcomes.parquet …")
    schemas = {file: _schema(file) for file in files}
    names = _source_names(files)
    predicted, labelled = files[0], files[1] if len(files) > 1 else files[0]
    keys = _keys(schemas[predicted], schemas[labelled])
    lines = [f'"""{name}: say here in one sentence what is predicted, and when it is asked."""', "", "import noria as nr", ""]
    for file in files:
        lines += _source(names[file], file, schemas[file], folder, keys)
    lines += _system(name, (names[predicted], schemas[predicted]), (names[labelled], schemas[labelled]), keys)
    return "\n".join(lines) + "\n"


def requested(name: str, given: str) -> str:
    """The text of a declaration of a system that is asked by HTTP only; ``given`` is the request: ``customer:VARCHAR,amount:DOUBLE``.

    >>> "amount" in requested("loans", "customer:VARCHAR,amount:DOUBLE")
    True
    """
    columns = _request(given)
    key = next((column for column in columns if column == "id" or column.endswith(("_id", "key"))), next(iter(columns)))
    quoted = ", ".join(f'"{column}"' for column in columns if column != key) or f'"{key}"'
    return (
        "\n".join(
            [
                f'"""{name}: say here in one sentence what is predicted, and when it is asked."""',
                "",
                "import noria as nr",
                "",
                "request = nr.Request(",
                "    {",
                *(f'        "{column}": "{kind}",' for column, kind in columns.items()),
                "    },",
                f'    key="{key}",  # guessed: what tells entities apart',
                ")",
                "# no file: what became of it comes by POST /v1/outcomes, or as events by POST /v1/events/outcomes",
                f'outcomes = nr.Source("outcomes", key="{key}", time="at", owner="somebody")  # mend: who answers for this data',
                "",
                *_system_head(name, "request", "one prediction a request"),
                "        outcomes,",
                "        'happened',  # SQL over the events of outcomes",
                '        within="1d",  # mend: how long after asking the label may still come',
                "        # otherwise=False,  # when silence means no; without it silence is no label",
                '        task="binary",',
                "    ),",
                f"    features=[outcomes.columns({quoted})],  # columns of the request as they are; add .last(...) and .window(...) of sources",
                *_system_tail(),
            ]
        )
        + "\n"
    )


def _request(given: str) -> dict[str, str]:
    pairs = [part.partition(":") for part in re.split(r",(?![^(]*\))", given)]
    columns = {name.strip(): kind.strip().upper() for name, _, kind in pairs}
    if len(columns) < len(pairs) or not all(re.fullmatch(r"[A-Za-z]\w*", name) and kind for name, kind in columns.items()):
        raise SettingsError(f"--request {given} is no list of columns", hint='write for example "customer:VARCHAR,amount:DOUBLE"')
    return columns


def _system_head(name: str, asked: str, why: str) -> list[str]:
    return ["system = nr.System(", f'    name="{name}",', f"    predict={asked},  # {why}", "    label=nr.Label("]


def _system_tail() -> list[str]:
    return [
        '    decide=nr.Decide("act when expected value > 0"),',
        "    objective=nr.Objective(",
        '        problem="Say here what this costs the business today, in words.",  # mend',
        '        value=nr.Value("case when act and label then 1 when act then -1 else 0 end", "EUR"),  # mend: what an act is worth',
        '        metric="log_loss",',
        "    ),",
        "    candidates=[nr.Prior(), nr.Linear(), nr.Boosting()],",
        ")",
    ]


def _schema(file: Path) -> dict[str, pl.DataType]:
    if not file.is_file():
        raise NotFound(f"there is no file {file}", hint="name Parquet or CSV files that are there")
    try:
        frame = pl.scan_csv(file, try_parse_dates=True) if file.suffix == ".csv" else pl.scan_parquet(file)
        return dict(frame.collect_schema())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SettingsError(f"{file} cannot be read: {error}", hint="init reads Parquet and CSV") from None


def _source_names(files: list[Path]) -> dict[Path, str]:
    found: dict[Path, str] = {}
    for file in files:
        base = re.sub(r"[^a-z0-9_]+", "_", file.stem.lower()).strip("_") or "source"
        base = base if base[0].isalpha() else f"s_{base}"
        taken = set(found.values())
        found[file] = next(n for n in (base, *(f"{base}_{k}" for k in range(2, 99))) if n not in taken)
    return found


def _keys(one: dict[str, pl.DataType], other: dict[str, pl.DataType]) -> str:
    """A column that both have and that looks like an id."""
    shared = [
        column
        for column, kind in one.items()
        if column in other and kind == other[column] and not kind.is_temporal() and not kind.is_float()
    ]
    named = [column for column in shared if column == "id" or column.endswith(("_id", "key"))]
    return (named or shared or list(one))[0]


def _time(schema: dict[str, pl.DataType]) -> str:
    zoned = [column for column, kind in schema.items() if isinstance(kind, pl.Datetime) and kind.time_zone]
    other = [column for column, kind in schema.items() if kind.is_temporal()]
    return (zoned or other or ["time"])[0]


def _source(name: str, file: Path, schema: dict[str, pl.DataType], folder: Path, key: str) -> list[str]:
    path = Path(os.path.relpath(file.resolve(), folder)).as_posix()
    own = key if key in schema else next((column for column, kind in schema.items() if kind == pl.String), next(iter(schema)))
    return [
        f"# columns: {', '.join(schema)}",
        f"{name} = nr.Source(",
        f'    "{name}",',
        f'    "{path}",',
        f'    key="{own}",  # guessed: what tells entities apart',
        f'    time="{_time(schema)}",  # guessed: when it happened; it needs a time zone',
        '    # known="1h",  # when a row can be used: a delay after its time, or a column',
        '    owner="somebody",  # mend: who answers for this data',
        ")",
        "",
    ]


def _system(
    name: str,
    predicted: tuple[str, dict[str, pl.DataType]],
    labelled: tuple[str, dict[str, pl.DataType]],
    key: str,
) -> list[str]:
    (asked, schema), (outcome, label) = predicted, labelled
    flags = [column for column, kind in label.items() if kind == pl.Boolean]
    numbers = [column for column, kind in label.items() if kind.is_numeric() and column != key]
    expression = f'"{flags[0]}"' if flags else f'"{numbers[0]}" > 0' if numbers else "true"
    otherwise = "" if flags or numbers else ", otherwise=False"
    apart = {key, _time(schema)} | ({flags[0]} if flags and asked == outcome else set())
    columns = [c for c, kind in schema.items() if c not in apart and (kind.is_numeric() or kind in (pl.String, pl.Boolean))]
    quoted = ", ".join(f'"{column}"' for column in columns[:8]) or f'"{key}"'
    return [
        *_system_head(name, asked, "one prediction a row, as of its time"),
        f"        {outcome},",
        f"        {expression!r},  # guessed: SQL over {outcome}'s columns",
        f'        within="1d"{otherwise},  # mend: how long after asking the label may still come',
        *(
            []
            if otherwise
            else ["        # otherwise=False,  # when rows that never come mean no; without it they have no label"]
        ),
        '        task="binary",',
        "    ),",
        f"    features=[{asked}.columns({quoted})],  # guessed; add .last(...) and .window(...) of other sources",
        *_system_tail(),
    ]
