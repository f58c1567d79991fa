"""Alerts as mail: over STARTTLS (smtp://) or TLS from the first byte (smtps://)."""

import contextlib
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from time import monotonic
from urllib.parse import SplitResult, unquote, urlsplit

from kalshi_platform.alerting.channels import TIMEOUT_SECONDS, NotDelivered
from kalshi_platform.alerting.messages import Message, as_mail

_PORTS = {"smtp": 587, "smtps": 465}
# The whole conversation; each of its answers has its own, shorter time.
_CONVERSATION_SECONDS = 7.0
_LONGEST_REPLY = 200
_LOCAL = ("localhost", "127.0.0.1", "::1")


class Mail:
    """One mail a message, to all addresses at once.

    Args:
        url: smtp://user:password@host:587 or smtps://…; user and password may be left out.
        to: addresses with commas between them.
        sender: None: the first of those.
        tls: how servers are trusted; None: as the system does.
    """

    name = "smtp"

    def __init__(
        self, url: str, to: str | None, sender: str | None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._url = url
        self._to = [address.strip() for address in (to or "").split(",") if address.strip()]
        self._sender = sender
        self._tls = tls

    def send(self, message: Message) -> str:
        parts, port = self._parts()
        if not self._to:
            raise NotDelivered("KALSHI_ALERT_EMAIL_TO names no address")
        sender = self._sender or self._to[0]
        mail = as_mail(
            message,
            sender=sender,
            recipients=", ".join(self._to),
            domain=sender.rpartition("@")[2].strip(" >") or "localhost",
        )
        try:
            began = monotonic()
            with (
                self._connected(parts, port) as server,
                _bounded(server, _CONVERSATION_SECONDS - (monotonic() - began)),
            ):
                self._secure(server, parts)
                if parts.username:
                    server.login(unquote(parts.username), unquote(parts.password or ""))
                refused = server.send_message(mail, from_addr=sender, to_addrs=self._to)
        except smtplib.SMTPAuthenticationError as error:
            # Its words may quote what was sent.
            raise NotDelivered(f"user or password are refused ({error.smtp_code})") from None
        except smtplib.SMTPRecipientsRefused as error:
            raise NotDelivered(f"no address is accepted: {_replies(error.recipients)}") from None
        except smtplib.SMTPResponseException as error:
            raise NotDelivered(
                f"refused with {error.smtp_code} {self._reply(error.smtp_error)}"
            ) from None
        except TimeoutError:
            raise NotDelivered(f"no answer within {TIMEOUT_SECONDS:.0f} s") from None
        except ssl.SSLCertVerificationError as error:
            raise NotDelivered(
                f"the server's certificate is not trusted: {error.verify_message}"
            ) from None
        except smtplib.SMTPServerDisconnected as error:
            # smtplib says so of an answer that did not come in time, too.
            late = isinstance(error.__context__, TimeoutError)
            seconds = f"no answer within {TIMEOUT_SECONDS:.0f} s"
            raise NotDelivered(seconds if late else "the server hung up") from None
        except (smtplib.SMTPException, OSError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else ""
            raise NotDelivered(f"it cannot be reached ({why or type(error).__name__})") from None
        if refused:
            return f"accepted, but not for all: {_replies(refused)}"
        return "accepted"

    def _parts(self) -> tuple[SplitResult, int]:
        try:
            parts = urlsplit(self._url)
            port = parts.port or _PORTS[parts.scheme]
        except (ValueError, KeyError):
            raise NotDelivered(_USAGE) from None
        if not parts.hostname:
            raise NotDelivered(_USAGE)
        return parts, port

    def _connected(self, parts: SplitResult, port: int) -> smtplib.SMTP:
        assert parts.hostname is not None, "asked before"
        if parts.scheme == "smtps":
            return smtplib.SMTP_SSL(
                parts.hostname, port, timeout=TIMEOUT_SECONDS, context=self._context()
            )
        return smtplib.SMTP(parts.hostname, port, timeout=TIMEOUT_SECONDS)

    def _secure(self, server: smtplib.SMTP, parts: SplitResult) -> None:
        """Encrypt where the server can; a password never goes out in the clear."""
        server.ehlo()
        if parts.scheme == "smtp" and server.has_extn("starttls"):
            server.starttls(context=self._context())
            server.ehlo()
        elif parts.scheme == "smtp" and parts.username and parts.hostname not in _LOCAL:
            raise NotDelivered("the server offers no TLS, so it is not told the password")

    def _context(self) -> ssl.SSLContext:
        return self._tls or ssl.create_default_context()

    def _reply(self, reply: bytes | str) -> str:
        text = reply.decode(errors="replace") if isinstance(reply, bytes) else reply
        password = unquote(urlsplit(self._url).password or "")
        if password:
            text = text.replace(password, "…")
        return " ".join(text.split())[:_LONGEST_REPLY]


_USAGE = "KALSHI_ALERT_SMTP_URL must read smtp://user:password@host:587 or smtps://…"


def _replies(refused: dict[str, tuple[int, bytes]]) -> str:
    return "; ".join(f"{address}: {code}" for address, (code, _) in refused.items())


@contextlib.contextmanager
def _bounded(server: smtplib.SMTP, seconds: float) -> Iterator[None]:
    """Cut the conversation when it takes too long in all, however lively its parts are."""

    def cut() -> None:
        if server.sock is not None:
            with contextlib.suppress(OSError):
                server.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, seconds), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
