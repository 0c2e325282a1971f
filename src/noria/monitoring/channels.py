"""Where alerts go: standard output, a file of JSON lines, a webhook, or e-mail. Each sends one message, or raises ``Unavailable``
(``Permanent`` where it was refused for good: 4xx, or 5xx of SMTP).

A channel is a URL in the setting ``alerts``, and nothing else: no record and no request can name one. ``#least=page`` behind it
keeps back what is less urgent; without it webhooks and mail get pages and tickets, standard output and files everything.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from noria.core import SettingsError, Unavailable, canonical, digest
from noria.monitoring.message import Message

TIMEOUT = 5.0
TRIES = 2
ANSWER = 65_536
NOT_NOW = (408, 429)
"""The answers of a web server below 500 that another try may change."""
LEAST = ("note", "ticket", "page")
KINDS = ("stdout", "file", "http", "https", "smtp", "smtps")
HINT = "write for example stdout, file:alerts.jsonl, https://hooks.example.org/x, or smtp://mail.example.org:25?from=a@b.org&to=c@d.org"


class Permanent(Unavailable):
    """A channel took a message's connection and refused the message itself: the same message again will be refused again."""


@dataclass(frozen=True)
class Channel:
    """One place that alerts go to. ``name`` is safe to show (no password, no path of a webhook), ``id`` is the same for the same URL."""

    id: str
    name: str
    kind: str
    least: str
    send: Callable[[Message], None]


def channels(setting: str, *, folder: Path | None = None, json: bool = False) -> list[Channel]:
    """The channels of the setting ``alerts``; raises ``SettingsError`` for what is none.

    ``folder`` is where the path of a file begins; with ``json`` the standard output is kept for something else, and alerts go to
    standard error.

    >>> [channel.name for channel in channels("stdout, smtps://ada:secret@mail.example.org?from=a@b.org&to=c@d.org")]
    ['stdout', 'smtps://mail.example.org']
    """
    made = [_channel(text.strip(), folder or Path(), json) for text in setting.split(",") if text.strip()]
    return list({channel.id: channel for channel in _joined(setting, made)}.values())


def _joined(setting: str, made: list[Channel]) -> list[Channel]:
    if len(made) > 16:
        raise SettingsError(f"the setting alerts names {len(made)} channels ({len(setting)} letters)", hint="16 at most")
    return made


def _channel(text: str, folder: Path, json: bool) -> Channel:
    try:
        url = urlsplit(text if text != "stdout" else "stdout:")
    except ValueError:
        raise SettingsError("the setting alerts has a URL that cannot be read", hint=HINT) from None
    kind = url.scheme
    if kind in ("http", "https") and not all("!" <= letter <= "~" for letter in text):
        raise SettingsError(
            f"the setting alerts has {_shown(url)!r} with letters that no URL has", hint="write them as %20 and so on"
        )
    options = {name: values[-1] for name, values in parse_qs(url.fragment, keep_blank_values=True).items()}
    least = options.get("least", "note" if kind in ("stdout", "file") else "ticket")
    if kind not in KINDS:
        raise SettingsError(f"the setting alerts has {_shown(url)!r}, which is no channel", hint=HINT)
    if least not in LEAST or set(options) - {"least"}:
        raise SettingsError(
            f"the setting alerts has {_shown(url)!r} with something else than #least=", hint="#least= is page, ticket or note"
        )
    if kind == "stdout":
        send = _printer(json)
    elif kind == "file":
        if not url.path:
            raise SettingsError("the setting alerts has a file without a path", hint=HINT)
        send = _file(folder / unquote(url.path))
    elif kind in ("http", "https"):
        if not url.hostname or url.username or _port(url, 1) is None:
            raise SettingsError(f"the setting alerts has {_shown(url)!r}, which names no host", hint=HINT)
        send = lambda message: _post(url, message)  # noqa: E731
    else:
        send = _mail(url)
    return Channel(digest([text])[:16], _shown(url), kind, least, send)


def _shown(url: SplitResult) -> str:
    """A channel as it may be shown: what is behind a host may be a secret."""
    if url.scheme == "file":
        return f"file:{url.path}"
    return f"{url.scheme}://{url.hostname}" if url.hostname else url.scheme or url.path[:32]


def _port(url: SplitResult, default: int) -> int | None:
    try:
        return url.port or default
    except ValueError:
        return None


# --------------------------------------------------------------------------------------------------- standard output, file


def _printer(json: bool) -> Callable[[Message], None]:
    def send(message: Message) -> None:
        out = sys.stderr if json else sys.stdout
        print(f"{message.subject}\n{message.text}", file=out, flush=True)

    return send


def _file(path: Path) -> Callable[[Message], None]:
    def send(message: Message) -> None:
        line = canonical(message.data) + b"\n"
        try:
            where = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                written = os.write(where, line)
                os.fsync(where)
            finally:
                os.close(where)
        except OSError as error:
            raise Unavailable(f"cannot write {path}: {error.strerror}") from None
        if written < len(line):
            raise Unavailable(f"{path} took {written} of {len(line)} bytes: the disk is full")

    return send


# ----------------------------------------------------------------------------------------------------------------- webhook


def addresses(host: str, port: int, *, plain: bool = False) -> list[str]:
    """The addresses of a host that may be talked to, looked up once; raises ``Unavailable`` when there is none.

    Never those of the link itself (where clouds hand out credentials), multicast or unspecified ones; without encryption (``plain``) only
    those of this machine and of private networks.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"the host {host} is not known: {error.strerror}") from None
    allowed = []
    for *_, address in found:
        ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
        ip = getattr(ip, "ipv4_mapped", None) or ip
        if ip.is_link_local or ip.is_multicast or ip.is_unspecified or (plain and not ip.is_private):
            continue
        allowed.append(str(address[0]))
    if not allowed:
        why = "use https beyond your own network" if plain else "link-local and multicast addresses are refused"
        raise Unavailable(f"the host {host} has no address that may be called: {why}")
    return list(dict.fromkeys(allowed))


def _post(url: SplitResult, message: Message) -> None:
    """POSTs a message as JSON, with its id as ``Idempotency-Key``. Redirects are not followed; an answer of 2xx is a delivery."""
    import http.client
    import ssl

    host, secure = url.hostname or "", url.scheme == "https"
    port = _port(url, 443 if secure else 80) or 0
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    headers = {"Content-Type": "application/json", "Idempotency-Key": message.id, "User-Agent": "noria", "Connection": "close"}
    connection: http.client.HTTPConnection
    for left in reversed(range(TRIES)):
        try:
            place = addresses(host, port, plain=not secure)[0]
            plain = socket.create_connection((place, port), timeout=TIMEOUT)
            connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
            connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host) if secure else plain
            try:
                connection.request("POST", target, canonical(message.data), headers)
                answer = connection.getresponse()
                answer.read(ANSWER)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            if not left:
                raise Unavailable(f"{url.scheme}://{host} did not take it: {error or type(error).__name__}") from None
            continue
        if 200 <= answer.status < 300:
            return
        refused = 400 <= answer.status < 500 and answer.status not in NOT_NOW
        if not left or (answer.status < 500 and answer.status not in NOT_NOW):
            raise (Permanent if refused else Unavailable)(f"{url.scheme}://{host} answered {answer.status}")


# ------------------------------------------------------------------------------------------------------------------ e-mail


def _mail(url: SplitResult) -> Callable[[Message], None]:
    """Sends by SMTP; a login goes over TLS only (``smtps:``, or ``starttls=true``)."""
    options = {name: values[-1] for name, values in parse_qs(url.query).items()}
    sender, receivers = options.get("from", ""), [one.strip() for one in options.get("to", "").split(";") if one.strip()]
    starttls = options.get("starttls", "false") == "true"
    port = _port(url, 465 if url.scheme == "smtps" else 25)
    if not url.hostname or port is None or not sender or not receivers or set(options) - {"from", "to", "starttls"}:
        raise SettingsError(
            f"the setting alerts has {_shown(url)!r}, which is no address for mail", hint=f"{HINT}; several after to= by ;"
        )
    if any(letter in one for one in (sender, *receivers) for letter in "\r\n"):
        raise SettingsError(f"the setting alerts has {_shown(url)!r} with a line break in an address", hint=HINT)
    if url.username and url.scheme == "smtp" and not starttls:
        raise SettingsError(
            f"the setting alerts has {_shown(url)!r} with a password that would be sent in the clear",
            hint="add starttls=true, or use smtps:",
        )
    host, secure = url.hostname, url.scheme == "smtps"
    login = (unquote(url.username), unquote(url.password or "")) if url.username else None

    def send(message: Message) -> None:
        import smtplib
        import ssl

        mail = message.mail(sender, receivers)
        try:
            addresses(host, port)
            server: Any = (
                smtplib.SMTP_SSL(host, port, timeout=TIMEOUT, context=ssl.create_default_context())
                if secure
                else smtplib.SMTP(host, port, timeout=TIMEOUT)
            )
            with server:
                if starttls:
                    server.starttls(context=ssl.create_default_context())
                if login is not None:
                    server.login(*login)
                server.send_message(mail)
        except (OSError, smtplib.SMTPException) as error:
            said = f"{url.scheme}://{host} did not take it: {type(error).__name__}: {_without(error, login)}"
            raise (Permanent if _for_good(error) else Unavailable)(said) from None

    return send


def _for_good(error: Exception) -> bool:
    """Whether a mail server refused a mail with 5xx; of several receivers, all of them."""
    import smtplib

    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in error.recipients.values())
    return isinstance(error, smtplib.SMTPResponseException) and error.smtp_code >= 500


def _without(error: Exception, login: tuple[str, str] | None) -> str:
    """An error's text without the password, should a server repeat it."""
    text = str(error)[:200]
    return text.replace(login[1], "…") if login is not None and login[1] else text
