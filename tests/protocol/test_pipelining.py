"""PIPELINING (RFC 2920): groups of commands, hooks that wait, and how the replies are sent."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import EHLO, Client, Promises, Recorder, codes, connect, hooks, pass_time
from twisted_smtpd.lmtp import LMTP

MAIL = b"MAIL FROM:<a@x.example>\r\n"
RCPT = b"RCPT TO:<b@y.example>\r\n"
RECIPIENTS = [f"r{number}@y.example" for number in range(500)]
GROUP = MAIL + b"".join(f"RCPT TO:<{address}>\r\n".encode() for address in RECIPIENTS) + b"DATA\r\n"


class Chooser(Recorder):
    """Refuses every third recipient."""

    def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if int(address[1:].partition("@")[0]) % 3 == 0:
            return f"550 5.1.1 not {address}"
        envelope.rcpt_tos.append(address)
        return f"250 2.1.5 {address}"


def heard(client: Client, data: bytes) -> bytes:
    """All that a client hears, also what comes in later turns because others had theirs."""
    said = client.send(data)
    pass_time(client, 1)
    return said + client.read()


class GroupTests(SynchronousTestCase):
    def test_500_recipients_in_one_segment(self) -> None:
        handler = Chooser()
        client = connect(handler, max_refusals=0)
        client.send(EHLO)
        before = client.transport.writes
        lines = heard(client, GROUP).decode().splitlines()
        self.assertEqual((lines[0][:3], lines[-1][:3], len(lines)), ("250", "354", 502))
        for number, (address, line) in enumerate(zip(RECIPIENTS, lines[1:], strict=False)):
            self.assertEqual(line, f"550 5.1.1 not {address}" if number % 3 == 0 else f"250 2.1.5 {address}")
        # Far fewer writes than replies: a connection gives way to others after a while, and sends what it has.
        self.assertLess(client.transport.writes - before, 100)
        self.assertEqual(codes(client.send(b"hello\r\n.\r\n")), [250])
        self.assertEqual(handler.envelopes[0].rcpt_tos, [a for n, a in enumerate(RECIPIENTS) if n % 3])

    def test_500_recipients_by_lmtp(self) -> None:
        async def handle_DATA(server: Any, session: Any, envelope: Any) -> list[str]:
            return [f"250 2.0.0 {address}" for address in envelope.rcpt_tos]

        client = connect(hooks(handle_DATA=handle_DATA), LMTP)
        client.read()
        client.send(EHLO.replace(b"EHLO", b"LHLO"))
        self.assertEqual(codes(heard(client, GROUP)), [250] * 501 + [354])
        lines = heard(client, b"hello\r\n.\r\n").decode().splitlines()
        self.assertEqual(lines, [f"250 2.0.0 {address}" for address in RECIPIENTS])

    def test_the_replies_of_a_group_are_one_write(self) -> None:
        client = connect(Recorder())
        client.send(EHLO)
        before = client.transport.writes
        self.assertEqual(codes(client.send(MAIL + RCPT * 3 + b"DATA\r\n")), [250] * 4 + [354])
        self.assertEqual(client.transport.writes - before, 1)


class SlowHookTests(SynchronousTestCase):
    """What is behind a command whose hook waits."""

    def test_recipients_wait_for_the_sender(self) -> None:
        mail, rcpt = Promises(), Promises()
        client = connect(hooks(handle_MAIL=mail, handle_RCPT=rcpt))
        client.send(EHLO)
        self.assertEqual(client.send(MAIL + RCPT * 2 + b"DATA\r\n"), b"")
        self.assertEqual((len(mail.made), len(rcpt.made)), (1, 0))
        mail.made[0].callback("250 2.1.0 sender")
        self.assertEqual((client.read(), len(rcpt.made)), (b"250 2.1.0 sender\r\n", 1))
        rcpt.made[0].callback("550 5.1.1 no")
        self.assertEqual((client.read(), len(rcpt.made)), (b"550 5.1.1 no\r\n", 2))
        rcpt.made[1].callback("250 2.1.5 yes")
        # DATA is a synchronisation point: only now is it known that there is a recipient.
        self.assertEqual(codes(client.read()), [250, 354])

    def test_each_hook_is_called_when_the_one_before_has_answered(self) -> None:
        order: list[str] = []
        promises = Promises()

        async def handle_RCPT(server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
            order.append(f"asked {address}")
            await promises()
            order.append(f"answered {address}")
            envelope.rcpt_tos.append(address)
            return f"250 2.1.5 {address}"

        handler = type("Handler", (Recorder,), {"handle_RCPT": staticmethod(handle_RCPT)})()
        client = connect(handler)
        client.send(EHLO)
        addresses = RECIPIENTS[:5]
        group = MAIL + b"".join(f"RCPT TO:<{address}>\r\n".encode() for address in addresses)
        replies = client.send(group + b"DATA\r\nhello\r\n.\r\nQUIT\r\n")
        while promises.made:
            promises.made.pop().callback(None)
        said = (replies + client.read()).decode().splitlines()
        self.assertEqual([line[:3] for line in said], ["250"] * 6 + ["354", "250", "221"])
        self.assertEqual(order, [f"{what} {address}" for address in addresses for what in ("asked", "answered")])
        self.assertEqual(handler.contents, [b"hello\r\n"])

    def test_a_last_chunk_is_a_synchronisation_point(self) -> None:
        rcpt, data = Promises(), Promises()
        client = connect(hooks(handle_RCPT=rcpt, handle_DATA=data))
        client.send(EHLO)
        said = client.send(MAIL + RCPT + b"BDAT 2\r\nabBDAT 1 LAST\r\nc" + MAIL + b"QUIT\r\n")
        self.assertEqual((codes(said), len(data.made)), ([250], 0))
        rcpt.made[0].callback("250 2.1.5 yes")
        self.assertEqual((codes(client.read()), len(data.made)), ([250, 250], 1))
        data.made[0].callback("554 5.6.0 no")
        self.assertEqual(codes(client.read()), [554, 250, 221])
        self.assertTrue(client.closed)

    def test_a_refused_recipient_behind_which_a_chunk_follows(self) -> None:
        """RFC 3030 section 4.2: the chunk is read, and nothing of it is a command."""
        rcpt = Promises()
        client = connect(hooks(handle_RCPT=rcpt))
        client.send(EHLO)
        said = client.send(MAIL + RCPT + b"BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nRSET\r\nNOOP\r\n")
        rcpt.made[0].callback("550 5.1.1 no")
        self.assertEqual(codes(said + client.read()), [250, 550, 554, 554, 250])
        self.assertFalse(client.closed)
