"""A filter before a mail server: takes mail for one domain, refuses what is marked as spam, forwards the rest.

twisted-smtpd -c filter_and_forward.Gateway mail.example.com:25
"""

from __future__ import annotations

from email import message_from_bytes

from twisted_smtpd.handlers import PASS, Chain, Proxy


class Filter:
    def __init__(self, domain):
        self.domain = domain

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address.lower().endswith(f"@{self.domain}"):
            return PASS
        return "550 5.7.1 We do not relay"

    async def handle_DATA(self, server, session, envelope):
        if message_from_bytes(envelope.content)["X-Spam-Flag"] == "YES":
            return "554 5.7.1 No, thank you"
        return PASS


class Gateway(Chain):
    @classmethod
    def from_cli(cls, parser, *args):
        return cls(Filter("example.com"), Proxy.from_cli(parser, *args))
