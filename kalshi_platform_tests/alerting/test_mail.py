"""Alerts as mail, over a real socket: encrypted, addressed, threaded, and refused in words."""

from collections.abc import Iterator
from time import monotonic

import pytest

from kalshi_platform.alerting import channels, mail
from kalshi_platform.alerting.channels import NotDelivered
from kalshi_platform.alerting.mail import Mail
from kalshi_platform.alerting.messages import Message
from kalshi_platform_tests.alerting.mailing import MailServer, mail_server
from kalshi_platform_tests.alerting.test_changes import NOW, alert
from kalshi_platform_tests.ports import free_ports

OVER = alert(recovered_at=NOW, recovery="It runs again.")


@pytest.fixture
def server() -> Iterator[MailServer]:
    with mail_server() as found:
        yield found


def to(server: MailServer, url: str = "smtp://ops:correct%20horse@127.0.0.1:{port}") -> Mail:
    return Mail(
        url.format(port=server.port), "a@ops.test, b@ops.test", "p@kalshi.test", server.client_tls
    )


def test_a_mail_arrives_encrypted_at_every_address(server):
    assert to(server).send(Message(alert(), "started")) == "accepted"
    [sent] = server.mails
    assert sent["Subject"] == "[Kalshi platform] ERROR stopped recorder"
    assert (sent["From"], sent["To"]) == ("p@kalshi.test", "a@ops.test, b@ops.test")
    assert "What to do: Start it." in sent.get_payload()
    assert server.recipients == [["a@ops.test", "b@ops.test"]]
    assert server.logins == [("ops", "correct horse")]
    assert server.encrypted == [True]


def test_an_end_answers_its_start(server):
    channel = to(server)
    channel.send(Message(OVER, "started"))
    channel.send(Message(OVER, "recovered"))
    start, end = server.mails
    assert end["In-Reply-To"] == start["Message-ID"] != end["Message-ID"]
    assert end["Subject"] == "[Kalshi platform] RECOVERED stopped recorder"


def test_tls_from_the_first_byte():
    with mail_server(tls_from_the_start=True) as server:
        to(server, "smtps://ops:correct%20horse@127.0.0.1:{port}").send(Message(OVER, "started"))
        assert server.encrypted == [True]


def test_without_a_user_nobody_logs_in(server):
    to(server, "smtp://127.0.0.1:{port}").send(Message(OVER, "started"))
    assert (len(server.mails), server.logins) == (1, [])


def test_a_password_is_not_told_in_the_clear(server, monkeypatch):
    server.offers_tls = False
    monkeypatch.setattr(mail, "_LOCAL", ())
    with pytest.raises(NotDelivered, match="no TLS"):
        to(server).send(Message(OVER, "started"))
    assert server.logins == []


def test_a_server_that_nobody_vouches_for_is_not_told_anything(server):
    with pytest.raises(NotDelivered, match="certificate is not trusted"):
        Mail(f"smtp://u:p@127.0.0.1:{server.port}", "a@b.test", None).send(Message(OVER, "started"))
    assert server.logins == []


def test_a_wrong_password_is_an_error_without_it(server):
    with pytest.raises(NotDelivered) as failed:
        to(server, "smtp://ops:secret@127.0.0.1:{port}").send(Message(OVER, "started"))
    assert str(failed.value) == "user or password are refused (535)"


def test_a_refusal_is_told_in_the_servers_words_without_the_password(server):
    server.says_after_data = "554 5.7.1 spam from correct horse"
    with pytest.raises(NotDelivered) as failed:
        to(server).send(Message(OVER, "started"))
    assert str(failed.value) == "refused with 554 5.7.1 spam from …"


def test_one_address_that_is_refused_is_said_and_the_others_get_it(server):
    server.refuses = "a@ops.test"
    assert to(server).send(Message(OVER, "started")) == "accepted, but not for all: a@ops.test: 550"
    assert server.recipients == [["b@ops.test"]]


def test_a_server_that_says_nothing_is_left_in_time(server, monkeypatch):
    server.greets = False
    monkeypatch.setattr(mail, "TIMEOUT_SECONDS", 0.3)
    began = monotonic()
    with pytest.raises(NotDelivered, match="no answer within"):
        to(server).send(Message(OVER, "started"))
    assert monotonic() - began < 3


@pytest.mark.parametrize("url", ["mail.test", "http://h", "smtp://u:secret@", "smtp://h:secret/"])
def test_an_address_that_cannot_be_read_is_an_error_without_it(url):
    with pytest.raises(NotDelivered) as failed:
        Mail(url, "a@b.test", None).send(Message(OVER, "started"))
    assert "KALSHI_ALERT_SMTP_URL must read" in str(failed.value)
    assert "u:secret" not in str(failed.value)


def test_nobody_there_is_an_error():
    [port] = free_ports(1)
    with pytest.raises(NotDelivered, match="cannot be reached"):
        Mail(f"smtp://u:secret@127.0.0.1:{port}", "a@b.test", None).send(Message(OVER, "started"))


def test_mail_without_an_address_is_an_error(server):
    with pytest.raises(NotDelivered, match="KALSHI_ALERT_EMAIL_TO"):
        Mail(f"smtp://127.0.0.1:{server.port}", " , ", None).send(Message(OVER, "started"))


def test_a_turn_is_longer_than_a_conversation():
    assert channels.TIMEOUT_SECONDS < mail._CONVERSATION_SECONDS < 8
