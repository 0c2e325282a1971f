"""Alerts are sent: over real sockets, once for each entry, never lost, and never more than they should be."""

from __future__ import annotations

import base64
import json
import smtplib
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import noria as nr
from noria.core import Estimate, SettingsError, SystemClock, Unavailable
from noria.monitoring import channels as module
from noria.monitoring.channels import addresses, channels
from noria.monitoring.message import message
from noria.monitoring.outbox import deliver, due, prepare, standings
from noria.records import Alerted, Entry
from noria.settings import Settings
from noria.store import Home

SINCE = datetime(2021, 3, 1, tzinfo=UTC)


# --------------------------------------------------------------------------------------------------------------- servers


@contextmanager
def running(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def webhook(answers: list[int], headers: dict[str, str] | None = None) -> Iterator[tuple[str, list[Any]]]:
    """A web server that answers with these codes (the last one for ever), and what it was sent."""
    got: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, dict(self.headers), json.loads(body)))
            self.send_response(answers[min(len(got), len(answers)) - 1])
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"http://127.0.0.1:{port}/hook?key=s", got


@contextmanager
def post_office(certificate: Path | None = None) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """An SMTP server (RFC 5321 as far as a client needs it, STARTTLS, AUTH PLAIN) and what it received."""
    got: list[dict[str, Any]] = []

    class Handler(socketserver.StreamRequestHandler):
        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def finish(self) -> None:
            super().finish()
            self.connection.close()

        def handle(self) -> None:
            seen: dict[str, Any] = {"to": [], "tls": False, "login": None}
            self.say("220 here")
            while line := self.rfile.readline():
                word, _, rest = line.decode().strip().partition(" ")
                if word.upper() == "EHLO":
                    offers = ["STARTTLS"] if certificate and not seen["tls"] else ["AUTH PLAIN"]
                    self.wfile.write("".join(f"250-{one}\r\n" for one in ["here", *offers]).encode() + b"250 8BITMIME\r\n")
                elif word.upper() == "STARTTLS":
                    self.say("220 go")
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                    context.load_cert_chain(str(certificate))
                    try:
                        self.connection = context.wrap_socket(self.connection, server_side=True)
                    except ssl.SSLError:  # the client does not trust it
                        return
                    self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
                    seen["tls"] = True
                elif word.upper() == "AUTH":
                    seen["login"] = base64.b64decode(rest.split()[1]).split(b"\0")[1:]
                    self.say("235 welcome")
                elif word.upper() == "RCPT":
                    seen["to"].append(rest)
                    self.say("250 ok")
                elif word.upper() == "DATA":
                    self.say("354 go")
                    lines = []
                    while (part := self.rfile.readline()) != b".\r\n":
                        lines.append(part)
                    got.append(seen | {"mail": message_from_bytes(b"".join(lines), policy=policy.default)})
                    self.say("250 taken")
                elif word.upper() == "QUIT":
                    self.say("221 bye")
                    return
                else:
                    self.say("250 ok")

    with running(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as port:
        yield port, got


# ----------------------------------------------------------------------------------------------------------------- homes


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with Home.open(tmp_path / "home", Settings(durable=False), SystemClock()) as made, made.hold("test"):
        yield made


def say(home: Home, name: str = "decay", state: Any = "open", severity: Any = "page", step: int = 0) -> Entry[Alerted]:
    alert = f"alert/{name}/x/{SINCE.isoformat()}"
    record = Alerted(
        alert=alert, name=name, subject="x", state=state, since=SINCE, harm=severity == "page", size=Estimate(0.1, 0.05, 0.2, 7),
        bound=0.3, message=f"{name} is {state}", severity=severity, cost=Estimate(120.0, 80.0, 160.0, 7), slice="carrier=AA",
        with_it=("drift/weather",), runbook="docs/runbooks.md#decay",
    )  # fmt: skip
    return home.commit(record, key=f"{alert}/{state}/{step}")


def sends(home: Home, system: nr.System, url: str) -> list[str]:
    return deliver(home, system, channels(url))


# ----------------------------------------------------------------------------------------------------------------- tests


def test_a_webhook_gets_each_entry_once_with_all_that_is_known(home: Home, told: Any) -> None:
    system = told.declaration()
    say(home, "value")  # before the channel: old
    with webhook([200]) as (url, got):
        prepare(home, channels(url))
        entry = say(home)
        say(home, "slice", severity="note")
        assert sends(home, system, url) == []
        assert sends(home, system, url) == []
        [(path, headers, body)] = got
        assert path == "/hook?key=s"
        assert headers["Idempotency-Key"] == entry.id == body["id"]
        assert (body["alert"], body["severity"], body["slice"]) == (entry.record.alert, "page", "carrier=AA")
        assert body["cost"] == {"value": 120.0, "low": 80.0, "high": 160.0, "n": 7, "currency": "USD"}
        for part in (
            "decay is open",
            "since",
            "0.1 [0.05, 0.2]",
            "carrier=AA",
            "120 [80, 160] USD",
            "noria ack",
            "drift/weather",
        ):
            assert part in body["text"]
        say(home, state="acknowledged")
        say(home, state="resolved")
        assert sends(home, system, url) == []
        assert [one["state"] for *_, one in got] == ["open", "resolved"]


def test_a_channel_that_fails_is_tried_again_and_stops_nothing(home: Home, told: Any) -> None:
    system = told.declaration()
    with webhook([503, 503, 400, 204]) as (url, got):
        prepare(home, channels(url))
        say(home)
        [wrong] = sends(home, system, url)  # two tries
        assert "503" in wrong
        assert "key=s" not in wrong
        [standing] = standings(home, channels(url))
        assert (standing.sent, standing.waiting) == (0, 1)
        assert "503" in standing.error
        [wrong] = sends(home, system, url)
        assert "400" in wrong
        assert sends(home, system, url) == []
        assert len(got) == 4
        assert len({body["id"] for *_, body in got}) == 1
        assert standings(home, channels(url))[0].waiting == 0
    say(home, "value")
    assert "did not take it" in sends(home, system, url)[0]  # nobody listens any more


def test_what_is_refused_for_good_keeps_nothing_waiting_and_is_given_up(home: Home, told: Any) -> None:
    """Two entries get 400 for ever: the third goes out at once, they are tried three times in all, and the standing says so."""
    system = told.declaration()
    with webhook([400, 400, 200, 400, 400, 400, 400, 200]) as (url, got):
        prepare(home, channels(url))
        say(home), say(home, "value"), say(home, "slice")
        assert "400" in sends(home, system, url)[0]
        [standing] = standings(home, channels(url))
        assert (standing.sent, standing.waiting, standing.given_up) == (1, 2, 0)
        assert "given up" not in sends(home, system, url)[0]
        assert "alert/decay/x/2021-03-01T00:00:00+00:00 is given up" in sends(home, system, url)[0]
        [standing] = standings(home, channels(url))
        assert (standing.sent, standing.waiting, standing.error, standing.given_up) == (1, 0, "", 2)
        assert "400" in standing.refusal
        say(home, "guardrail")
        assert sends(home, system, url) == []
        assert [body["name"] for *_, body in got] == ["decay", "value", "slice", "decay", "value", "decay", "value", "guardrail"]


def test_which_refusals_of_a_mail_server_are_for_good() -> None:
    mail = module._for_good
    assert mail(smtplib.SMTPDataError(554, b"no"))
    assert mail(smtplib.SMTPRecipientsRefused({"a": (550, b"who")}))
    assert not mail(smtplib.SMTPRecipientsRefused({"a": (550, b"who"), "b": (451, b"later")}))
    assert not mail(smtplib.SMTPDataError(451, b"later"))
    assert not mail(smtplib.SMTPServerDisconnected("gone"))


def test_killed_between_sending_and_marking_is_sent_twice_and_never_lost(home: Home, told: Any, monkeypatch: Any) -> None:
    system = told.declaration()
    with webhook([200]) as (url, got):
        [channel] = channels(url)
        prepare(home, [channel])
        say(home)

        def killed(one: Any) -> None:
            channel.send(one)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            deliver(home, system, [type(channel)(channel.id, channel.name, channel.kind, channel.least, killed)])
        assert deliver(home, system, [channel]) == []
        assert deliver(home, system, [channel]) == []
        assert [body["id"] for *_, body in got] == [got[0][2]["id"]] * 2


def test_redirects_and_addresses_of_the_link_are_refused(home: Home, told: Any, monkeypatch: Any) -> None:
    with webhook([200]) as (elsewhere, other), webhook([302], {"Location": elsewhere}) as (url, got):
        prepare(home, channels(url))
        say(home)
        assert "302" in sends(home, told.declaration(), url)[0]
        assert len(got) == 1
        assert other == []
    for host in ("169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "::ffff:169.254.169.254"):
        with pytest.raises(Unavailable, match="refused"):
            addresses(host, 80)
    with pytest.raises(Unavailable, match="https"):
        addresses("8.8.8.8", 80, plain=True)
    assert addresses("8.8.8.8", 443) == ["8.8.8.8"]
    assert addresses("127.0.0.1", 80, plain=True) == ["127.0.0.1"]
    monkeypatch.setattr(module.socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("169.254.169.254", 80))])
    with pytest.raises(Unavailable, match="refused"):
        addresses("harmless.example", 443)


def test_mail_goes_over_smtp(home: Home, told: Any) -> None:
    with post_office() as (port, got):
        url = f"smtp://127.0.0.1:{port}?from=noria@example.org&to=ada@example.org;bob@example.org"
        prepare(home, channels(url))
        entry = say(home)
        assert sends(home, told.declaration(), url) == []
        [one] = got
        assert len(one["to"]) == 2
        mail = one["mail"]
        assert mail["Subject"] == "[page] story: decay (x) since 2021-03-01 00:00"
        assert mail["Message-ID"] == f"<{entry.id[:32]}@noria>"
        assert "runbook:  docs/runbooks.md#decay" in mail.get_content()
        assert (one["tls"], one["login"]) == (False, None)


def test_a_login_goes_over_tls_with_a_certificate_that_is_checked(
    home: Home, told: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    both = tmp_path / "both.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    made += [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        str(both),
        "-out",
        str(tmp_path / "c.pem"),
    ]
    subprocess.run(made, check=True, capture_output=True)
    both.write_text(both.read_text() + (tmp_path / "c.pem").read_text())
    with post_office(both) as (port, got):
        url = f"smtp://ada:p%40ss@localhost:{port}?from=a@b.org&to=c@d.org&starttls=true"
        prepare(home, channels(url))
        say(home)
        [wrong] = sends(home, told.declaration(), url)
        assert "CERTIFICATE" in wrong.upper()
        assert "p@ss" not in wrong
        assert got == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "c.pem"))
        assert sends(home, told.declaration(), url) == []
        assert (got[0]["tls"], got[0]["login"]) == (True, [b"ada", b"p@ss"])


def test_files_and_standard_output_get_everything(home: Home, told: Any, tmp_path: Path, capsys: Any) -> None:
    url = f"stdout, file:{tmp_path / 'alerts.jsonl'}, file:{tmp_path / 'none' / 'x'}"
    prepare(home, channels(url))
    say(home)
    say(home, "drift", severity="note")
    [wrong] = sends(home, told.declaration(), url)
    assert "cannot write" in wrong
    assert [json.loads(line)["name"] for line in (tmp_path / "alerts.jsonl").read_text().splitlines()] == ["decay", "drift"]
    assert "[note] story: drift" in capsys.readouterr().out


def test_nothing_is_sent_of_history(tmp_path: Path, begin: Any, told: Any) -> None:
    story = begin()
    url = f"file:{tmp_path / 'alerts.jsonl'}"
    prepare(story.home, channels(url))
    say(story.home)
    assert sends(story.home, story.system, url) == []
    assert not (tmp_path / "alerts.jsonl").exists()
    assert not (story.home.path / "deliveries.db").exists()


def test_what_is_told_of_an_alert(home: Home) -> None:
    """Opening, a rise, the end of a mute, and the resolution; not acknowledging, muting, widening."""
    first = say(home, severity="note")
    widened = say(home, severity="note", step=1)
    rise = say(home, severity="page", step=2)
    say(home, state="acknowledged", severity="page")
    say(home, state="muted", severity="page")
    back = say(home, severity="page", step=3)
    over = say(home, state="resolved")
    entries = home.ledger.read(Alerted)
    assert [e.id for e in due(entries, 0, "note")] == [first.id, rise.id, back.id, over.id]
    assert [e.id for e in due(entries, 0, "ticket")] == [rise.id, back.id, over.id]
    assert [e.id for e in due(entries, widened.seq, "note")] == [rise.id, back.id, over.id]
    assert due(entries, over.seq, "note") == []
    muted = say(home, "value", severity="page")
    say(home, "value", state="muted")
    say(home, "value", state="resolved")
    assert [e.id for e in due(home.ledger.read(Alerted), over.seq, "note")] == [muted.id]


@pytest.mark.parametrize(
    "url",
    ["ftp://x", "https://", "file:", "smtp://h", "smtp://h?from=a@b.org", "smtp://u:secret@h?from=a@b&to=c@d", "https://h#least=never", "x",
     "https://h/x#secret", "http://[secret", "https://h/secret x",
     "https://h:99999999", "smtp://h?from=a%0d%0aBcc:x@y&to=c@d"],
)  # fmt: skip
def test_a_wrong_channel_is_said_without_its_secret(url: str) -> None:
    with pytest.raises(SettingsError) as error:
        channels(url)
    assert "secret" not in str(error.value)


def test_a_subject_cannot_bring_headers(home: Home, told: Any) -> None:
    entry = say(home)
    import msgspec

    bad = msgspec.structs.replace(entry, record=msgspec.structs.replace(entry.record, subject="x\r\nBcc: all@example.org"))
    mail = message(told.declaration(), bad).mail("a@b.org", ["c@d.org"])
    assert mail["Bcc"] is None
    assert "\n" not in mail["Subject"]


def test_two_that_deliver_at_once_leave_it_to_one(home: Home, told: Any, tmp_path: Path) -> None:
    url = f"file:{tmp_path / 'alerts.jsonl'}"
    given = channels(url)
    prepare(home, given)
    say(home)
    nested: list[list[str]] = []
    first = given[0]

    def send(one: Any) -> None:
        nested.append(deliver(home, told.declaration(), given))
        first.send(one)

    assert deliver(home, told.declaration(), [type(first)(first.id, first.name, first.kind, first.least, send)]) == []
    assert nested == [[]]
    assert len((tmp_path / "alerts.jsonl").read_text().splitlines()) == 1


def test_an_entry_is_dated_when_it_was_made(home: Home, told: Any) -> None:
    entry = say(home)
    sent = message(told.declaration(), entry).mail("a@b.org", ["c@d.org"])["Date"].datetime
    assert abs(sent - entry.at) < timedelta(seconds=1)
