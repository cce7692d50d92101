"""Settings are shared and work is saved; overridden methods, constructors and a changed factory still count."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import connect
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.options.table import DEFAULTS, OPTIONS
from twisted_smtpd.protocol.extensions import Extension, Pipelining, Size
from twisted_smtpd.protocol.running import CommandRunner
from twisted_smtpd.smtp import MAX_EHLO_RESPONSES, SMTP
from twisted_smtpd.wire.replies import Reply, SMTPReplyError

TRANSACTION = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
DEFAULTS_OF_ALL = {name: value for name, value in DEFAULTS.items() if name in OPTIONS}
MESSAGE = TRANSACTION + b"hello\r\n.\r\n"
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

    def test_an_overridden_check_of_the_greeting_is_asked_though_there_was_one(self) -> None:
        class Strict(SMTP):
            async def check_helo_needed(self, helo: str = "HELO") -> bool:
                raise SMTPReplyError(503, "5.5.1", "Say it again")

        factory = SMTPFactory(object(), protocol=Strict, clock=Clock(), hostname="x")
        self.assertIn(b"503 5.5.1 Say it again", talk(factory, MAIL))

    def test_an_overridden_push_says_every_reply_of_a_message(self) -> None:
        pushed: list[Any] = []

        class Loud(SMTP):
            async def push(self, status: Any) -> None:
                pushed.append(str(status)[:3])
                await super().push(status)

        factory = SMTPFactory(object(), protocol=Loud, clock=Clock(), hostname="x")
        talk(factory, b"EHLO x\r\n" + MESSAGE)
        self.assertEqual(pushed, ["220", "250", "250", "250", "354", "250"])

    def test_an_overridden_call_of_hooks_is_asked_for_those_that_are_missing(self) -> None:
        called: list[str] = []

        class Counting(SMTP):
            async def _call_handler_hook(self, command: str, *arguments: Any) -> Any:
                called.append(command)
                return await super()._call_handler_hook(command, *arguments)

        factory = SMTPFactory(object(), protocol=Counting, clock=Clock(), hostname="x")
        talk(factory, b"HELO x\r\n" + MESSAGE + b"QUIT\r\n")
        self.assertEqual(called, ["CONNECT", "HELO", "MAIL", "RCPT", "DATA", "QUIT"])

    def test_only_the_hook_of_a_message_takes_a_coroutine(self) -> None:
        started: list[str] = []
        start = CommandRunner.start

        def noted(runner: CommandRunner, coroutine: Any, must_finish: bool = False) -> None:
            started.append(coroutine.__qualname__)
            start(runner, coroutine, must_finish)

        self.patch(CommandRunner, "start", noted)
        factory = SMTPFactory(object(), clock=Clock(), hostname="x")
        talk(factory, b"EHLO x\r\n" + MESSAGE + b"HELO x\r\nQUIT\r\n")
        self.assertEqual(started, ["Transaction._received"])

    def test_an_ehlo_that_fails_leaves_the_session_as_it_was(self) -> None:
        class Failing(Extension):
            name = "FAILING"

            def keyword(self, server: Any) -> str | None:
                raise ValueError("no keyword")

        class Odd(SMTP):
            extensions = (*SMTP.extensions, Failing())

        dialog = connect(protocol=Odd)
        dialog.send(b"HELO first\r\n")
        self.assertEqual(dialog.send(b"EHLO second\r\n")[:3], b"451")
        protocol = dialog.protocol
        self.assertEqual((protocol.session.host_name, protocol.session.extended_smtp), ("first", False))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_each_command_of_a_message_may_be_wrapped(self) -> None:
        """What is done at once is done as well where a coroutine asks for it."""
        ran: list[str] = []

        class Wrapped(SMTP):
            async def smtp_MAIL(self, arg: str | None) -> None:
                await super().smtp_MAIL(arg)
                ran.append(f"from {self.envelope.mail_from}")

            async def smtp_RCPT(self, arg: str | None) -> None:
                await super().smtp_RCPT(arg)
                ran.append(f"to {self.envelope.rcpt_tos}")

            async def smtp_DATA(self, arg: str | None) -> None:
                await super().smtp_DATA(arg)
                ran.append("done")

        class Handler:
            async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
                ran.append(envelope.content.decode())
                return "250 OK"

        factory = SMTPFactory(Handler(), protocol=Wrapped, clock=Clock(), hostname="x")
        said = talk(factory, b"MAIL FROM:<a@example.com>\r\nEHLO x\r\n" + MESSAGE)
        self.assertIn(b"503 5.5.1 Send HELO first", said)
        self.assertEqual(ran, ["from a@example.com", "to ['b@example.com']", "hello\r\n", "done"])

    def test_an_overridden_push_gets_whole_what_a_hook_has_returned(self) -> None:
        pushed: list[Any] = []

        class Loud(SMTP):
            async def push(self, status: Any) -> None:
                pushed.append(status)
                await super().push(status)

        class Handler:
            async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
                return "250-open"

        said = talk(SMTPFactory(Handler(), protocol=Loud, clock=Clock(), hostname="x"), b"EHLO x\r\n" + MESSAGE)
        self.assertTrue(said.endswith(b"\r\n250 2.0.0 open\r\n"), said)
        self.assertEqual(pushed[-1], Reply(250, None, ("open",)))

    def test_the_response_to_ehlo_is_put_together_once(self) -> None:
        asked: list[str] = []

        class Asked(Size):
            varies_with = ("data_size_limit",)

            def keyword(self, server: Any) -> str | None:
                asked.append("SIZE")
                return super().keyword(server)

        class Mine(SMTP):
            extensions = (Asked(), Pipelining())

        factory = SMTPFactory(object(), protocol=Mine, clock=Clock(), hostname="x", data_size_limit=5)
        for _ in range(3):
            self.assertIn(b"250-x\r\n250-SIZE 5\r\n250-PIPELINING\r\n250 HELP\r\n", talk(factory, b"EHLO x\r\n"))
        self.assertEqual(asked, ["SIZE"])

    def test_each_client_is_told_its_own_limits(self) -> None:
        class Handler:
            given = 0

            async def handle_CONNECT(self, server: Any, session: Any, envelope: Any) -> str:
                self.given += 1
                server.data_size_limit = self.given
                return "220 hello"

        factory = SMTPFactory(Handler(), clock=Clock(), hostname="x", max_connections_per_address=0)
        for limit in range(1, 2 * MAX_EHLO_RESPONSES):
            self.assertIn(b"250-SIZE %d\r\n" % limit, talk(factory, b"EHLO x\r\n"))
        self.assertLessEqual(len(factory.settings.ehlo_responses), MAX_EHLO_RESPONSES)

    def test_an_extension_that_does_not_tell_is_asked_each_time(self) -> None:
        """Though the one it is made of does."""
        days = iter(("MONDAY", "TUESDAY"))

        class Daily(Size):
            def keyword(self, server: Any) -> str | None:
                return next(days)

        class Mine(SMTP):
            extensions = (Daily(),)

        factory = SMTPFactory(object(), protocol=Mine, clock=Clock(), hostname="x")
        self.assertIn(b"250-MONDAY\r\n", talk(factory, b"EHLO x\r\n"))
        self.assertIn(b"250-TUESDAY\r\n", talk(factory, b"EHLO x\r\n"))

    def test_the_options_of_a_connection_are_all_of_them(self) -> None:
        """They are listed twice, for speed."""
        given = {"hostname": "x", "ident": "y", "max_recipients": 7, "timeout": 8, "max_auth_failures": 9}
        protocol = SMTPFactory(object(), clock=Clock(), **given).buildProtocol(None)  # type: ignore[arg-type]
        self.assertEqual({name: getattr(protocol, name) for name in OPTIONS}, {**DEFAULTS_OF_ALL, **given})

    def test_a_class_s_own_option_wins(self) -> None:
        class Small(SMTP):
            data_size_limit = 5

        protocol = SMTPFactory(object(), protocol=Small, clock=Clock(), hostname="x").buildProtocol(None)
        self.assertEqual(protocol.data_size_limit, 5)
        protocol.data_size_limit = 6
        self.assertEqual((protocol.data_size_limit, Small.data_size_limit), (6, 5))

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
