"""Who may send what on a server that is on the Internet.

docs/how-to/internet.rst and the files in ``internet/`` use it.

``Recipients FILE`` takes mail for the addresses in FILE and relays nothing.  ``Senders`` has users that have signed in
write as themselves only.  Both leave the message to the next handler of their chain::

    twisted-smtpd -l 0.0.0.0:25 -c chain internet.Recipients recipients + mailbox Maildir
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from twisted_smtpd.handlers import PASS


class Recipients:
    """For port 25.

    :param addresses: those there is mail for; ``postmaster@`` of their domains should be among them.
    """

    def __init__(self, addresses: set[str]) -> None:
        self.addresses = {address.lower() for address in addresses}
        self.domains = {address.rpartition("@")[2] for address in self.addresses}

    @classmethod
    def from_cli(cls, parser: ArgumentParser, *args: str) -> Recipients:
        if len(args) != 1:
            parser.error("it takes one argument, a file with an address in each line")
        return cls(set(Path(args[0]).read_text(encoding="utf-8").split()))

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, rcpt_options: list[str]) -> Any:
        # RFC 5321 section 4.5.1: a postmaster without a domain is this server's own.
        if address.lower() == "postmaster" or address.lower() in self.addresses:
            return PASS
        if address.lower().rpartition("@")[2] in self.domains:
            return "550 5.1.1 No such mailbox"
        return "550 5.7.1 We do not relay"


class Senders:
    """For ports 587 and 465, where the name a user signs in with is an address."""

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, mail_options: list[str]) -> Any:
        user = session.login_data.decode("utf-8", "replace")
        # The null reverse-path is that of a receipt for a message that was read (RFC 8098 section 3).
        if address and address.lower() != user.lower():
            return "550 5.7.1 That is not your address"
        return PASS
