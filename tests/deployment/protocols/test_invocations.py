"""MLflow's forms all mean the same rows."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.deployment.service import invocations
from noria.deployment.service.contract import Reply

ROWS = [
    {"carrier": 'U,\n"A', "distance": 5, "delay": 0.25, "sunny": True, "planned": "2024-01-01T00:00:00Z"},
    {"carrier": "né", "distance": -7, "delay": 1e-7, "sunny": False, "planned": "2024-01-01T00:00:00+02:00"},
    {"carrier": "日本", "distance": 2**53 + 1, "delay": 3.0, "sunny": True, "planned": "2024-06-01T00:00:00Z"},
]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
LISTS = [list(row.values()) for row in ROWS]
FORMS: list[Any] = [
    {"dataframe_split": pd.DataFrame(ROWS).to_dict(orient="split")},
    {"dataframe_split": {"columns": list(ROWS[0])[::-1], "data": [one[::-1] for one in LISTS]}},
    {"dataframe_records": pd.DataFrame(ROWS).to_dict(orient="records")},
    {"instances": ROWS},
    {"instances": LISTS},
    {"inputs": ROWS},
    {"inputs": LISTS},
    {"inputs": COLUMNS},
]


def post(harness: Any, body: bytes, about: Any = None, fake: Any = None, **headers: str) -> Reply:
    said = {name.replace("_", "-"): text for name, text in headers.items()}
    service = fake or harness.Fake(about or harness.MIXED)
    reply: Reply = asyncio.run(invocations.invocations(service, harness.call(body, headers=said)))
    return reply


@pytest.mark.parametrize("form", FORMS, ids=lambda form: next(iter(form)))
def test_every_form_means_the_same_rows(harness: Any, form: Any) -> None:
    fake = harness.Fake()
    reply = post(harness, json.dumps(form).encode(), fake=fake, content_type="application/json; charset=utf-8")
    assert reply.status == 200, reply.body
    assert fake.asked == ROWS
    assert json.loads(reply.body) == {"predictions": [fake.one(row, index).score for index, row in enumerate(ROWS)]}


def test_csv_as_pandas_writes_it(harness: Any) -> None:
    fake = harness.Fake()
    frame = pd.DataFrame(ROWS).assign(note=["", "x", None])
    reply = post(harness, frame.to_csv(index=False).encode(), fake=fake, content_type="text/csv")
    assert reply.status == 200, reply.body
    assert fake.asked == [ROWS[0], ROWS[1] | {"note": "x"}, ROWS[2]]
    packed = gzip.compress(frame.to_csv(index=False).encode("utf-8-sig"))
    assert post(harness, packed, content_type="text/csv; charset=utf-8", content_encoding="gzip").body == reply.body


def test_the_whole_answer_when_asked(harness: Any) -> None:
    reply = post(harness, json.dumps({"instances": ROWS, "params": {"full": True}}).encode())
    found = json.loads(reply.body)["predictions"]
    assert [one["id"] for one in found] == [f"é{index}@20240101T000000Z" for index in range(3)]
    assert [one["review"] for one in found] == [False, False, True]
    assert found[2]["act"] is None


def test_an_array_has_one_type(harness: Any) -> None:
    fake = harness.Fake(harness.NUMBERS)
    assert post(harness, b'{"inputs": [[0.5, 2.0, 1.0]]}', fake=fake).status == 200
    assert [(type(value), value) for value in fake.asked[0].values()] == [(float, 0.5), (int, 2), (float, 1.0)]
    for wrong in (b"2.5", b"1e300", b"true", b'"2"'):
        reply = post(harness, b'{"inputs": [[0.5, %s, 1.0]]}' % wrong, harness.NUMBERS)
        assert (reply.status, json.loads(reply.body)["error"][:9]) == (422, "rows[0].b")


def test_several_classes_are_a_list_of_scores(harness: Any) -> None:
    rows = [[0.5, 1, 2.0], [1.5, 2, 3.0]]
    found = json.loads(post(harness, json.dumps({"inputs": rows}).encode(), harness.NUMBERS).body)["predictions"]
    assert [len(scores) for scores in found] == [3, 3]
    assert sum(found[0]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ({}, "the body does not have its rows in one form"),
        ({"inputs": ROWS, "instances": ROWS}, "the body does not have its rows in one form"),
        ({"columns": [], "data": []}, "columns: there is no such field"),
        ([], "the body: it is not an object"),
        ({"instances": []}, "instances: it is empty"),
        ({"instances": "secret"}, "instances: it is not a list"),
        ({"instances": [ROWS[0], 3]}, "instances[1]: it is not an object"),
        ({"instances": [[1]]}, "instances[0]: it does not have 5 values"),
        ({"dataframe_records": LISTS}, "dataframe_records[0]: it is not an object"),
        ({"dataframe_records": [ROWS[0] | {"distance": "secret"}]}, "rows[0].distance"),
        ({"dataframe_records": [ROWS[0] | {"delay": None}]}, "rows[0].delay"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}, "dataframe_split.columns: a column comes twice"),
        ({"dataframe_split": {"columns": ["a"], "data": [[1], [1, 2]]}}, "dataframe_split.data[1]: it does not have 1 values"),
        ({"dataframe_split": {"columns": ["a"]}}, "dataframe_split.data: it is missing"),
        ({"inputs": COLUMNS | {"delay": [1]}}, "inputs.delay: it does not have 3 values"),
        ({"inputs": {}}, "inputs: it is empty"),
        ({"inputs": {"secret place": 1}}, "inputs.…: it is not a list"),
        ({"instances": [[0] * 5] * 10_001}, "instances: there are more than 10000 rows"),
        ({"instances": ROWS, "params": {"full": 1}}, "params.full: it is not a boolean"),
        ({"instances": ROWS, "params": {"temperature": 1}}, "params.temperature: there is no such field"),
    ],
)
def test_a_wrong_body_is_named(harness: Any, said: Any, place: str) -> None:
    reply = post(harness, json.dumps(said).encode())
    assert (reply.status, json.loads(reply.body)["error"][: len(place)]) == (422, place)
    assert b"secret" not in reply.body


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "the body is empty"),
        ("carrier\n", "rows: it is empty"),
        ("a,a\n1,2\n", "the header has a column twice"),
        ("a,b\n1,2\n1\n", "rows[1]: it does not have 2 fields"),
        ('carrier\n"secret\n', "the body is not CSV"),
        ("carrier,distance,delay,sunny,planned\nUA,1,nan,true,2024-01-01T00:00:00Z\n", "rows[0].delay"),
        ("carrier,distance,delay,sunny,planned\nUA,1_0,1,true,2024-01-01T00:00:00Z\n", "rows[0].distance"),
        ("carrier,distance,delay,sunny,planned\nUA,1,1,secret,2024-01-01T00:00:00Z\n", "rows[0].sunny"),
        ("carrier,distance,delay,sunny,planned\nUA,,1,true,2024-01-01T00:00:00Z\n", "rows[0].distance"),
        ("carrier\n" + "x" * 200_000, "the body is not CSV"),
    ],
)
def test_wrong_csv_is_named(harness: Any, text: str, place: str) -> None:
    reply = post(harness, text.encode(), content_type="text/csv")
    assert (reply.status, json.loads(reply.body)["error"][: len(place)]) == (422, place)
    assert b"secret" not in reply.body


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_body_breaks_it(harness: Any, body: bytes) -> None:
    assert post(harness, body, content_type="text/csv").status == 422
    assert post(harness, body).status == 422


def test_other_kinds_of_body_are_refused(harness: Any) -> None:
    assert post(harness, b"x", content_type="application/x-www-form-urlencoded").status == 415
    assert post(harness, b"x", content_encoding="br").status == 415


def test_the_pages_by_which_tools_see_that_it_is_up(served: Any) -> None:
    for path in ("/ping", "/health"):
        status, _, body = served.get(path)
        assert (status, body) == (200, b"\n")
    status, headers, body = served.get("/version")
    assert (status, headers["content-type"], body) == (200, "text/plain; charset=utf-8", b"0.1.0")


def test_no_ping_without_a_release(harness: Any) -> None:
    fake = harness.Fake()
    fake.able = False
    assert asyncio.run(invocations.ping(fake, harness.call())).status == 503
