"""Where work is saved, nobody's say is lost: overridden checks, constructors, and what is changed on a factory."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.wire.replies import SMTPReplyError

MAIL = b"EHLO me.example\r\nMAIL FROM:<a@example.com>\r\n"


def talk(factory: SMTPFactory, data: bytes) -> bytes:
    protocol = factory.buildProtocol(None)
    transport = StringTransportWithDisconnection()
    transport.protocol = protocol
    protocol.makeConnection(transport)
    protocol.dataReceived(data)
    return transport.value()


class ShortcutTests(SynchronousTestCase):
    def test_an_overridden_check_is_asked_though_nothing_is_missing(self) -> None:
        class Strict(SMTP):
            async def check_auth_needed(self, command: str) -> bool:
                raise SMTPReplyError(530, "5.7.0", f"Not even {command}")

        factory = SMTPFactory(object(), protocol=Strict, clock=Clock(), hostname="x")
        self.assertIn(b"530 5.7.0 Not even MAIL", talk(factory, MAIL))

    def test_what_a_subclass_set_before_does_not_replace_an_option(self) -> None:
        class Early(SMTP):
            def __init__(self, handler: object, **options: object) -> None:
                self.mark, self.hostname = "kept", "early"
                super().__init__(handler, **options)  # type: ignore[arg-type]

        protocol = SMTPFactory(object(), protocol=Early, clock=Clock(), hostname="x").buildProtocol(None)
        self.assertEqual((protocol.mark, protocol.hostname), ("kept", "x"))  # type: ignore[attr-defined]

    def test_a_factory_follows_what_is_changed_on_it(self) -> None:
        factory = SMTPFactory(object(), clock=Clock(), hostname="x")
        factory.options["hostname"] = "y"
        self.assertIn(b"220 y ESMTP", talk(factory, b""))
        factory.protocol = LMTP
        self.assertIn(b"220 y LMTP", talk(factory, b""))
        factory.handler = handler = object()
        self.assertIs(factory.buildProtocol(None).event_handler, handler)

    def test_one_connection_s_option_is_its_own(self) -> None:
        factory = SMTPFactory(object(), clock=Clock(), hostname="x")
        first, second = factory.buildProtocol(None), factory.buildProtocol(None)
        first.max_recipients = 1
        self.assertEqual(second.max_recipients, 1000)
