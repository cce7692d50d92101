"""A Django project that sends through SMTP.  Run it with pytest.

Django's own test runner replaces the mail backend by one that keeps messages in memory, so the setting is needed.
"""

import django
import pytest
from django.conf import settings
from django.core.mail import EmailMultiAlternatives, send_mail
from django.test import override_settings

if not settings.configured:
    # In a project with pytest-django these two lines are not needed.
    settings.configure()
    django.setup()


@pytest.fixture
def mail(smtpd, monkeypatch):
    # EMAIL_USE_TLS checks the certificate against Python's default authorities.
    monkeypatch.setenv("SSL_CERT_FILE", smtpd.ca_file)
    with override_settings(
        EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend",
        EMAIL_HOST="localhost",
        EMAIL_PORT=smtpd.port,
        EMAIL_USE_TLS=True,
        EMAIL_HOST_USER="anne",
        EMAIL_HOST_PASSWORD="any password will do",
    ):
        yield smtpd


def test_send_mail(mail):
    send_mail("Welcome", "Your code is 123 456.", "shop@example.com", ["bart@example.com"])
    message = mail.wait_for(to="bart@example.com", subject="Welcome")
    assert message.codes() == ["123456"]
    assert message.session.user == "anne"


def test_html_and_attachments(mail):
    message = EmailMultiAlternatives(
        "Bill", "Please pay.", "shop@example.com", ["bart@example.com"], bcc=["me@x.example"]
    )
    message.attach_alternative('<a href="https://shop.example/17">Pay</a>', "text/html")
    message.attach("bill.txt", "17 EUR", "text/plain")
    message.send()
    received = mail.wait_for()
    assert received.links() == ["https://shop.example/17"]
    assert [part.get_filename() for part in received.attachments] == ["bill.txt"]
    # The envelope has the hidden recipient, and the header has not.
    assert received.rcpt_tos == ["bart@example.com", "me@x.example"]
    assert received["Bcc"] is None
