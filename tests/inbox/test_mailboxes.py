"""Which mailboxes a message is for."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.inbox.mailboxes import Mailboxes
from twisted_smtpd.session import Recipient
from twisted_smtpd.store import NewMessage, SessionFacts

RULES = """
others = "domain"
default = "rest"

[[mailbox]]
name = "team"
domain = "*.team.example"
recipient = ["boss@y.example"]
token = "0123456789abcdef"

[[mailbox]]
name = "job 7"
tag = ["ci-7"]
header = { "X-CI-Job" = "7*" }

[[mailbox]]
name = "Anne's"
user = "ANNE"
listener = ["2525", "/run/x.sock"]
"""


def new(*recipients: str, headers: str = "", user: str | None = None) -> NewMessage:
    content = f"{headers}Subject: x\r\n\r\n".encode()
    return NewMessage(content, "", (), tuple(map(Recipient, recipients)), SessionFacts("1", user=user))


class MailboxesTests(SynchronousTestCase):
    def server(self, address: Any = None) -> Any:
        address = address or IPv4Address("TCP", "127.0.0.1", 8025)
        return SimpleNamespace(transport=SimpleNamespace(getHost=lambda: address))

    def read(self, text: str) -> Mailboxes:
        os.mkdir(folder := self.mktemp())
        path = os.path.join(folder, "mailboxes.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text.replace("FOLDER", folder))
        return Mailboxes.read(path)

    def test_words(self) -> None:
        for word, message, names in (
            ("", new("b@y.example"), ("",)),
            ("recipient", new("B@y.example", "c@y.example", "b@Y.example"), ("b@y.example", "c@y.example")),
            ("domain", new("b@y.example", "c@z.example"), ("y.example", "z.example")),
            ("domain", new("postmaster"), ("",)),
            ("tag", new("b+ci-7@y.example", "b@y.example"), ("ci-7",)),
            ("tag", new("b@y.example"), ("",)),
            ("user", new("b@y.example", user="anne"), ("anne",)),
            ("user", new("b@y.example"), ("",)),
            ("listener", new("b@y.example"), ("127.0.0.1:8025", "8025")),
            ("header:x-job", new(headers="X-Job: 7\r\nx-job: 8\r\n"), ("7", "8")),
            ("header:x-job", new(), ("",)),
        ):
            self.assertEqual(Mailboxes.read(word).names(message, self.server()), names, word)

    def test_rules(self) -> None:
        mailboxes = self.read(RULES)
        for message, names in (
            (new("x@a.team.example"), ("team",)),
            (new("BOSS@y.example", "b+ci-7@y.example"), ("team", "job 7")),
            (new("b@y.example", headers="X-Ci-Job: 77\r\n"), ("job 7",)),
            (new("b@y.example", user="anne"), ("Anne's",)),
            (new("b@y.example"), ("y.example",)),
            (new("postmaster"), ("rest",)),
        ):
            self.assertEqual(mailboxes.names(message, self.server()), names)
        for address in (IPv4Address("TCP", "10.0.0.1", 2525), UNIXAddress("/run/x.sock")):
            self.assertEqual(mailboxes.names(new("b@y.example"), self.server(address)), ("Anne's",))
        self.assertEqual(mailboxes.tokens, {"0123456789abcdef": "team"})
        self.assertNotIn("0123456789abcdef", repr(mailboxes._rules))

    def test_the_example(self) -> None:
        mailboxes = Mailboxes.read(str(Path(__file__).parents[2] / "examples" / "mailboxes.toml"))
        for message, names in (
            (new("orders@x.example", "me+ci-7@x.example"), ("shop", "CI")),
            (new("b@y.example", headers="X-CI-Job: 7\r\n"), ("CI",)),
            (new("b@y.example", user="billing"), ("billing",)),
            (new("b@y.example"), ("y.example",)),
            (new("postmaster"), ("other mail",)),
        ):
            self.assertEqual(mailboxes.names(message, self.server()), names)

    def test_a_token_in_a_file(self) -> None:
        os.mkdir(folder := self.mktemp())
        path = os.path.join(folder, "token")
        with open(path, "w", encoding="utf-8") as file:
            file.write("fedcba9876543210\n")
        mailboxes = self.read(f'[[mailbox]]\nname = "a"\ndomain = "x"\ntoken_file = "{path}"\n')
        self.assertEqual(mailboxes.tokens, {"fedcba9876543210": "a"})

    def test_names_that_clients_choose_are_bounded(self) -> None:
        message = new(headers=f"X-Job: a\x00\x1bb\r\nX-Job: {'x' * 5000}\r\nX-Job: \r\nX-Job: \xff\r\n")
        names = Mailboxes(by="header:X-Job").names(message, self.server())
        self.assertEqual(names, ("ab", "x" * 200, "\xff"))
        many = new(*(f"u{n}@y.example" for n in range(500)))
        self.assertEqual(len(Mailboxes(by="recipient").names(many, self.server())), 100)
        self.assertEqual(Mailboxes(by="recipient").names(new("\udcff@y.example"), self.server()), ("@y.example",))

    def test_mistakes(self) -> None:
        for text, expected in (
            ("x = ", "no TOML"),
            ("x = 1", "x, which is not known"),
            ("[mailbox]\nname = 'a'", "two brackets"),
            ("[[mailbox]]\ndomain = 'x'", "no name"),
            ("[[mailbox]]\nname = 'a'", "takes no messages"),
            ("[[mailbox]]\nname = 'a'\ndomain = 1", "a text or a list"),
            ("[[mailbox]]\nname = 'a'\nheader = 'x'", "header = {"),
            ("[[mailbox]]\nname = 'a'\ndomains = 'x'", "domains, which is not known"),
            ("[[mailbox]]\nname = 'a'\ndomain = 'x'\ntoken = 'short'", "16 characters"),
            ("others = 'moon'", "moon"),
            (RULES + "[[mailbox]]\nname = 'b'\ndomain = 'x'\ntoken = '0123456789abcdef'", "same token"),
            ("mailbox = [1]", "write [[mailbox]]"),
        ):
            error = self.assertRaises(ValueError, self.read, text)
            self.assertIn(expected, str(error))
            self.assertEqual(len(str(error).splitlines()), 1)
