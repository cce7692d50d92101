"""Several next hosts in order, and how the server signs in there."""

from __future__ import annotations

import base64
import os
import stat
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.next_host import EHLO, NextHostDouble, ProxyTestCase, transaction
from tests.support.tls_helpers import issue
from twisted_smtpd.handlers import Proxy
from twisted_smtpd.handlers.forwarding import credentials
from twisted_smtpd.handlers.forwarding.credentials import CredentialsError, Token, command_output, first_line
from twisted_smtpd.handlers.forwarding.hosts import FIRST_PAUSE, LONGEST_PAUSE, Host, Route, parse_place
from twisted_smtpd.handlers.registry import HandlerError, make_handler
from twisted_smtpd.metrics.figures import snapshot

OK = b"250 2.0.0 queued as 42\r\n"


def verdict(said: bytes) -> bytes:
    """The first refusal among some replies, or the last reply."""
    lines = said.splitlines(keepends=True)
    return next((line for line in lines if line[:1] in b"45"), lines[-1])


class SeveralHostsTests(ProxyTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.first, self.second, self.third = NextHostDouble(), NextHostDouble(), NextHostDouble()

    def send(self, **options: Any) -> bytes:
        """The reply to a message, through a new client."""
        fallbacks = [(self.second, None), (self.third, None)]
        if not hasattr(self, "factory"):
            self.factory = self.serve(self.first, fallbacks=fallbacks, **options)
        return verdict(self.join(self.factory).send(transaction()))

    def counts(self) -> tuple[int, int, int]:
        """How many messages each host has."""
        return len(self.first.messages), len(self.second.messages), len(self.third.messages)

    def test_the_first_that_can_be_reached(self) -> None:
        self.assertEqual((self.send(), self.counts()), (OK, (1, 0, 0)))
        self.assertEqual((len(self.second.lines), len(self.third.lines)), (0, 0))

    def test_one_that_is_down_is_passed_over(self) -> None:
        self.first.refuse_connections = True
        self.assertEqual((self.send(), self.counts()), (OK, (0, 1, 0)))
        self.second.refuse_connections = True
        self.clock.advance(31)
        self.assertEqual((self.send(), self.counts()), (OK, (0, 1, 1)))

    def test_so_is_one_that_does_not_serve_us(self) -> None:
        for answers in ({"": "421 busy"}, {"": "554 no"}, {"": "nonsense"}, {"EHLO": "550 no", "HELO": "550 no"}):
            self.setUp()
            vars(self).pop("factory", None)
            self.first.answers.update(answers)
            self.assertEqual((self.send(), self.counts()), (OK, (0, 1, 0)), answers)

    def test_a_refusal_of_the_message_is_an_answer(self) -> None:
        self.first.answers["."] = "550 5.7.1 spam"
        self.assertEqual((self.send(), self.counts()), (b"550 5.7.1 spam\r\n", (1, 0, 0)))

    def test_if_all_are_down_the_client_hears_451(self) -> None:
        for host in (self.first, self.second, self.third):
            host.refuse_connections = True
        self.assertTrue(self.send().startswith(b"451 4.4.1 "))
        # Each is tried again with the next message, however short the pause was.
        self.first.refuse_connections = False
        self.assertEqual((self.send(), self.counts()), (OK, (1, 0, 0)))

    def test_one_that_was_down_has_a_pause(self) -> None:
        self.first.refuse_connections = True
        self.send(keep=1)
        self.first.refuse_connections = False
        self.clock.advance(FIRST_PAUSE - 1)
        self.assertEqual((self.send(), self.counts()), (OK, (0, 2, 0)))
        self.clock.advance(2)
        self.assertEqual((self.send(), self.counts()), (OK, (1, 2, 0)))

    def test_a_kept_connection_does_not_keep_it_from_its_place(self) -> None:
        self.first.refuse_connections = True
        self.send(keep=1000)
        self.first.refuse_connections = False
        self.clock.advance(FIRST_PAUSE + 1)
        self.assertEqual((self.send(), self.counts()), (OK, (1, 1, 0)))
        self.assertIn("QUIT", self.second.commands)

    def test_a_silent_one_takes_the_timeout_and_no_more(self) -> None:
        self.first.hold_connections = True
        factory = self.serve(self.first, fallbacks=[(self.second, None)], timeout=10)
        client = self.join(factory)
        self.assertNotIn(b"queued", client.send(transaction()))
        self.clock.advance(11)
        self.assertIn(OK, client.read())

    def test_the_limit_of_connections_holds(self) -> None:
        self.first.refuse_connections = True
        proxy = self.proxy(self.first, fallbacks=[(self.second, None)], max_connections=1)
        acquired = proxy.next_host.acquire("mx.example")
        client = self.successResultOf(self.deferred(acquired))
        self.assertEqual(proxy.next_host.connections, 1)
        waiting = self.deferred(proxy.next_host.acquire("mx.example"))
        self.assertNoResult(waiting)
        proxy.next_host.release(client)
        self.successResultOf(waiting)
        self.assertEqual(proxy.next_host.connections, 1)

    def deferred(self, coroutine: Any) -> Any:
        from twisted.internet.defer import Deferred

        return Deferred.fromCoroutine(coroutine)

    def test_metrics(self) -> None:
        self.first.refuse_connections = True
        self.send()
        metrics = {metric.name: metric for metric in snapshot([], [self.factory.handler])}
        self.assertEqual(metrics["smtpd_next_host_connections"].samples[0][2], 1)
        self.assertEqual([value for *_, value in metrics["smtpd_next_host_failures"].samples], [1, 0, 0])
        self.assertIn(("_count", {}, 1), metrics["smtpd_next_host_seconds"].samples)

    def test_the_pause_grows_and_ends(self) -> None:
        route = Route(Host("mx.example", 25), Clock())
        pauses = []
        for _ in range(7):
            route.failed(0)
            pauses.append(next(second for second in range(1000) if route.is_up(second)))
        self.assertEqual(pauses, [30, 60, 120, 240, 480, LONGEST_PAUSE, LONGEST_PAUSE])
        route.succeeded()
        self.assertTrue(route.is_up(0))


class TokenTests(ProxyTestCase):
    def sign_in(self, offered: str, reply: str | list[str], token: Any = lambda: "t0ken") -> tuple[bytes, list[str]]:
        """The reply to the message, and what the next host has heard."""
        host = NextHostDouble(EHLO=EHLO.replace("250 ENH", f"250-AUTH {offered}\n250 ENH"), AUTH=reply)
        host.answers.update({"AQ==": "535 5.7.8 no", "": host.answers[""]})
        said = self.say(host, transaction(), token=Token("anne,b@x=y", token), auth_without_tls=True)
        return verdict(said), host.commands

    def test_oauthbearer(self) -> None:
        reply, commands = self.sign_in("XOAUTH2 OAUTHBEARER", "235 2.7.0 welcome")
        self.assertEqual(reply, OK)
        (line,) = (line for line in commands if line.startswith("AUTH"))
        said = base64.b64decode(line.removeprefix("AUTH OAUTHBEARER ")).decode().split("\1")
        self.assertEqual(said[0], "n,a=anne=2Cb@x=3Dy,")
        self.assertEqual(said[2:], ["port=0", "auth=Bearer t0ken", "", ""])

    def test_xoauth2(self) -> None:
        reply, commands = self.sign_in("PLAIN XOAUTH2", "235 2.7.0 welcome")
        self.assertEqual(reply, OK)
        (line,) = (line for line in commands if line.startswith("AUTH"))
        said = base64.b64decode(line.removeprefix("AUTH XOAUTH2 ")).decode()
        self.assertEqual(said, "user=anne,b@x=y\1auth=Bearer t0ken\1\1")

    def test_a_token_that_is_refused(self) -> None:
        reply, commands = self.sign_in("OAUTHBEARER", "334 eyJzdGF0dXMiOiI0MDEifQ==")
        self.assertEqual(commands[2], "AQ==")
        self.assertTrue(reply.startswith(b"451 "), reply)
        reply, _ = self.sign_in("XOAUTH2", "535 5.7.8 no")
        self.assertTrue(reply.startswith(b"451 "), reply)
        self.assertNotIn("t0ken", self.log.getvalue())

    def test_no_such_mechanism(self) -> None:
        reply, commands = self.sign_in("PLAIN LOGIN", "235 2.7.0 welcome")
        self.assertTrue(reply.startswith(b"451 "), reply)
        self.assertEqual([line for line in commands if line.startswith("AUTH")], [])
        self.assertIn("neither AUTH OAUTHBEARER nor AUTH XOAUTH2 is offered", self.log.getvalue())

    def test_no_token(self) -> None:
        def missing() -> str:
            raise CredentialsError("the token's file is gone")

        for token in (missing, lambda: "", lambda: "t\1ken", lambda: "t" * 20_000, lambda: "tökén"):
            reply, commands = self.sign_in("OAUTHBEARER", "235 2.7.0 welcome", token)
            self.assertTrue(reply.startswith(b"451 "), reply)
            self.assertEqual([line for line in commands if line.startswith("AUTH")], [])
        self.assertIn("the token's file is gone", self.log.getvalue())

    def test_the_token_is_read_anew(self) -> None:
        path = Path(self.mktemp())
        path.write_text("one\nx\n")
        self.assertEqual(first_line(os.fspath(path)), "one")
        path.write_text("two")
        self.assertEqual(first_line(os.fspath(path)), "two")
        path.unlink()
        self.assertRaises(CredentialsError, first_line, os.fspath(path))


class CommandTests(SynchronousTestCase):
    def python(self, code: str) -> list[str]:
        return [sys.executable, "-c", code]

    def test_the_first_line_that_it_prints(self) -> None:
        self.assertEqual(command_output(self.python("print('t0ken'); print('more')")), "t0ken")
        self.assertEqual(command_output(self.python("pass")), "")

    def test_one_that_fails(self) -> None:
        error = self.assertRaises(CredentialsError, command_output, self.python("print('t0ken'); raise SystemExit(3)"))
        self.assertIn("has ended with status 3", str(error))
        self.assertNotIn("t0ken", str(error))

    def test_one_that_is_not_there(self) -> None:
        error = self.assertRaises(CredentialsError, command_output, ["/nonexistent/command"])
        self.assertIn("/nonexistent/command: No such file", str(error))

    def test_one_that_hangs(self) -> None:
        self.patch(credentials, "COMMAND_TIMEOUT", 0.1)
        self.assertRaises(CredentialsError, command_output, self.python("import time; time.sleep(60)"))


class ArgumentTests(SynchronousTestCase):
    def made(self, *words: str) -> dict[str, Any]:
        return vars(Proxy.from_cli(ArgumentParser(), *words))

    def refused(self, *words: str) -> str:
        return str(self.assertRaises(HandlerError, make_handler, "proxy", words))

    def test_places(self) -> None:
        self.assertEqual(parse_place("mx.example:25"), ("mx.example", 25))
        self.assertEqual(parse_place("[2001:db8::1]:25"), ("2001:db8::1", 25))
        self.assertEqual(parse_place("unix:/run/lmtp"), ("unix:/run/lmtp", None))
        self.assertRaises(ValueError, parse_place, "mx.example")

    def test_several(self) -> None:
        made = self.made("mx1.example:25", "mx2.example:26", "unix:/run/lmtp")
        self.assertEqual([str(host) for host in made["_hosts"]], ["mx1.example:25", "mx2.example:26", "unix:/run/lmtp"])

    def test_each_option_has_a_place(self) -> None:
        words = "--max-recipients 5 --timeout 6 --data-timeout 7 --max-connections 8 --max-connections-per-client 4"
        made = self.made("mx.example:25", *words.split(), "--hold=9", "--keep=10", "--max-hops=11")
        names = ("_max_recipients", "_timeout", "_data_timeout", "_max_connections", "_per_client")
        self.assertEqual([made[name] for name in (*names, "_hold", "_keep", "_max_hops")], [5, 6, 7, 8, 4, 9, 10, 11])

    def test_an_authority_of_ones_own(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(issue("The Authority", ca=True).pem)
        made = self.made("mx.example:25", "--tls", "implicit", f"--tls-ca={path}")
        self.assertIsNotNone(made["_hosts"][0].implicit_tls)
        self.assertIn("no such file", self.refused("mx.example:25", "--tls=starttls", "--tls-ca=/nonexistent"))
        path.write_text("no certificate")
        self.assertIn(path.name, self.refused("mx.example:25", "--tls=starttls", f"--tls-ca={path}"))
        self.assertIn("need tls", self.refused("mx.example:25", f"--tls-ca={path}"))

    def test_a_token(self) -> None:
        path = Path(self.mktemp())
        path.write_text("t0ken\n")
        path.chmod(stat.S_IRUSR)
        words = ["mx.example:587", "--tls=starttls", "--username=anne"]
        made = self.made(*words, f"--oauth-token-file={path}")
        self.assertEqual(repr(made["_sign_in"]), "<Token>")
        self.assertEqual(made["_sign_in"]._token(), "t0ken")
        self.assertIsInstance(self.made(*words, "--oauth-token-command=token get --quiet")["_sign_in"], Token)

    def test_what_does_not_go_together(self) -> None:
        path = Path(self.mktemp())
        path.write_text("t0ken\n")
        where, file = "mx.example:587", f"--oauth-token-file={path}"
        for words, text in (
            ((file, "--tls=starttls"), "needs --username"),
            ((file, "--username=anne"), "needs tls"),
            ((file, "--username=anne", f"--password-file={path}", "--tls=starttls"), "not both"),
            ((file, "--username=anne", "--oauth-token-command=x", "--tls=starttls"), "not both"),
            (("--oauth-token-command= ", "--username=anne", "--tls=starttls"), "no command"),
            (("--oauth-token-file=/nonexistent", "--username=anne", "--tls=starttls"), "No such file"),
            (("mx2.example", "--tls=starttls"), "has no port"),
            (("--tls=starttls", "--max-connections=0"), "above 0"),
        ):
            self.assertIn(text, self.refused(where, *words))
