"""What a message says: one at an alert's start, one at its end; as text, for Slack, as mail."""

from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any, NamedTuple

from kalshi_platform.storage.reads.alerts import Alert
from kalshi_platform.storage.writes.alerts import Event

# Slack refuses a block with more.
_LONGEST_BLOCK = 2900


class Message(NamedTuple):
    """An alert's start or end, ready to be told."""

    alert: Alert
    event: Event

    @property
    def subject(self) -> str:
        """One line: `ERROR stale feed`, `RECOVERED stale feed`."""
        word = self.alert.severity.upper() if self.event == "started" else "RECOVERED"
        return f"{word} {self.alert.name}"

    @property
    def sentence(self) -> str:
        """What is wrong; or that it is over, and for how long it was not."""
        if self.event == "started":
            return self.alert.summary
        return f"{self.alert.recovery} It lasted {_lasted(self.alert)}."

    @property
    def text(self) -> str:
        """All of it, line by line."""
        lines = [f"{self.subject}: {self.sentence}"]
        if self.event == "started":
            lines.append(f"What to do: {self.alert.remedy}")
        if self.alert.link is not None:
            lines.append(self.alert.link)
        lines.append(f"Since {instant(self.alert.started_at)}.")
        return "\n".join(lines)


def as_slack(message: Message) -> dict[str, Any]:
    """The body of a POST to an incoming webhook of Slack, or of whatever reads its format."""
    alert = message.alert
    blocks = [_section(f"*{_escaped(message.subject)}*\n{_escaped(message.sentence)}")]
    if message.event == "started":
        blocks.append(_section(f"*What to do:* {_escaped(alert.remedy)}"))
    notes = [f"since {instant(alert.started_at)}"]
    if alert.link is not None:
        notes.append(f"<{_escaped(alert.link)}|open in Dagster>")
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": " · ".join(notes)}]})
    return {"text": _escaped(message.text), "blocks": blocks}


def as_mail(message: Message, *, sender: str, recipients: str, domain: str) -> EmailMessage:
    """The mail; the end of an alert answers its start, so that readers show them together.

    Args:
        recipients: addresses with commas between them.
        domain: of the sender, for the mail's own name.
    """
    mail = EmailMessage()
    mail["Subject"] = " ".join(f"[Kalshi platform] {message.subject}".split())
    mail["From"] = sender
    mail["To"] = recipients
    mail["Date"] = datetime.now(UTC)
    started = _name(message.alert, "started", domain)
    mail["Message-ID"] = _name(message.alert, message.event, domain)
    if message.event == "recovered":
        mail["In-Reply-To"] = started
        mail["References"] = started
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.text)
    return mail


def instant(at: datetime) -> str:
    """An instant as messages say it."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _name(alert: Alert, event: Event, domain: str) -> str:
    began = int(alert.started_at.timestamp() * 1000)
    return f"<alert-{alert.alert_id}-{began}-{event}@{domain}>"


def _lasted(alert: Alert) -> str:
    assert alert.recovered_at is not None, "an alert that is over has an end"
    whole = timedelta(seconds=round((alert.recovered_at - alert.started_at).total_seconds()))
    return str(whole) if whole >= timedelta(hours=1) else f"{whole.seconds} s"


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text[:_LONGEST_BLOCK]}}


def _escaped(text: str) -> str:
    """Slack reads these three as its own marks."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
