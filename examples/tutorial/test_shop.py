import smtplib

import pytest
from shop import confirm


@pytest.fixture(autouse=True)
def server(smtpd, monkeypatch):
    monkeypatch.setenv("SMTP_HOST", smtpd.hostname)
    monkeypatch.setenv("SMTP_PORT", str(smtpd.port))


def test_the_customer_hears_of_the_order(smtpd):
    confirm(4711, "bart@example.com")
    message = smtpd.wait_for(to="bart@example.com")
    assert message["Subject"] == "Your order 4711"
    assert "Thank you" in message.text


def test_an_address_that_does_not_exist(smtpd):
    smtpd.fail("RCPT", "550 5.1.1 No such user")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        confirm(4711, "nobody@example.com")
