"""The contract with handlers, sentence by sentence: what hooks get, may return, and what becomes of their failures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import (
    ENVELOPE,
    MESSAGE,
    answering,
    codes,
    connect,
    hooks,
    last_line,
    raiser,
)
from twisted_smtpd.session import Envelope, Session
from twisted_smtpd.smtp import MISSING, SMTP, Reply, SMTPReplyError
from twisted_smtpd.wire.replies import BadStatus

SECRET = "hunter2"

# Each hook with the command that calls it, and what comes before.
CALLED_BY: dict[str, tuple[bytes, bytes]] = {
    "handle_HELO": (b"", b"HELO client\r\n"),
    "handle_EHLO": (b"", b"EHLO client\r\n"),
    "handle_NOOP": (b"", b"NOOP\r\n"),
    "handle_RSET": (b"", b"RSET\r\n"),
    "handle_VRFY": (b"", b"VRFY a@b.example\r\n"),
    "handle_QUIT": (b"", b"QUIT\r\n"),
    "handle_MAIL": (b"EHLO c\r\n", b"MAIL FROM:<a@b.example>\r\n"),
    "handle_RCPT": (b"EHLO c\r\nMAIL FROM:<a@b.example>\r\n", b"RCPT TO:<c@d.example>\r\n"),
    "handle_DATA": (ENVELOPE + b"DATA\r\n", b"x\r\n.\r\n"),
}


class LastReplyMixin(SynchronousTestCase):
    def reply(self, name: str, hook: Callable[..., Any], **others: Callable[..., Any]) -> str:
        """The last line of what the client hears when this hook is called."""
        client = connect(hooks(**{name: hook}, **others))
        before, command = CALLED_BY[name]
        client.send(before)
        return last_line(client.send(command))


class StatusTests(LastReplyMixin):
    """What a hook may return, for each hook."""

    def each(self, hook: Callable[..., Any], expected: str) -> None:
        for name in CALLED_BY:
            self.assertEqual(self.reply(name, hook)[: len(expected)], expected, name)

    def test_a_plain_function(self) -> None:
        self.each(answering("458 later"), "458")

    def test_a_coroutine_function(self) -> None:
        async def hook(*arguments: Any) -> str:
            return "458 later"

        self.each(hook, "458")

    def test_a_deferred(self) -> None:
        self.each(lambda *arguments: succeed("458 later"), "458")
        self.each(lambda *arguments: fail(SMTPReplyError(458, None, "later")), "458")

    def test_a_coroutine_that_awaits_deferreds(self) -> None:
        async def hook(*arguments: Any) -> str:
            return await succeed("458 ") + await succeed("later")

        self.each(hook, "458")

    def test_a_deferred_that_fires_later(self) -> None:
        for name, (before, command) in CALLED_BY.items():
            promise: Deferred[str] = Deferred()
            client = connect(hooks(**{name: answering(promise)}))
            client.send(before)
            self.assertEqual(client.send(command), b"", name)
            promise.callback("458 later")
            self.assertEqual(last_line(client.read())[:3], "458", name)

    def test_a_reply(self) -> None:
        self.each(answering(Reply(458, "4.1.2", ("later",))), "458 ")
        self.assertEqual(self.reply("handle_NOOP", answering(Reply(250, "2.1.7", ("x", "y")))), "250 2.1.7 y")

    def test_a_raised_reply(self) -> None:
        self.each(raiser(SMTPReplyError(458, "4.1.2", "later")), "458 ")
        self.assertEqual(self.reply("handle_RCPT", raiser(SMTPReplyError(550, "5.1.1", "no"))), "550 5.1.1 no")

    def test_an_enhanced_code_is_kept_or_added(self) -> None:
        self.assertEqual(self.reply("handle_RCPT", answering("550 5.7.1 no")), "550 5.7.1 no")
        self.assertEqual(self.reply("handle_RCPT", answering("550 no")), "550 5.1.0 no")
        self.assertEqual(self.reply("handle_EHLO", answering("550 no")), "550 no")

    def test_a_missing_return_is_a_local_error(self) -> None:
        self.each(answering(None), "451")
        self.assertEqual(len(self.flushLoggedErrors(BadStatus)), len(CALLED_BY))

    def test_nonsense_is_a_local_error(self) -> None:
        for status in ("OK", "", "99 x", "250OK", "2500 x", b"250 OK", 250, ["250 OK", "250 OK", "x"], MISSING, True):
            if status is MISSING:
                continue
            self.assertEqual(self.reply("handle_NOOP", answering(status))[:10], "451 4.3.0 ", repr(status))
        self.assertEqual(len(self.flushLoggedErrors(BadStatus)), 9)

    def test_several_lines(self) -> None:
        for status in ("250-one\r\n250 two", "250-one\n250-two", "250 one\ntwo", "250-one\r\n250-two\r\n"):
            client = connect(hooks(handle_NOOP=answering(status)))
            self.assertEqual(client.send(b"NOOP\r\n"), b"250-2.0.0 one\r\n250 2.0.0 two\r\n", status)

    def test_a_last_line_that_announces_another_is_the_last(self) -> None:
        self.each(answering("458-later"), "458 ")

    def test_line_ends_and_controls_forge_nothing(self) -> None:
        for text in ("x\r\n221 bye\r\n354 go", "x\n550 y", "x\ry", "x\0y", "x\x85y\u2028z"):
            client = connect(hooks(handle_NOOP=answering(f"250 {text}")))
            self.assertEqual(codes(client.send(b"NOOP\r\n")), [250], repr(text))

    def test_421_closes_whatever_hook_says_it(self) -> None:
        for name, (before, command) in CALLED_BY.items():
            for status in ("421 4.3.2 no", "521 5.3.2 no"):
                client = connect(hooks(**{name: answering(status)}))
                client.send(before)
                self.assertEqual(last_line(client.send(command + b"NOOP\r\n"))[:3], status[:3], name)
                self.assertTrue(client.closed, name)

    def test_quit_closes_whatever_its_hook_says(self) -> None:
        for hook in (answering("250 no"), answering(None), raiser(ValueError())):
            client = connect(hooks(handle_QUIT=hook))
            client.send(b"QUIT\r\nNOOP\r\n")
            self.assertTrue(client.closed)
        self.flushLoggedErrors(BadStatus, ValueError)


class DefaultTests(LastReplyMixin):
    def test_a_handler_without_hooks_takes_messages(self) -> None:
        self.assertEqual(codes(connect().send(MESSAGE)), [250, 250, 250, 354, 250])

    def test_declared_but_missing_hooks_are_defaults(self) -> None:
        client = connect(hooks(handle_exception=answering("542 x")))
        self.assertEqual(codes(client.send(MESSAGE + b"RSET\r\nNOOP\r\nVRFY a\r\nQUIT\r\n"))[-4:], [250, 250, 252, 221])


class FailureTests(LastReplyMixin):
    """RFC 5321 section 4.2.1: a defect in a hook is a temporary error, and none of the client's business."""

    def test_any_exception_is_451_with_the_session_and_without_its_text(self) -> None:
        for name, (before, command) in CALLED_BY.items():
            client = connect(hooks(**{name: raiser(RuntimeError(SECRET))}))
            client.send(before)
            said = client.send(command)
            self.assertNotIn(SECRET.encode(), said)
            self.assertEqual(last_line(said)[:4], "451 ", name)
            self.assertIn(client.protocol.session.id, last_line(said))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), len(CALLED_BY))

    def test_failed_deferreds_and_coroutines_are_no_different(self) -> None:
        async def broken(*arguments: Any) -> str:
            raise RuntimeError(SECRET)

        for hook in (broken, lambda *arguments: fail(RuntimeError(SECRET))):
            said = self.reply("handle_NOOP", hook)
            self.assertEqual(said[:10], "451 4.3.0 ")
            self.assertNotIn(SECRET, said)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_the_dialog_goes_on(self) -> None:
        client = connect(hooks(handle_DATA=raiser(RuntimeError())))
        self.assertEqual(codes(client.send(MESSAGE + MESSAGE))[4:], [451, 250, 250, 250, 354, 451])
        self.flushLoggedErrors(RuntimeError)

    def test_the_session_is_in_the_log(self) -> None:
        from twisted.logger import formatEvent, globalLogPublisher

        events: list[Any] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        client = connect(hooks(handle_NOOP=raiser(RuntimeError())))
        client.send(b"NOOP\r\n")
        self.flushLoggedErrors(RuntimeError)
        said = [formatEvent(event) for event in events if "log_failure" in event]
        self.assertEqual(len(said), 1)
        self.assertIn(client.protocol.session.id, said[0])

    def test_a_hook_that_is_not_callable(self) -> None:
        handler = hooks()
        handler.handle_NOOP = "250 OK"
        self.assertEqual(codes(connect(handler).send(b"NOOP\r\n")), [451])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)


class HandleExceptionTests(LastReplyMixin):
    def test_it_chooses_the_status(self) -> None:
        async def asynchronous(error: Exception) -> str:
            return f"542 {type(error).__name__}"

        for hook in (lambda error: f"542 {type(error).__name__}", asynchronous, lambda error: succeed("542 KeyError")):
            said = self.reply("handle_NOOP", raiser(KeyError(SECRET)), handle_exception=hook)
            self.assertEqual(said, "542 5.0.0 KeyError")

    def test_it_may_wait(self) -> None:
        promise: Deferred[str] = Deferred()
        client = connect(hooks(handle_NOOP=raiser(KeyError()), handle_exception=answering(promise)))
        self.assertEqual(client.send(b"NOOP\r\nRSET\r\n"), b"")
        promise.callback("542 x")
        self.assertEqual(codes(client.read()), [542, 250])

    def test_none_nonsense_and_a_raise_are_500(self) -> None:
        for hook in (answering(None), answering("nonsense"), raiser(RuntimeError(SECRET))):
            said = self.reply("handle_NOOP", raiser(KeyError(SECRET)), handle_exception=hook)
            self.assertEqual(said[:10], "500 5.3.0 ")
            self.assertNotIn(SECRET, said)
            self.assertEqual(len(self.flushLoggedErrors(BadStatus, RuntimeError)), 1)
            self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1, "what failed first is logged as well")

    def test_it_is_not_called_for_the_clients_mistakes(self) -> None:
        client = connect(hooks(handle_exception=answering("542 x"), handle_NOOP=raiser(SMTPReplyError(450))))
        self.assertEqual(codes(client.send(b"NOOP\r\nFOO\r\nMAIL\r\n")), [450, 500, 503])

    def test_it_is_not_called_when_the_connection_is_lost(self) -> None:
        called: list[BaseException] = []
        promise: Deferred[str] = Deferred(lambda promise: promise.errback(KeyError()))
        client = connect(hooks(handle_NOOP=answering(promise), handle_exception=called.append))
        client.send(b"NOOP\r\n")
        client.lose()
        self.assertEqual(called, [])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_421_from_it_closes(self) -> None:
        client = connect(hooks(handle_NOOP=raiser(KeyError()), handle_exception=answering("421 x")))
        client.send(b"NOOP\r\n")
        self.assertTrue(client.closed)


class GreetingHookTests(SynchronousTestCase):
    def test_the_hooks_name_is_used(self) -> None:
        def helo(server: SMTP, session: Session, envelope: Envelope, hostname: str) -> str:
            session.host_name = f"<{hostname}>"
            return f"250 {server.hostname}"

        client = connect(hooks(handle_HELO=helo))
        self.assertEqual(client.send(b"HELO a\r\n"), b"250 mx.example\r\n")
        self.assertEqual(client.protocol.session.host_name, "<a>")

    def test_a_hook_that_forgets_the_name(self) -> None:
        for verb in (b"HELO", b"EHLO"):
            client = connect(hooks(handle_HELO=answering("250 x"), handle_EHLO=answering("250 HELP")))
            client.send(verb + b" a\r\n")
            self.assertEqual(client.protocol.session.host_name, "a")
            client.send(verb + b" b\r\n")
            self.assertEqual(client.protocol.session.host_name, "b")

    def test_four_arguments_push_lines_and_return_the_last(self) -> None:
        async def ehlo(server: SMTP, session: Session, envelope: Envelope, hostname: str) -> str:
            session.host_name = hostname
            await server.push("250-X-ONE")
            await server.push("250-X-TWO")
            return "250 HELP"

        said = connect(hooks(handle_EHLO=ehlo)).send(b"EHLO a\r\n")
        self.assertEqual(codes(said), [250])
        self.assertTrue(said.startswith(b"250-mx.example\r\n250-SIZE"))
        self.assertTrue(said.endswith(b"\r\n250-X-ONE\r\n250-X-TWO\r\n250 HELP\r\n"))

    def test_four_arguments_that_refuse(self) -> None:
        """Lines that were pushed before the hook made up its mind don't stand before another code."""

        def refuse(server: SMTP, session: Session, envelope: Envelope, hostname: str) -> str:
            return "550 no"

        def fail(server: SMTP, session: Session, envelope: Envelope, hostname: str) -> str:
            raise SMTPReplyError(550, None, "no")

        for hook in (refuse, fail):
            client = connect(hooks(handle_EHLO=hook))
            self.assertEqual(client.send(b"EHLO a\r\n"), b"550 no\r\n")
            self.assertIsNone(client.protocol.session.host_name)
            self.assertFalse(client.protocol.session.extended_smtp)

    def test_four_arguments_that_fail(self) -> None:
        def hook(server: SMTP, session: Session, envelope: Envelope, hostname: str) -> str:
            raise KeyError

        client = connect(hooks(handle_EHLO=hook))
        self.assertEqual(codes(client.send(b"EHLO a\r\nMAIL FROM:<a@b.example>\r\n")), [451, 503])
        self.flushLoggedErrors(KeyError)

    def test_five_arguments_get_the_lines(self) -> None:
        given_lines: list[str] = []

        class Handler:
            async def handle_EHLO(self, server: Any, session: Any, envelope: Any, hostname: str, responses: Any) -> Any:
                session.host_name = hostname
                given_lines.extend(responses)
                return [line for line in responses if "SIZE" not in line]

        said = connect(Handler()).send(b"EHLO a\r\n")
        self.assertEqual(given_lines[0], "250-mx.example")
        self.assertEqual(given_lines[-1], "250 HELP")
        self.assertIn("250-SIZE 33554432", given_lines)
        self.assertEqual([f"{line}\r\n" for line in given_lines if "SIZE" not in line], said.decode().splitlines(True))

    def test_five_arguments_that_return_a_status_or_nothing(self) -> None:
        for status, expected in (("550 no", 550), (Reply(550), 550), ([], 451), (None, 451), (("250 a",), 250)):
            client = connect(hooks(handle_EHLO=lambda a, b, c, d, responses, status=status: status))
            self.assertEqual(codes(client.send(b"EHLO a\r\n")), [expected], repr(status))
        self.flushLoggedErrors(BadStatus)

    def test_a_refused_greeting_leaves_the_old_one(self) -> None:
        answers = ["250 x", "550 no"]
        client = connect(hooks(handle_HELO=lambda *arguments: answers.pop(0)))
        client.send(b"HELO first\r\nMAIL FROM:<a@b.example>\r\nHELO second\r\n")
        self.assertEqual(client.protocol.session.host_name, "first")
        self.assertEqual(client.protocol.envelope.mail_from, "a@b.example")


class ConnectHookTests(SynchronousTestCase):
    def test_220_is_the_greeting(self) -> None:
        client = connect(hooks(handle_CONNECT=answering("220 hello there")))
        self.assertEqual(client.read(), b"220 hello there\r\n")

    def test_another_2yz_gives_the_usual_greeting(self) -> None:
        client = connect(hooks(handle_CONNECT=answering("250 fine")))
        self.assertEqual(codes(client.send(MESSAGE)), [250, 250, 250, 354, 250])

    def test_554_leaves_only_quit(self) -> None:
        """RFC 5321 section 3.1."""
        client = connect(hooks(handle_CONNECT=answering("554 not you")))
        self.assertEqual(client.read(), b"554 not you\r\n")
        self.assertEqual(codes(client.send(MESSAGE.partition(b"Subject")[0])), [503] * 4)
        self.assertEqual(codes(client.send(b"QUIT\r\n")), [221])
        self.assertTrue(client.closed)

    def test_421_closes_at_once(self) -> None:
        client = connect(hooks(handle_CONNECT=answering("421 not now")))
        self.assertEqual(client.read(), b"421 not now\r\n")
        self.assertTrue(client.closed)

    def test_a_hook_that_fails_lets_nobody_in(self) -> None:
        client = connect(hooks(handle_CONNECT=raiser(KeyError())))
        self.assertEqual(codes(client.read()), [451])
        self.assertEqual(codes(client.send(b"EHLO a\r\nMAIL FROM:<a@b.example>\r\n")), [503, 503])
        self.flushLoggedErrors(KeyError)

    def test_commands_wait_for_it(self) -> None:
        promise: Deferred[str] = Deferred()
        client = connect(hooks(handle_CONNECT=answering(promise)))
        self.assertEqual(client.send(b"NOOP\r\n"), b"")
        promise.callback("220 x")
        self.assertEqual(codes(client.read()), [220, 250])

    def test_the_peer_is_known(self) -> None:
        peers: list[Any] = []

        def hook(server: SMTP, session: Session, envelope: Envelope) -> str:
            peers.append(session.peer)
            return "220 x"

        for host in ("192.0.2.7", IPv6Address("TCP", "2001:db8::1", 5, 6, 7), UNIXAddress("/x"), None):
            address = IPv4Address("TCP", host, 25) if isinstance(host, str) else host
            connect(hooks(handle_CONNECT=hook), host=UNIXAddress(None) if address is None else address)
        self.assertEqual(peers, [("192.0.2.7", 25), ("2001:db8::1", 5, 6, 7), "", ""])


class DisconnectHookTests(SynchronousTestCase):
    def test_it_hears_why(self) -> None:
        reasons: list[Any] = []
        client = connect(hooks(handle_DISCONNECT=lambda server, session, envelope, reason: reasons.append(reason)))
        client.lose(clean=False)
        self.assertEqual(len(reasons), 1)
        self.assertEqual(type(reasons[0]).__name__, "ConnectionLost")

    def test_its_failure_is_logged(self) -> None:
        connect(hooks(handle_DISCONNECT=raiser(KeyError()))).lose()
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_it_may_wait(self) -> None:
        promise: Deferred[None] = Deferred()
        done: list[str] = []

        async def hook(*arguments: Any) -> None:
            await promise
            done.append("done")

        connect(hooks(handle_DISCONNECT=hook)).lose()
        promise.callback(None)
        self.assertEqual(done, ["done"])

    def test_it_is_called_while_the_last_message_is_worked_on(self) -> None:
        promise: Deferred[str] = Deferred()
        called: list[str] = []
        client = connect(
            hooks(handle_DATA=answering(promise), handle_DISCONNECT=lambda *arguments: called.append("gone"))
        )
        client.send(MESSAGE)
        client.lose()
        self.assertEqual(called, ["gone"])
        promise.callback("250 OK")

    def test_it_is_not_called_for_a_connection_that_was_not_served(self) -> None:
        called: list[str] = []
        handler = hooks(handle_DISCONNECT=lambda *arguments: called.append("gone"))
        first = connect(handler, max_connections=1, clock=None)
        second = connect(handler, max_connections=1, clock=None)
        second.lose()
        self.assertEqual(called, [])
        first.lose()
        self.assertEqual(called, ["gone"])
