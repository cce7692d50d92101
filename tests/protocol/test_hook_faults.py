"""What hooks do wrong ends their own command only, and the log says what it was."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import (
    EHLO,
    ENVELOPE,
    MESSAGE,
    Client,
    Promises,
    answering,
    codes,
    connect,
    hooks,
    pass_time,
    raiser,
    stubborn,
)
from tests.support.loops import in_a_loop, turns
from twisted_smtpd.handlers import Chain
from twisted_smtpd.runtime.awaiting import HookExit

PLAIN = b"AUTH PLAIN AGEAYg==\r\n"


class LogCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def errors(self) -> list[str]:
        """The lines of the log that tell of an error."""
        return [formatEvent(event) for event in self.events if event["log_level"] >= LogLevel.error]


class ExitTests(LogCase):
    """``sys.exit()`` in a hook, or in a library that it calls."""

    SCRIPTS = (
        ("handle_CONNECT", b"", 451),
        ("handle_EHLO", EHLO, 451),
        ("handle_MAIL", EHLO + b"MAIL FROM:<a@x.example>\r\n", 451),
        ("handle_RCPT", ENVELOPE, 451),
        ("handle_DATA", MESSAGE, 451),
        ("handle_DATA_STREAM", MESSAGE, 451),
        ("auth_PLAIN", EHLO + PLAIN, 454),
        ("handle_AUTH", EHLO + PLAIN, 454),
    )

    def connect(self, name: str, hook: Any, **options: Any) -> Client:
        if name == "handle_AUTH":
            options["auth_callback"] = lambda *arguments: True
        return connect(hooks(**{name: hook}), auth_require_tls=False, **options)

    def check(self, client: Client, said: bytes, code: int, name: str) -> None:
        self.assertEqual(codes(said)[-1], code, name)
        # The dialog goes on, in step.
        self.assertEqual(len(codes(client.send(b"NOOP\r\nNOOP\r\n"))), 2, name)
        failures = self.flushLoggedErrors(HookExit)
        # What AUTH logs is without what the client said, so it is text.
        (line,) = [line for line in self.errors() if "failed" in line]
        self.assertTrue("HookExit" in line if code == 454 else isinstance(failures[0].value.__cause__, SystemExit))
        self.events.clear()

    def test_it_is_a_failure_of_the_hook(self) -> None:
        """In handle_CONNECT it left the client waiting for 300 seconds, elsewhere it closed the connection."""
        for name, script, code in self.SCRIPTS:
            client = self.connect(name, raiser(SystemExit(3)))
            self.check(client, client.send(script), code, name)

    @in_a_loop
    async def test_it_does_not_end_the_loop_of_asyncio(self) -> None:
        """There it ended the server, without a line."""

        async def leave(*arguments: Any) -> Any:
            await asyncio.sleep(0)
            raise SystemExit(3)

        for name, script, code in self.SCRIPTS:
            client = self.connect(name, leave)
            await turns()
            client.transport.clear() if name != "handle_CONNECT" else None
            client.protocol.dataReceived(script) if script else None
            await turns(60)
            self.check(client, client.read(), code, name)

    @in_a_loop
    async def test_nor_does_it_in_a_task_that_a_hook_has_started(self) -> None:
        async def leave() -> None:
            raise SystemExit(3)

        async def gather(*arguments: Any) -> Any:
            await asyncio.gather(leave(), asyncio.sleep(0))

        client = connect(hooks(handle_NOOP=gather))
        client.send(b"NOOP\r\n")
        await turns()
        self.assertEqual(codes(client.read()), [451])
        self.assertEqual(len(self.flushLoggedErrors(HookExit)), 1)

    def test_nor_does_a_handle_exception_that_exits(self) -> None:
        client = connect(hooks(handle_NOOP=raiser(ValueError()), handle_exception=raiser(SystemExit(3))))
        self.assertEqual(codes(client.send(b"NOOP\r\n")), [500])
        self.assertEqual(len(self.flushLoggedErrors()), 2)

    def test_a_check_of_passwords_that_exits_is_counted(self) -> None:
        client = connect(hooks(auth_PLAIN=raiser(SystemExit(3))), auth_require_tls=False, max_auth_failures=2)
        client.send(EHLO)
        client.protocol.dataReceived(PLAIN * 3)
        pass_time(client, 60)
        self.assertEqual(codes(client.read())[-1], 421)

    def test_what_ends_a_program_leaves_no_client_waiting(self) -> None:
        """KeyboardInterrupt goes to the reactor, which does not close a connection that it has just made."""
        client = connect(hooks(handle_NOOP=raiser(KeyboardInterrupt())))
        self.assertRaises(KeyboardInterrupt, client.protocol.dataReceived, b"NOOP\r\n")
        self.assertTrue(client.aborted)


class CutOffTests(LogCase):
    """A hook that ``hook_timeout`` cut off left no line: the client's 451 could not be explained."""

    def cut_off(self, name: str, script: bytes, hook: Any = None, **options: Any) -> list[str]:
        handler = hooks(**{name: hook or Promises()})
        client = connect(handler, hook_timeout=10, timeout=300, auth_require_tls=False, **options)
        client.protocol.dataReceived(script) if script else None
        pass_time(client, 12)
        self.session = getattr(client.protocol, "session", None)
        return self.errors()

    def test_a_line_names_the_hook_and_the_session(self) -> None:
        for name, script in (
            ("handle_CONNECT", b""),
            ("handle_EHLO", EHLO),
            ("handle_RCPT", ENVELOPE),
            ("handle_DATA", MESSAGE),
            ("auth_PLAIN", EHLO + PLAIN),
        ):
            self.events.clear()
            (line,) = self.cut_off(name, script)
            assert self.session is not None
            self.assertIn(f"{name} took longer than 10 s, it is cut off", line)
            self.assertTrue(line.startswith(f"{self.session.id} 192.0.2.1:40000 "), line)

    def test_so_does_one_about_a_hook_that_does_not_read_its_stream(self) -> None:
        long = ENVELOPE + b"DATA\r\n" + (b"x" * 98 + b"\r\n") * 4000
        lines = self.cut_off("handle_DATA_STREAM", long)
        self.assertIn("handle_DATA_STREAM took longer than 10 s", lines[0])

    def test_an_authenticator_is_named_by_its_mechanism(self) -> None:
        lines = self.cut_off("handle_NOOP", EHLO + PLAIN, authenticator=lambda *arguments: Deferred())
        self.assertIn("auth_PLAIN took longer than 10 s", lines[0])

    def test_one_that_goes_on_all_the_same_is_told_of_again(self) -> None:
        client = connect(hooks(handle_NOOP=stubborn(Promises())), hook_timeout=10)
        client.protocol.dataReceived(b"NOOP\r\n")
        pass_time(client, 25)
        first, second = self.errors()
        self.assertIn("handle_NOOP took longer than 10 s", first)
        self.assertIn("a hook went on for 10 s after it was cut off", second)

    def test_a_hook_in_time_leaves_no_line(self) -> None:
        client = connect(hooks(handle_NOOP=answering("250 OK")), hook_timeout=10)
        client.send(b"NOOP\r\n")
        pass_time(client, 30)
        self.assertEqual(self.errors(), [])


class ShortageTests(LogCase):
    """A full disk was a traceback of 25 lines for each message, and 451."""

    def send(self, number: int, handler: Any = None, script: bytes = MESSAGE) -> bytes:
        error = OSError(number, "short")
        return connect(handler or hooks(handle_DATA=raiser(error), handle_NOOP=raiser(error))).send(script)

    def test_a_full_disk_is_a_line_and_452(self) -> None:
        for number in (errno.ENOSPC, errno.EDQUOT):
            self.events.clear()
            said = self.send(number)
            self.assertIn(b"\r\n452 4.3.1 Insufficient system storage, try again later (session ", said)
            (line,) = self.errors()
            self.assertIn(f"DATA failed: [Errno {number}] short", line)
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_other_shortages_are_a_line_and_451(self) -> None:
        for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            self.events.clear()
            self.assertEqual(codes(self.send(number))[-1], 451)
            self.assertEqual(len(self.errors()), 1)
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_command_that_452_does_not_fit_hears_451(self) -> None:
        self.assertEqual(codes(self.send(errno.ENOSPC, script=b"NOOP\r\n")), [451])
        self.assertEqual(len(self.errors()), 1)

    def test_any_other_error_has_its_traceback(self) -> None:
        self.assertEqual(codes(self.send(errno.EIO))[-1], 451)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_it_is_so_in_a_chain_and_after_a_wait(self) -> None:
        for handler in (
            Chain(hooks(handle_DATA=raiser(OSError(errno.ENOSPC, "short")))),
            hooks(handle_DATA=answering(fail(OSError(errno.ENOSPC, "short")))),
        ):
            self.assertEqual(codes(self.send(0, handler))[-1], 452)

    def test_a_handle_exception_still_decides(self) -> None:
        error = OSError(errno.ENOSPC, "short")
        handler = hooks(handle_DATA=raiser(error), handle_exception=answering("550 mine"))
        self.assertEqual(codes(self.send(0, handler))[-1], 550)


class LostClientTests(LogCase):
    def test_handle_exception_is_not_called_for_a_client_that_is_gone(self) -> None:
        """The page says so: there is nobody to answer, and a hook that is cancelled has not failed."""
        for name, script in (("handle_NOOP", b"NOOP\r\n"), ("handle_RCPT", ENVELOPE), ("handle_DATA", MESSAGE)):
            called: list[Any] = []
            waiting = Promises()
            client = connect(hooks(**{name: waiting, "handle_exception": called.append}))
            client.protocol.dataReceived(script)
            client.lose()
            if name == "handle_DATA":
                waiting.made[0].errback(ValueError("too late"))
                self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
            self.assertEqual(called, [], name)

    def test_nor_for_one_that_a_clock_has_cut_off(self) -> None:
        called: list[Any] = []
        client = connect(hooks(handle_NOOP=Promises(), handle_exception=called.append), clock=Clock(), hook_timeout=5)
        client.protocol.dataReceived(b"NOOP\r\n")
        pass_time(client, 6)
        self.assertEqual((codes(client.read()), called), ([451], []))
