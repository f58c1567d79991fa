"""Where alerts go: the log, a webhook, mail. Addresses are secrets and appear in no error or log.

A channel sends one message and says in a few words what it was answered, or raises NotDelivered.
"""

import logging
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

import structlog

from kalshi_platform.alerting.messages import Message, as_slack

if TYPE_CHECKING:
    from kalshi_platform.settings import Settings

TIMEOUT_SECONDS = 5.0
# Together they end within a turn of delivery.
_CONNECT_SECONDS = 2.5
# An answer of one plain word names what Slack holds against a message: invalid_payload.
_WORD = re.compile(r"[a-z_]{2,40}")
_READ_BYTES = 64


class NotDelivered(Exception):
    """The message was not accepted; the text says why, without the address.

    Args:
        sentence: for people.
        retry_seconds: how long the channel asks to be left alone.
    """

    def __init__(self, sentence: str, retry_seconds: float | None = None) -> None:
        super().__init__(sentence)
        self.retry_seconds = retry_seconds


class Channel(Protocol):
    """Something that takes messages."""

    name: str

    def send(self, message: Message) -> str:
        """Send it now; what was answered.

        Raises:
            NotDelivered: it was not accepted.
        """
        ...


def channels_of(settings: "Settings") -> dict[str, Channel]:
    """The channels that are configured, by name; the log always is."""
    found: list[Channel] = [Log()]
    if settings.alert_webhook_url is not None:
        found.append(Webhook(settings.alert_webhook_url.get_secret_value()))
    if settings.alert_smtp_url is not None:
        from kalshi_platform.alerting.mail import Mail

        url = settings.alert_smtp_url.get_secret_value()
        found.append(Mail(url, settings.alert_email_to, settings.alert_email_from))
    return {channel.name: channel for channel in found}


class Log:
    """A line of the process that looks, at the alert's level."""

    name = "log"

    def send(self, message: Message) -> str:
        alert = message.alert
        log = structlog.get_logger(__name__)
        if message.event == "recovered":
            log.warning("alert_recovered", alert=alert.name, recovery=message.sentence)
            return "written"
        level = logging.ERROR if alert.severity == "error" else logging.WARNING
        log.log(
            level,
            "alert_started",
            alert=alert.name,
            kind=alert.kind,
            summary=alert.summary,
            remedy=alert.remedy,
            link=alert.link,
        )
        return "written"


class Webhook:
    """A POST of JSON in Slack's format; any 2xx is taken for accepted."""

    name = "webhook"

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, message: Message) -> str:
        import httpx

        # At INFO it tells each address it calls.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        try:
            with (
                httpx.Client(
                    timeout=httpx.Timeout(TIMEOUT_SECONDS, connect=_CONNECT_SECONDS)
                ) as client,
                client.stream("POST", self._url, json=as_slack(message)) as answer,
            ):
                word = "" if answer.is_success else self._word(next(answer.iter_raw(), b""))
        except httpx.TimeoutException:
            raise NotDelivered(f"no answer within {TIMEOUT_SECONDS:.0f} s") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            raise NotDelivered("KALSHI_ALERT_WEBHOOK_URL is not an http(s) address") from None
        except httpx.HTTPError as error:
            # Their words may quote the address.
            raise NotDelivered(f"it cannot be reached ({type(error).__name__})") from None
        status = _status(answer.status_code)
        if answer.is_success:
            return f"accepted ({status})"
        retry = answer.headers.get("Retry-After", "")
        raise NotDelivered(
            f"refused with {status}{word}", float(retry) if retry.isdecimal() else None
        )

    def _word(self, body: bytes) -> str:
        word = body[:_READ_BYTES].decode(errors="replace").strip()
        # What is part of the address may be its secret.
        return f": {word}" if _WORD.fullmatch(word) and word not in self._url else ""


def _status(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)
