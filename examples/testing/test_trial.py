"""The server in trial, on the reactor of the test: trial test_trial.py"""

from twisted.mail.smtp import sendmail
from twisted.trial.unittest import TestCase

from twisted_smtpd.testing import AsyncMailServerMixin


class SendTests(AsyncMailServerMixin, TestCase):
    # sendmail() uses STARTTLS where it is offered, and trusts the authorities of the machine only.
    mail_server_options = {"starttls": False}

    async def test_hello(self):
        message = b"Subject: Hello\r\n\r\nHello\r\n"
        smtpd = self.smtpd
        await sendmail(smtpd.hostname, "anne@example.com", ["bart@example.com"], message, port=smtpd.port)
        self.assertEqual((await smtpd.wait_for(to="bart@example.com"))["Subject"], "Hello")
