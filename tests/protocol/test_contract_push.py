"""The contract's sentences about ``server.push()``: how a hook waits for it, and how many replies there are."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import succeed
from twisted.logger import LogLevel
from twisted.logger import globalLogPublisher as publisher
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import EHLO, ENVELOPE, Client, codes, connect, hooks
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.runtime.awaiting import DONE, Waiting
from twisted_smtpd.session import Envelope
from twisted_smtpd.smtp import SMTP, syntax
from twisted_smtpd.wire.replies import BadStatus

SENT = EHLO + b"MAIL FROM:<a@x.example>\r\n" + b"RCPT TO:<b@y.example>\r\n" * 3 + b"DATA\r\nhi\r\n.\r\n"


def both(generator: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A generator function as it is, and with the decorator."""
    code = generator.__code__
    copy = types.FunctionType(code, generator.__globals__, code.co_name, None, generator.__closure__)
    return generator, types.coroutine(copy)


class WarningsMixin(SynchronousTestCase):
    def warnings(self) -> list[Any]:
        events: list[Any] = []

        def keep(event: Any) -> None:
            if event["log_level"] is LogLevel.warn:
                events.append(event)

        publisher.addObserver(keep)
        self.addCleanup(publisher.removeObserver, keep)
        return events


class GeneratorHookTests(SynchronousTestCase):
    """ "By yielding from ``server.push(status)``": seen: 451, or no reply, no log and a session that is stuck."""

    def test_ehlo_announces_more(self) -> None:
        def handle_EHLO(server: SMTP, session: Any, envelope: Envelope, hostname: str) -> Any:
            session.host_name = hostname
            yield from server.push("250-XONE")
            yield from server.push("250-XTWO")
            return "250 HELP"

        for hook in both(handle_EHLO):
            said = connect(hooks(handle_EHLO=hook)).send(EHLO)
            self.assertTrue(said.endswith(b"250-XONE\r\n250-XTWO\r\n250 HELP\r\n"), said)
            self.assertEqual(codes(said), [250])

    def test_each_hook_may_be_one(self) -> None:
        def hook(*arguments: Any) -> Any:
            status = yield from succeed("458 ")
            return status + "later"

        for one in both(hook):
            client = connect(hooks(handle_NOOP=one, handle_MAIL=one, handle_VRFY=one))
            self.assertEqual(codes(client.send(EHLO + b"NOOP\r\nVRFY a\r\nMAIL FROM:<a@b.example>\r\n"))[1:], [458] * 3)

    def test_it_waits_while_the_client_does_not_read(self) -> None:
        def hook(server: SMTP, *arguments: Any) -> Any:
            yield from server.push("250-one")
            steps.append("pushed")
            return "250 two"

        for one in both(hook):
            steps: list[str] = []
            client = connect(hooks(handle_NOOP=one))
            client.protocol._output.pauseProducing()
            client.protocol.dataReceived(b"NOOP\r\n")
            self.assertEqual(steps, [])
            client.protocol._output.resumeProducing()
            self.assertEqual(steps, ["pushed"])
            self.assertEqual(codes(client.read()), [250])

    def test_its_commands_may_be_one(self) -> None:
        def smtp_XHELLO(self: SMTP, arg: str | None) -> Any:
            yield from self.push("250-one")
            yield from self.push("250 two")

        for method in both(smtp_XHELLO):
            client = connect(protocol=type("Server", (SMTP,), {"smtp_XHELLO": method}))
            self.assertEqual(codes(client.send(b"XHELLO\r\nNOOP\r\n")), [250, 250])

    def test_it_may_ask_the_client(self) -> None:
        def auth_FOO(server: SMTP, args: list[str]) -> Any:
            name = yield from server.challenge_auth("who?")
            again = yield from server._auth_interact("334 Li4u")
            return name + again

        for hook in both(auth_FOO):
            client = connect(hooks(auth_FOO=hook), auth_require_tls=False)
            self.assertEqual(codes(client.send(EHLO + b"AUTH FOO\r\nYW5u\r\nZQ==\r\n"))[1:], [334, 334, 235])
            self.assertEqual(client.protocol.session.login_data, b"anne")

    def test_its_failure_is_a_local_error(self) -> None:
        def hook(server: SMTP, *arguments: Any) -> Any:
            yield from server.push("250-one")
            raise ZeroDivisionError

        for one in both(hook):
            self.assertEqual(codes(connect(hooks(handle_NOOP=one)).send(b"NOOP\r\nRSET\r\n")), [451, 250])
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_yield_without_from_is_an_error_in_the_hook(self) -> None:
        """What it yields would be lost, and ``ok = yield check()`` be ``None``."""

        def hook(*arguments: Any) -> Any:
            try:
                yield succeed("250 OK")
            finally:
                ended.append(1)

        ended: list[int] = []
        self.assertEqual(codes(connect(hooks(handle_NOOP=hook)).send(b"NOOP\r\n")), [451])
        self.assertEqual(ended, [1])
        self.assertIn("yield from", str(self.flushLoggedErrors(TypeError)[0].value))

    def test_on_asyncio_it_may_wait_for_what_is_of_asyncio(self) -> None:
        @types.coroutine
        def hook(server: SMTP, *arguments: Any) -> Any:
            yield from asyncio.sleep(0)
            yield
            yield from server.push("250-one")
            return "250 two"

        async def talk() -> bytes:
            client = connect(hooks(handle_NOOP=hook))
            said = client.send(b"NOOP\r\n")
            for _ in range(9):
                await asyncio.sleep(0)
            return said + client.read()

        self.assertEqual(codes(asyncio.run(talk())), [250])

    def test_it_is_closed_when_its_client_goes(self) -> None:
        def auth_FOO(server: SMTP, args: list[str]) -> Any:
            try:
                yield from server.challenge_auth("who?")
            finally:
                ended.append(1)

        ended: list[int] = []
        client = connect(hooks(auth_FOO=auth_FOO), auth_require_tls=False)
        client.send(EHLO + b"AUTH FOO\r\n")
        client.lose()
        self.assertEqual(ended, [1])

    def test_what_push_returns_is_a_coroutine_too(self) -> None:
        async def wait() -> None:
            await asyncio.sleep(0)

        async def talk() -> None:
            for what in (DONE, Waiting(wait())):
                await asyncio.gather(asyncio.create_task(what))

        asyncio.run(talk())
        one = Waiting(wait())
        self.assertRaises(KeyError, one.throw, KeyError())
        Waiting(wait()).close()


class OneReplyTests(WarningsMixin):
    """Seen: a hook that pushes a final reply and returns nothing: two replies, and everything is out of step."""

    def hook(self, *then: Any) -> Callable[..., Any]:
        async def hook(server: SMTP, *arguments: Any) -> Any:
            await server.push("250-one")
            await server.push("250 pushed")
            for end in then:
                if isinstance(end, Exception):
                    raise end
                return end

        return hook

    def test_a_pushed_reply_is_the_reply(self) -> None:
        handler = hooks(**{f"handle_{verb}": self.hook() for verb in ("NOOP", "MAIL", "RCPT", "DATA", "RSET", "VRFY")})
        client = connect(handler)
        said = client.send(ENVELOPE + b"DATA\r\nhi\r\n.\r\nNOOP\r\nRSET\r\nVRFY a\r\n")
        self.assertEqual(codes(said), [250, 250, 250, 354, 250, 250, 250, 250])

    def test_a_pushed_refusal_refuses(self) -> None:
        async def refuse(server: SMTP, *arguments: Any) -> None:
            await server.push("550 no")

        client = connect(hooks(handle_RCPT=refuse))
        self.assertEqual(codes(client.send(ENVELOPE + b"DATA\r\n")), [250, 250, 550, 554])
        self.assertEqual(client.protocol.envelope.recipients, [])
        client = connect(hooks(handle_CONNECT=refuse))
        self.assertEqual(codes(client.read() + client.send(EHLO)), [550, 503])
        client = connect(hooks(handle_EHLO=refuse))
        self.assertEqual(codes(client.send(EHLO + b"MAIL FROM:<a@b.example>\r\n")), [550, 503])

    def test_what_is_returned_then_is_not_sent(self) -> None:
        events = self.warnings()
        for status in ("250 OK", "550 no", b"250", 17):
            self.assertEqual(codes(connect(hooks(handle_NOOP=self.hook(status))).send(b"NOOP\r\nRSET\r\n")), [250, 250])
        self.assertEqual([event["fault"].split()[0] for event in events], ["handle_NOOP"] * 4)

    def test_what_is_raised_then_is_logged(self) -> None:
        client = connect(hooks(handle_DATA=self.hook(ZeroDivisionError())))
        self.assertEqual(codes(client.send(ENVELOPE + b"DATA\r\nhi\r\n.\r\nNOOP\r\n"))[3:], [354, 250, 250])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_421_closes_all_the_same(self) -> None:
        async def hook(server: SMTP, *arguments: Any) -> None:
            await server.push("421 4.3.2 bye")

        client = connect(hooks(handle_NOOP=hook))
        self.assertEqual(codes(client.send(b"NOOP\r\nNOOP\r\n")), [421])
        self.assertTrue(client.closed)

    def test_lines_that_announce_more_are_no_reply(self) -> None:
        async def hook(server: SMTP, *arguments: Any) -> str:
            await server.push("250-one")
            return "250 two"

        self.assertEqual(connect(hooks(handle_NOOP=hook)).send(b"NOOP\r\n"), b"250-2.0.0 one\r\n250 2.0.0 two\r\n")

    def test_lmtp_has_a_reply_for_each_recipient(self) -> None:
        """A hook written for aiosmtpd pushes them by itself."""

        def hook(count: int, *then: Any) -> Callable[..., Any]:
            async def handle_DATA(server: SMTP, *arguments: Any) -> Any:
                for number in range(count):
                    await server.push(f"25{number} pushed")
                for end in then:
                    return end

            return handle_DATA

        send = SENT.replace(b"EHLO", b"LHLO")
        for count, then, expected in (
            (3, (), [250, 251, 252]),
            (2, ("550 no",), [250, 251, 550]),
            (1, ("550 no",), [250, 550, 550]),
            (2, (), [250, 251, 451]),
            (0, ("250 OK",), [250, 250, 250]),
        ):
            client = connect(hooks(handle_DATA=hook(count, *then)), protocol=LMTP)
            client.read()
            self.assertEqual(codes(client.send(send + send))[-3:], expected, count)
        self.assertEqual(len(self.flushLoggedErrors(BadStatus)), 2)


class CommandReplyTests(SynchronousTestCase):
    """Seen: a command method that returns a string, or nothing, and pushes nothing: the client waits for ever."""

    def server(self, method: Callable[..., Any], **members: Any) -> Client:
        return connect(protocol=type("Server", (SMTP,), {"smtp_XHELLO": syntax("XHELLO")(method), **members}))

    def test_a_command_without_a_reply_is_a_local_error(self) -> None:
        async def returns_status(self: SMTP, arg: str | None) -> str:
            return "250 OK"

        async def returns_nothing(self: SMTP, arg: str | None) -> None:
            """Forgets it."""

        async def begins(self: SMTP, arg: str | None) -> None:
            await self.push("250-one")

        for method in (returns_status, returns_nothing, begins, lambda self, arg: "250 OK"):
            client = self.server(method)
            self.assertEqual(codes(client.send(b"XHELLO\r\nNOOP\r\n")), [451, 250])
            self.assertIn("has sent no reply", str(self.flushLoggedErrors(BadStatus)[0].value))

    def test_a_command_may_say_go_ahead_and_read_on(self) -> None:
        async def smtp_XHELLO(self: SMTP, arg: str | None) -> None:
            await self.push("354 go ahead")
            self.setRawMode()

        async def silent(self: SMTP, arg: str | None) -> None:
            self.setRawMode()

        def rawDataReceived(self: SMTP, data: bytes) -> None:
            self.sendLine(b"250 thanks")
            self.setLineMode()

        client = self.server(smtp_XHELLO, rawDataReceived=rawDataReceived)
        self.assertEqual(codes(client.send(b"XHELLO\r\n") + client.send(b"x")), [354, 250])
        client = self.server(silent, rawDataReceived=rawDataReceived)
        self.assertEqual(client.send(b"XHELLO\r\n"), b"")

    def test_a_command_may_close_or_send_a_line(self) -> None:
        def closes(self: SMTP, arg: str | None) -> None:
            assert self.transport is not None
            self.transport.loseConnection()

        def line(self: SMTP, arg: str | None) -> None:
            self.sendLine(b"250 OK")

        self.assertEqual(self.server(closes).send(b"XHELLO\r\n"), b"")
        self.assertEqual(self.server(line).send(b"XHELLO\r\n"), b"250 OK\r\n")

    def test_a_command_may_call_a_hook_after_its_reply(self) -> None:
        async def smtp_XHELLO(self: SMTP, arg: str | None) -> None:
            await self.push("250 OK")
            await self._call_handler_hook("NOOP", arg)

        server = type("Server", (SMTP,), {"smtp_XHELLO": smtp_XHELLO})
        client = connect(hooks(handle_NOOP=lambda *arguments: "250 unused"), protocol=server)
        self.assertEqual(codes(client.send(b"XHELLO\r\n")), [250])


class PushedBytesTests(SynchronousTestCase):
    def test_push_takes_bytes(self) -> None:
        async def hook(server: SMTP, *arguments: Any) -> None:
            await server.push(b"250-one\r\n250 two")

        self.assertEqual(connect(hooks(handle_NOOP=hook)).send(b"NOOP\r\n"), b"250-2.0.0 one\r\n250 2.0.0 two\r\n")
