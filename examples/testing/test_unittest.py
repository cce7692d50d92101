"""The server in unittest: python -m unittest test_unittest.py"""

import smtplib
import unittest

from twisted_smtpd.testing import AsyncMailServer, MailServer, MailServerMixin, mail_server_for


def send(server):
    """Stands for the program."""
    with smtplib.SMTP(server.hostname, server.port) as client:
        client.sendmail("anne@example.com", ["bart@example.com"], "Subject: Hello\n\nHello\n")


class WithTheMixin(MailServerMixin, unittest.TestCase):
    mail_server_options = {"data_size_limit": 1000}

    def test_hello(self):
        send(self.smtpd)
        self.assertEqual(self.smtpd.wait_for()["Subject"], "Hello")


class WithoutIt(unittest.TestCase):
    def test_hello(self):
        server = mail_server_for(self)
        send(server)
        self.assertEqual(server.wait_for()["Subject"], "Hello")

    def test_in_one_block(self):
        with MailServer() as server:
            send(server)
            self.assertEqual(server.wait_for()["Subject"], "Hello")


class WithAsyncio(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.smtpd = AsyncMailServer()
        await self.smtpd.start()
        self.addAsyncCleanup(self.smtpd.stop)

    async def test_no_mail(self):
        await self.smtpd.expect_none(within=0.01)


if __name__ == "__main__":
    unittest.main()
