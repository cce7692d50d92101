"""A handler whose hooks are never called is found when its server starts."""

from __future__ import annotations

import warnings
from typing import Any
from unittest.mock import AsyncMock, Mock

from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import ENVELOPE, MESSAGE, Recorder, codes, connect, make_factory
from twisted_smtpd.handlers import Chain, Sink
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.smtp import SMTP, SMTPReplyError


def warned(handler: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        SMTP(handler)
        SMTP(handler)
    return [str(warning.message) for warning in caught]


class WarningTests(SynchronousTestCase):
    """Seen: ``handle_data``, a Mock, ``process_message``: each message got 250 and was gone, without a word."""

    def test_a_misspelled_hook(self) -> None:
        class Typo:
            def handle_data(self, *arguments: Any) -> str:
                return "250 OK"

        said = warned(Typo())
        self.assertEqual(len(said), 2)
        self.assertIn("no server calls handle_data: did you mean handle_DATA?", said[0])
        self.assertIn("THROWN AWAY", said[1])

    def test_a_handler_without_hooks(self) -> None:
        class Nothing:
            pass

        self.assertIn("Nothing has no hooks: ALL MAIL IS ACCEPTED AND THROWN AWAY", warned(Nothing())[0])
        self.assertIn("THROWN AWAY", warned(Mock())[0])
        self.assertIn("THROWN AWAY", warned(None)[0])

    def test_a_mock_with_a_hook_is_a_handler(self) -> None:
        class Named(Mock):
            pass

        handler = Named(handle_DATA=AsyncMock(return_value="250 OK"))
        self.assertEqual(warned(handler), [])
        self.assertEqual(codes(connect(handler).send(MESSAGE))[-1], 250)
        handler.handle_DATA.assert_called_once()

    def test_what_may_be_meant_is_not_warned_of(self) -> None:
        class Silent(Sink):
            pass

        class Other(Recorder):
            def handle_event_of_mine(self) -> None:
                """Has another use."""

        for handler in (Sink(), Silent(), Recorder(), Other(), object()):
            self.assertEqual(warned(handler), [], handler)

    def test_in_a_chain_too(self) -> None:
        class Typo:
            def handle_rcpt(self, *arguments: Any) -> str:
                return "250 OK"

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Chain(Recorder(), Typo())
        self.assertIn("did you mean handle_RCPT?", str(caught[0].message))


class SignatureTests(SynchronousTestCase):
    def test_a_hook_that_can_not_be_called_is_warned_of(self) -> None:
        class Short:
            async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str) -> str:
                return "250 OK"

        self.assertIn(
            "handle_RCPT is called with (server, session, envelope, address, rcpt_options)", " ".join(warned(Short()))
        )

    def test_hooks_that_take_more_or_anything_are_right(self) -> None:
        class Right:
            def handle_EHLO(self, server: Any, session: Any, envelope: Any, hostname: str) -> str:
                return "250 OK"

            def handle_DATA(self, *arguments: Any) -> str:
                return "250 OK"

            def handle_NOOP(self, server: Any, session: Any, envelope: Any, arg: str, more: int = 1) -> str:
                return "250 OK"

        self.assertEqual(warned(Right()), [])


class RefusalTests(SynchronousTestCase):
    def test_a_class_is_no_handler(self) -> None:
        class Handler:
            async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
                return "250 OK"

        for make in (SMTP, make_factory, Chain):
            for one in (Handler, Recorder, object):
                self.assertIn("give an instance", str(self.assertRaises(TypeError, make, one)))

    def test_a_class_whose_hooks_need_no_instance_is_one(self) -> None:
        class Handler:
            @staticmethod
            def handle_DATA(*arguments: Any) -> str:
                return "250 static"

            @classmethod
            def handle_NOOP(cls, *arguments: Any) -> str:
                return "250 class"

        self.assertIn(b"static", connect(Handler).send(MESSAGE))

    def test_what_has_no_methods_of_its_own_is_no_handler(self) -> None:
        for one in ("debugging", b"x", 17, [Recorder()], {}, (1,)):
            self.assertRaises(TypeError, SMTP, one)


class ProcessMessageTests(SynchronousTestCase):
    """``process_message`` of the smtpd module works, deprecated, as it does in aiosmtpd."""

    def handler(self, status: Any) -> Any:
        class Old:
            def __init__(self) -> None:
                self.seen: list[Any] = []

            def process_message(self, *message: Any) -> Any:
                self.seen.append(message)
                if isinstance(status, Exception):
                    raise status
                return status

        return Old()

    def test_it_gets_the_message(self) -> None:
        handler = self.handler(None)
        self.assertEqual(codes(connect(handler).send(MESSAGE)), [250, 250, 250, 354, 250])
        peer, sender, recipients, content = handler.seen[0]
        self.assertEqual((peer, sender, recipients), (("192.0.2.1", 40000), "a@x.example", ["b@y.example"]))
        self.assertEqual(content, b"Subject: hi\r\n\r\nhello\r\n")

    def test_its_status_counts(self) -> None:
        for status in ("550 no", succeed("550 no"), SMTPReplyError(550, None, "no")):
            self.assertEqual(codes(connect(self.handler(status)).send(MESSAGE))[-1], 550)

        class Coroutine:
            async def process_message(self, *message: Any) -> str:
                return "550 no"

        self.assertEqual(codes(connect(Coroutine()).send(MESSAGE))[-1], 550)
        self.assertEqual(codes(connect(self.handler(ZeroDivisionError())).send(MESSAGE))[-1], 451)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_in_lmtp_and_in_a_chain_too(self) -> None:
        client = connect(self.handler("550 no"), protocol=LMTP)
        client.read()
        self.assertEqual(codes(client.send(MESSAGE.replace(b"EHLO", b"LHLO")))[-1], 550)
        first, last = self.handler(None), self.handler("550 no")
        self.assertEqual(codes(connect(Chain(Sink(), first, last)).send(MESSAGE))[-1], 550)
        self.assertEqual((len(first.seen), len(last.seen)), (1, 1))

    def test_a_newer_hook_is_called_instead(self) -> None:
        class Both(Recorder):
            def process_message(self, *message: Any) -> None:
                raise AssertionError

        handler = Both()
        self.assertEqual(codes(connect(handler).send(ENVELOPE + b"DATA\r\nx\r\n.\r\n"))[-1], 250)
        self.assertEqual(len(handler.envelopes), 1)

    def test_it_is_said_to_be_deprecated(self) -> None:
        self.assertIn("process_message() is deprecated", " ".join(warned(self.handler(None))))
