"""The report says what the ledger says, asks for nothing, and shows a user's words as words."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

import noria as nr
from noria.business import summary
from noria.records import Released
from noria.store import Home
from noria.web import facts, report, series
from noria.web.summary import business_text

VOID = {"meta", "link", "br", "hr", "img", "input", "rect", "line", "circle", "path", "wbr"}
OUTSIDE = re.compile(r"https?://(?!www\.w3\.org/)")


class Page(HTMLParser):
    """A page taken apart: its tags, its ids and the ids that it points to; unbalanced tags are remembered."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def values(self, attribute: str) -> list[str]:
        return [value for _, attrs in self.tags if (value := attrs.get(attribute)) is not None]


@pytest.fixture(scope="module")
def text(year: Home, system: nr.System) -> str:
    return report(year, system)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_it_is_one_whole_document(page: Page) -> None:
    assert page.open == []
    assert page.unbalanced == []
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = {value[1:] for value in page.values("href") if value.startswith("#")}
    assert targets <= set(ids)
    assert len([name for name in ids if name.startswith("r-")]) > 20


def test_it_asks_for_nothing_and_runs_nothing(text: str, page: Page) -> None:
    tags = {tag for tag, _ in page.tags}
    assert tags.isdisjoint({"script", "iframe", "object", "embed", "link", "base", "form", "foreignobject"})
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert OUTSIDE.findall(text) == []
    assert all(value.startswith("#") for value in page.values("href") + page.values("xlink:href") + page.values("src"))
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy


def test_a_users_words_are_words(text: str) -> None:
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_it_is_the_same_for_the_same_ledger(text: str, year: Home, system: nr.System) -> None:
    assert report(year, system) == text


def test_every_number_of_the_card_names_its_record(text: str, year: Home) -> None:
    card = text[text.index('id="card"') : text.index('id="records"')]
    cited = set(re.findall(r'href="#r-([0-9a-f]{8})"', card))
    kinds = {year.ledger.get(next(e.id for e in year.ledger.read() if e.id.startswith(short))).kind for short in cited}
    assert {"trained", "released", "training_set", "evaluated", "gated", "charter"} <= kinds


def test_money_is_that_of_the_accounts(text: str, year: Home, system: nr.System) -> None:
    found = summary(year, system)
    assert facts.amount(found["total"], "USD") in text
    last = {point.series: point.value for point in series.cumulative(year)}
    assert last["this system"] == pytest.approx(found["total"])
    assert last["always act"] == pytest.approx(found["policies"]["always act"])
    said = business_text(year, system)
    assert facts.amount(found["total"]) in said
    assert "327,659 predictions" in said
    assert "since release 1 (2013-03-02)" in said


def test_an_empty_home_gives_a_page_too(empty: Home, system: nr.System) -> None:
    page = Page(report(empty, system))
    assert page.unbalanced == []
    words = " ".join(page.words)
    assert "Nothing is released yet" in words
    assert "No cohort is closed yet" in words


def test_the_wheel_shows_where_to_go_back(year: Home, system: nr.System) -> None:
    state = facts.wheel(year, system)
    assert [spoke.step for spoke in state.spokes] == list(facts.STEPS)
    assert state.back is not None
    assert state.back.to == "development"
    assert {spoke.step: spoke.state for spoke in state.spokes} == {
        "scoping": "good",
        "data": "unsure",
        "development": "good",
        "deployment": "good",
        "monitoring": "unsure",
        "business": "unsure",
    }
    assert f"release {year.ledger.count(Released)} (boosting) serves" in {spoke.says for spoke in state.spokes}


def test_alerts_last_from_opening_to_resolution(year: Home) -> None:
    spans = {span.name: span for span in facts.alert_spans(year)}
    assert (spans["value temp"].end - spans["value temp"].start).days == 30
    assert spans["drift temp"].end is None
    assert [alert.record.name for alert in facts.open_alerts(year)] == ["drift"]


def test_labels_by_month_add_up(year: Home) -> None:
    rows = facts.maturity(year)
    assert [f"{row.start:%m}" for row in rows] == [f"{month:02d}" for month in range(1, 13)]
    assert sum(row.closed for row in rows) == sum(entry.record.n for entry in facts.cohorts(year))
    assert all(row.silent <= row.labelled <= row.closed <= row.asked for row in rows)
    assert rows[0].mean == pytest.approx(0.24, abs=0.05)


def test_rolling_intervals_need_ten_windows(year: Home) -> None:
    mine = [point for point in series.weekly_value(year) if point.series == "this system"]
    assert mine[0].low is None
    assert all(point.low is not None and point.high is not None and point.low <= point.value <= point.high for point in mine[2:])
    performance = series.weekly_performance(year, "log_loss")
    assert {point.series for point in performance} == {"model", "base rate", "last label"}


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium to look at the page with")
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_draws_it(text: str, tmp_path: Path, width: int) -> None:
    """Chromium draws it without asking for anything, and nothing is wider than the window, on a phone either."""
    probe = "<style>html{background:#000}</style>"
    file, shot = tmp_path / "report.html", tmp_path / "shot.png"
    file.write_text(text.replace("</head>", probe + "</head>"), encoding="utf-8")
    frame = tmp_path / "frame.html"
    measure = "f.contentDocument?f.contentDocument.documentElement.scrollWidth:0"
    frame.write_text(
        f'<body style="margin:0"><iframe id="f" src="report.html" style="border:0;width:{width}px;height:900px"></iframe>'
        f"<script>const f=document.getElementById('f');f.onload=()=>{{document.title=String({measure})}}</script>"
    )
    common = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}",
    ]  # fmt: skip
    dumped = subprocess.run(
        [*common, "--dump-dom", frame.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    title = re.search(r"<title>(\d+)</title>", dumped)
    assert title is not None
    assert 0 < int(title[1]) <= width
    subprocess.run(
        [*common, f"--window-size={max(width, 500)},900", f"--screenshot={shot}", file.as_uri()],
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert shot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert shot.stat().st_size > 20_000
