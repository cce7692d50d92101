"""A program that uses smtplib.  Run it with pytest."""

import smtplib
from email.message import EmailMessage

import pytest


def send_reminder(host, port, whom):
    """What is to be tested: it tries again once, if the server says "later"."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "shop@example.com", whom, "Your bill"
    message.set_content("Please pay: https://shop.example/bill/17\n")
    for last in (False, True):
        try:
            with smtplib.SMTP(host, port) as client:
                client.send_message(message)
            return
        except smtplib.SMTPRecipientsRefused as error:
            if last or error.recipients[whom][0] >= 500:
                raise


def test_a_reminder_is_sent(smtpd):
    send_reminder(smtpd.hostname, smtpd.port, "bart@example.com")
    message = smtpd.wait_for(to="bart@example.com")
    assert message["Subject"] == "Your bill"
    assert message.links() == ["https://shop.example/bill/17"]


def test_it_tries_again(smtpd):
    failure = smtpd.fail("RCPT", "451 4.7.1 later", times=1)
    send_reminder(smtpd.hostname, smtpd.port, "bart@example.com")
    assert failure.used == 1
    assert len(smtpd.messages) == 1


def test_it_does_not_try_again_where_that_is_of_no_use(smtpd):
    smtpd.fail("RCPT", "no such user")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send_reminder(smtpd.hostname, smtpd.port, "bart@example.com")
    smtpd.expect_none()
    assert len(smtpd.dialogs) == 1


def test_starttls_and_sign_in(smtpd):
    with smtplib.SMTP(smtpd.hostname, smtpd.port) as client:
        client.starttls(context=smtpd.ssl_context())
        client.login("anne", "any password will do")
        client.sendmail("anne@example.com", ["bart@example.com"], "Subject: Hello\n\nHello\n")
    session = smtpd.wait_for().session
    assert session.user == "anne" and session.tls == "TLSv1.3"
