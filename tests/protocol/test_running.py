"""The command in progress: clients that go away, lines that it waits for, its context."""

from __future__ import annotations

import gc
import weakref
from contextvars import ContextVar
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import (
    ENVELOPE,
    MESSAGE,
    Client,
    Promises,
    Recorder,
    Transport,
    answering,
    codes,
    connect,
    hooks,
    join,
    last_line,
    make_factory,
    pass_time,
    stubborn,
)
from twisted_smtpd.runtime.awaiting import HookExit
from twisted_smtpd.smtp import SMTP, AuthResult, SMTPReplyError, syntax


class LostTests(SynchronousTestCase):
    """The client may go at every step: nothing raises, nothing stays."""

    session = MESSAGE + b"RSET\r\nVRFY a\r\n" + MESSAGE + b"NOOP\r\n"

    def test_after_each_octet(self) -> None:
        for end in range(len(self.session)):
            handler = Recorder()
            client = connect(handler)
            client.send(self.session[:end])
            client.lose()
            self.assertEqual(client.protocol.connections.buffered, 0, end)
            self.assertEqual(client.protocol.connections.open, set())
            self.assertEqual(len(handler.envelopes), self.session[:end].count(b"\r\n.\r\n"))
        self.assertEqual(self.flushLoggedErrors(), [])

    def freed_at_once(self, client: Client, what: object = None) -> None:
        """Without the garbage collector: a message must not wait for it, and it takes time from every connection."""
        protocol = weakref.ref(client.protocol)
        client.transport.protocol = None  # as Twisted's transports do
        del client.protocol
        self.assertIsNone(protocol(), what)

    def test_nothing_stays_in_memory(self) -> None:
        gc.disable()
        self.addCleanup(gc.enable)
        for end in (0, len(ENVELOPE), len(MESSAGE) - 3, len(MESSAGE)):
            for handler in (None, hooks(handle_DISCONNECT=answering(None))):
                client = connect(handler)
                client.send(MESSAGE[:end])
                client.lose()
                self.freed_at_once(client, end)

    def test_nor_after_a_hook_that_went_on(self) -> None:
        gc.disable()
        self.addCleanup(gc.enable)
        for name in ("DATA", "DISCONNECT"):
            promises = Promises()
            client = connect(hooks(**{f"handle_{name}": promises}))
            client.send(MESSAGE)
            client.lose()
            for promise in promises.made:
                if not promise.called:
                    promise.callback("250 OK")
            del promises, promise
            self.freed_at_once(client, name)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_nor_after_a_client_that_signed_in_or_is_turned_away(self) -> None:
        gc.disable()
        self.addCleanup(gc.enable)
        client = connect(auth_require_tls=False, authenticator=lambda *arguments: AuthResult(success=True))
        client.send(b"EHLO a\r\nAUTH PLAIN AGEAYg==\r\n")
        client.lose()
        self.freed_at_once(client)
        factory = make_factory(max_connections=1)
        first, client = join(factory), join(factory)
        client.lose()
        self.freed_at_once(client)
        first.lose()

    def test_a_hook_at_work_is_cancelled(self) -> None:
        for name, command in (("CONNECT", b""), ("NOOP", b"NOOP\r\n"), ("EHLO", ENVELOPE), ("RCPT", ENVELOPE)):
            promises = Promises()
            client = connect(hooks(**{f"handle_{name}": promises}))
            client.send(command)
            client.lose()
            self.assertEqual(promises.cancelled, promises.made, name)
            self.assertEqual(len(promises.made), 1)
            self.assertEqual(client.read(), b"")
            self.assertEqual(client.protocol.connections.open, set())
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_hook_that_has_the_message_is_left_to_finish(self) -> None:
        promises = Promises()
        client = connect(hooks(handle_DATA=promises))
        client.send(MESSAGE)
        client.lose()
        self.assertEqual(promises.cancelled, [])
        promises.made[0].callback("250 OK")
        self.assertEqual(client.protocol.connections.buffered, 0)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_one_that_has_it_and_refuses_it_in_a_command_of_its_own(self) -> None:
        promises = Promises()

        class Mine(SMTP):
            async def smtp_DATA(self, arg: str | None) -> None:
                await super().smtp_DATA(arg)
                raise SMTPReplyError(450, None, "never heard")

        client = connect(hooks(handle_DATA=promises), protocol=Mine)
        client.send(MESSAGE)
        client.lose()
        promises.made[0].callback("250 OK")
        self.assertEqual(client.protocol.connections.open, set())

    def test_a_hook_after_a_message_is_cancelled_again(self) -> None:
        promises = Promises()
        client = connect(hooks(handle_NOOP=promises))
        client.send(MESSAGE + b"NOOP\r\n")
        client.lose()
        self.assertEqual(promises.cancelled, promises.made)
        self.assertEqual(len(promises.made), 1)

    def test_a_hook_that_has_the_message_and_fails_is_logged(self) -> None:
        promises = Promises()
        client = connect(hooks(handle_DATA=promises))
        client.send(MESSAGE)
        client.lose()
        promises.made[0].errback(KeyError())
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_a_hook_that_waits_again_after_its_client_has_gone(self) -> None:
        """It is cancelled once only: it may clean up."""
        promises = Promises()
        client = connect(hooks(handle_NOOP=stubborn(promises)))
        client.send(b"NOOP\r\n")
        client.lose()
        self.assertEqual(len(promises.made), 2)
        promises.made[-1].callback("250 OK")

    def test_a_hook_that_drops_its_own_client_and_waits(self) -> None:
        promises = Promises()

        def hook(server: SMTP, *arguments: Any) -> Any:
            client.lose()
            return promises()

        client = connect(hooks(handle_NOOP=hook))
        client.send(b"NOOP\r\nNOOP\r\n")
        self.assertEqual(promises.cancelled, promises.made)
        self.assertEqual(len(promises.made), 1)

    def test_commands_that_were_sent_ahead_are_not_run(self) -> None:
        promises = Promises()
        client = connect(hooks(handle_NOOP=promises))
        client.send(b"NOOP\r\nNOOP\r\n")
        client.lose()
        self.assertEqual(len(promises.made), 1)

    def test_a_command_that_fails_while_it_is_given_up(self) -> None:
        class Mine(SMTP):
            async def smtp_ASK(self, arg: str | None) -> None:
                try:
                    await self.read_line(100)
                finally:
                    raise KeyError

        called: list[str] = []
        client = connect(hooks(handle_DISCONNECT=lambda *arguments: called.append("gone")), protocol=Mine)
        client.send(b"ASK\r\n")
        client.lose()
        self.assertEqual(called, ["gone"])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_a_command_that_asks_after_its_client_has_gone(self) -> None:
        ended: list[bool] = []

        class Mine(SMTP):
            async def smtp_ASK(self, arg: str | None) -> None:
                client.lose()
                try:
                    await self.read_line(100)
                finally:
                    ended.append(True)

        client = connect(protocol=Mine)
        client.send(b"ASK\r\n")
        self.assertEqual(ended, [True])


class HalfCloseTests(SynchronousTestCase):
    """RFC 2920: a client may send all it has and shut down its side; it still gets the replies."""

    def test_pipelined_commands_are_answered(self) -> None:
        handler = Recorder()
        client = connect(handler)
        client.protocol.dataReceived(MESSAGE + b"NOOP\r\n")
        client.finish_sending()
        self.assertEqual(codes(client.read()), [250, 250, 250, 354, 250, 250])
        self.assertTrue(client.closed)
        self.assertEqual(len(handler.envelopes), 1)

    def test_a_hook_at_work_is_waited_for(self) -> None:
        promises = Promises()
        client = connect(hooks(handle_DATA=promises, handle_RCPT=promises))
        client.send(MESSAGE + b"NOOP\r\n")
        client.finish_sending()
        self.assertFalse(client.closed)
        promises.made[0].callback("250 OK")
        self.assertFalse(client.closed)
        self.assertEqual(promises.cancelled, [])
        promises.made[1].callback("250 stored")
        self.assertEqual(codes(client.read()), [250, 354, 250, 250])
        self.assertTrue(client.closed)

    def test_a_message_without_an_end_is_none(self) -> None:
        handler = Recorder()
        client = connect(handler)
        client.send(MESSAGE[:-3])
        client.finish_sending()
        self.assertTrue(client.closed)
        client.lose()
        self.assertEqual(handler.envelopes, [])
        self.assertEqual(client.protocol.connections.buffered, 0)

    def test_half_a_command_is_none(self) -> None:
        client = connect()
        client.send(b"NOOP")
        client.finish_sending()
        self.assertEqual(client.read(), b"")
        self.assertTrue(client.closed)

    def test_with_the_greeting_still_to_come(self) -> None:
        promises = Promises()
        client = connect(hooks(handle_CONNECT=promises))
        client.send(b"NOOP\r\nQUIT\r\n")
        client.finish_sending()
        self.assertFalse(client.closed)
        promises.made[0].callback("220 x")
        self.assertEqual(codes(client.read()), [220, 250, 221])
        self.assertTrue(client.closed)

    def test_a_client_that_does_not_read_either(self) -> None:
        client = connect(timeout=10)
        client.protocol._output.pauseProducing()
        client.send(b"NOOP\r\n")
        client.finish_sending()
        self.assertFalse(client.closed)
        pass_time(client, 12)
        self.assertTrue(client.aborted)

    def test_our_side_is_never_shut_down_alone(self) -> None:
        client = connect()
        client.protocol.writeConnectionLost()
        self.assertEqual(codes(client.send(b"NOOP\r\n")), [250])


class LineTests(SynchronousTestCase):
    def test_the_longest_line_is_the_same_however_it_arrives(self) -> None:
        limit = connect().protocol.max_command_size_limit - len(b"\r\n")
        for length in range(limit - 3, limit + 4):
            # A verb that is not known has no limit of its own.
            for line in (b"x" * length, b"x" * (length - 1) + b"\r", b"x" * (length - 1) + b"\n"):
                at_once = connect().send(line + b"\r\n")
                client = connect()
                client.send(line[: limit - 5])
                in_octets = b"".join(client.send(bytes((octet,))) for octet in line[limit - 5 :] + b"\r\n")
                self.assertEqual(in_octets, at_once, line[-5:])
                self.assertEqual(b"too long" in at_once, length > limit, (length, line[-5:]))

    def test_a_line_without_an_end_takes_no_memory(self) -> None:
        client = connect()
        for _ in range(100):
            client.send(b"x" * 1000)
        self.assertLess(len(client.protocol._buffer), 2)
        self.assertEqual(codes(client.send(b"\r\nNOOP\r\n")), [250])

    def test_a_cr_before_the_end_of_a_long_line(self) -> None:
        client = connect()
        client.send(b"x" * 20000 + b"\r")
        self.assertEqual(codes(client.send(b"\nNOOP\r\n")), [250])
        client.send(b"x" * 20000 + b"\r")
        self.assertEqual(codes(client.send(b"y\nNOOP\r\nNOOP\r\n")), [250])


class Asking(SMTP):
    """A command that is a dialog of its own."""

    heard: list[bytes]

    @syntax("ASK")
    async def smtp_ASK(self, arg: str | None) -> None:
        self.heard = []
        for number in range(2):
            await self.push(f"334 {number}")
            self.heard.append(await self.read_line(20))
        await self.push("250 OK")


class ReadLineTests(SynchronousTestCase):
    def test_lines_are_handed_over(self) -> None:
        client = connect(protocol=Asking)
        self.assertEqual(codes(client.send(b"ASK\r\n")), [334])
        self.assertEqual(codes(client.send(b"one\r\n")), [334])
        self.assertEqual(codes(client.send(b"\xff\0\r\nNOOP\r\n")), [250, 250])
        self.assertEqual(client.protocol.heard, [b"one", b"\xff\0"])

    def test_all_at_once_and_in_octets(self) -> None:
        data = b"ASK\r\nQUIT\r\nNOOP\r\nNOOP\r\n"
        client = connect(protocol=Asking)
        self.assertEqual(codes(client.send(data)), [334, 334, 250, 250])
        client = connect(protocol=Asking)
        self.assertEqual(codes(b"".join(client.send(bytes((octet,))) for octet in data)), [334, 334, 250, 250])

    def test_the_limit(self) -> None:
        for line, expected in ((b"x" * 20, 334), (b"x" * 21, 500), (b"x" * 3000, 500)):
            for split in (False, True):
                client = connect(protocol=Asking)
                client.send(b"ASK\r\n")
                data = line + b"\r\n"
                said = b"".join(client.send(bytes((octet,))) for octet in data) if split else client.send(data)
                self.assertEqual(codes(said), [expected], (line, split))
                if expected == 500:
                    self.assertEqual(codes(client.send(b"NOOP\r\n")), [250])

    def test_a_limit_above_that_of_commands(self) -> None:
        class Long(SMTP):
            async def smtp_ASK(self, arg: str | None) -> None:
                await self.push(f"250 {len(await self.read_line(12288))}")

        client = connect(protocol=Long)
        self.assertEqual(client.send(b"ASK\r\n" + b"x" * 12288 + b"\r\n"), b"250 2.0.0 12288\r\n")

    def test_a_client_that_does_not_read_is_not_read_from(self) -> None:
        class Mine(SMTP):
            async def smtp_ASK(self, arg: str | None) -> None:
                self._output.pauseProducing()
                await self.push(f"250 {(await self.read_line(100)).decode()}")

        client = connect(protocol=Mine)
        self.assertEqual(client.send(b"ASK\r\nyes\r\n"), b"")
        client.protocol._output.resumeProducing()
        self.assertEqual(client.read(), b"250 2.0.0 yes\r\n")

    def test_a_silent_client(self) -> None:
        client = connect(protocol=Asking, timeout=10)
        client.send(b"ASK\r\n")
        pass_time(client, 12)
        self.assertEqual(codes(client.read()), [421])

    def test_a_client_that_goes(self) -> None:
        client = connect(protocol=Asking)
        client.send(b"ASK\r\n")
        client.lose()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(client.protocol.connections.open, set())

    def test_a_client_that_shuts_down_its_side(self) -> None:
        client = connect(protocol=Asking)
        client.send(b"ASK\r\n")
        client.finish_sending()
        self.assertTrue(client.closed)

    def test_a_deferred_may_be_awaited_between_lines(self) -> None:
        promises = Promises()

        class Mine(SMTP):
            async def smtp_ASK(self, arg: str | None) -> None:
                first = await self.read_line(100)
                answer = await promises()
                second = await self.read_line(100)
                await self.push(f"250 {first.decode()} {answer} {second.decode()}")

        client = connect(protocol=Mine)
        client.send(b"ASK\r\none\r\ntwo\r\nNOOP\r\n")
        promises.made[0].callback("x")
        self.assertEqual(client.read(), b"250 2.0.0 one x two\r\n250 2.0.0 OK\r\n")


class ContextTests(SynchronousTestCase):
    def test_a_context_variable_holds_for_the_connection(self) -> None:
        name: ContextVar[str] = ContextVar("name", default="nobody")
        promises = Promises()

        async def mail(server: SMTP, session: Any, envelope: Any, address: str, options: list[str]) -> Any:
            name.set(address)
            await promises()
            self.assertEqual(name.get(), address)
            return "250 OK"

        handler = hooks(handle_MAIL=mail, handle_NOOP=lambda *arguments: f"250 {name.get()}")
        one, other = connect(handler), connect(handler)
        one.send(b"EHLO c\r\nMAIL FROM:<one@x.example>\r\n")
        other.send(b"EHLO c\r\nMAIL FROM:<other@x.example>\r\n")
        promises.made[1].callback(None)
        promises.made[0].callback(None)
        self.assertEqual(last_line(one.send(b"NOOP\r\n")), "250 2.0.0 one@x.example")
        self.assertEqual(last_line(other.send(b"NOOP\r\n")), "250 2.0.0 other@x.example")
        self.assertEqual(name.get(), "nobody")

    def test_one_connections_hook_may_wake_anothers(self) -> None:
        promises = Promises()

        def wake(*arguments: Any) -> str:
            promises.made[0].callback("250 woken")
            return "250 OK"

        handler = hooks(handle_VRFY=promises, handle_NOOP=wake)
        one, other = connect(handler), connect(handler)
        one.send(b"VRFY a\r\n")
        self.assertEqual(codes(other.send(b"NOOP\r\n")), [250])
        self.assertEqual(last_line(one.read()), "250 2.0.0 woken")


class AsyncioOnAnotherReactorTests(SynchronousTestCase):
    def test_the_error_names_the_reactor(self) -> None:
        import asyncio

        said: list[str] = []

        async def hook(*arguments: Any) -> str:
            loop = asyncio.new_event_loop()
            try:
                await loop.create_future()
            except RuntimeError as error:
                said.append(str(error))
                raise
            finally:
                loop.close()
            return "250 OK"

        self.assertEqual(codes(connect(hooks(handle_NOOP=hook)).send(b"NOOP\r\n")), [451])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIn("--reactor=asyncio", said[0])

    def test_a_hook_that_waits_for_it_again_and_again(self) -> None:
        import asyncio

        async def hook(*arguments: Any) -> str:
            for _ in range(3):
                try:
                    await asyncio.sleep(0)
                except RuntimeError:
                    continue
            return "250 OK"

        self.assertEqual(codes(connect(hooks(handle_NOOP=hook)).send(b"NOOP\r\n")), [250])


class BareDialogTests(SynchronousTestCase):
    def test_errors_that_end_a_process_are_not_kept(self) -> None:
        def hook(*arguments: Any) -> str:
            raise KeyboardInterrupt

        client = connect(hooks(handle_NOOP=hook))
        self.assertRaises(KeyboardInterrupt, client.protocol.dataReceived, b"NOOP\r\n")

    def test_a_transport_without_a_socket(self) -> None:
        self.assertFalse(hasattr(Transport(), "setTcpNoDelay"))
        self.assertEqual(codes(connect().send(b"NOOP\r\n")), [250])

    def test_a_command_may_answer_with_an_error_of_its_own(self) -> None:
        class Mine(SMTP):
            async def smtp_FOO(self, arg: str | None) -> None:
                promise: Deferred[None] = Deferred()
                waiting.append(promise)
                await promise
                raise SMTPReplyError(550, "5.7.1", "no\nreally")

        waiting: list[Deferred[None]] = []
        client = connect(protocol=Mine)
        client.send(b"FOO\r\n")
        waiting[0].callback(None)
        self.assertEqual(client.read(), b"550-5.7.1 no\r\n550 5.7.1 really\r\n")


class EndOfProgramTests(SynchronousTestCase):
    def test_a_hook_that_has_waited_and_then_ends_the_program_leaves_no_client_waiting(self) -> None:
        waited: Deferred[None] = Deferred()
        ended: list[Any] = []

        async def handle_RCPT(*_: object) -> str:
            await waited
            raise SystemExit(3)

        factory = make_factory(hooks(handle_RCPT=handle_RCPT, handle_DISCONNECT=lambda *_: ended.append(1)))
        client = join(factory)
        client.send(ENVELOPE)
        waited.callback(None)
        self.assertEqual(codes(client.read())[-1], 451)
        client.lose()
        self.assertEqual((len(factory.connections.open), ended), (0, [1]))
        self.assertEqual(len(self.flushLoggedErrors(HookExit)), 1)
