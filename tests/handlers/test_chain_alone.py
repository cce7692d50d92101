"""A handler in a Chain does what it does alone, with every hook and every kind of result."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import EHLO, ENVELOPE, MESSAGE, Client, answering, codes, connect, hooks, raiser
from tests.support.tls_dialog import SecureTestCase
from twisted_smtpd.handlers import PASS, Chain
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.wire.replies import Reply, SMTPReplyError

Hook = Callable[..., Any]

#: What a client says, for each hook; each reply to it is compared.
SCRIPTS: dict[str, list[bytes]] = {
    "CONNECT": [MESSAGE, b"NOOP\r\n"],
    "HELO": [b"HELO client.example\r\n", b"MAIL FROM:<a@x.example>\r\n"],
    "EHLO": [EHLO, b"MAIL FROM:<a@x.example>\r\n"],
    "NOOP": [b"NOOP\r\n", EHLO],
    "QUIT": [b"QUIT\r\n"],
    "VRFY": [EHLO, b"VRFY a@x.example\r\n"],
    "MAIL": [EHLO, b"MAIL FROM:<a@x.example>\r\n", b"RCPT TO:<b@y.example>\r\n", b"NOOP\r\n"],
    "RCPT": [ENVELOPE, b"DATA\r\n", b"hello\r\n.\r\n", b"NOOP\r\n"],
    "RSET": [ENVELOPE, b"RSET\r\n", b"RCPT TO:<b@y.example>\r\n"],
    "DATA": [MESSAGE, MESSAGE],
    "DATA_STREAM": [MESSAGE, MESSAGE],
    "AUTH": [EHLO, b"AUTH PLAIN AGEAYg==\r\n", b"MAIL FROM:<a@x.example>\r\n"],
    "exception": [b"NOOP\r\n", EHLO],
    "DISCONNECT": [EHLO, b"QUIT\r\n"],
    "PROXY": [b"PROXY TCP4 198.51.100.7 192.0.2.9 50001 25\r\n", MESSAGE],
}

OPTIONS: dict[str, dict[str, Any]] = {
    "AUTH": {"auth_require_tls": False, "auth_callback": lambda *arguments: True},
    "PROXY": {"proxy_from": ["192.0.2.1"]},
}


class Truth:
    """An object that is true, and no status."""


async def wait_for_two(*arguments: Any) -> Any:
    """Gives an awaitable, which is not the answer yet."""
    return succeed("250 inner")


async def yield_statuses(*arguments: Any) -> Any:
    yield "250 one by one"


def wait(result: Any) -> Hook:
    async def hook(*arguments: Any) -> Any:
        return await succeed(result)

    return hook


#: Hooks with every kind of result; each maker is called for each server, since a Deferred fires once.
KINDS: dict[str, Callable[[], Hook]] = {
    **{
        status: (lambda status=status: answering(status))  # type: ignore[misc]
        for status in ("250 yes", "220 hello", "354 go", "334 go", "421 bye", "452 full", "521 no", "550 no", "554 no")
    },
    "several lines": lambda: answering("250-one\n250 two"),
    "an open end": lambda: answering("250-one\n250-two"),
    "two statuses": lambda: answering("250 one\n550 two"),
    "Reply 250": lambda: answering(Reply(250, None, ("yes",))),
    "Reply 550": lambda: answering(Reply(550, "5.7.1", ("no",))),
    "nonsense": lambda: answering("nonsense"),
    "an empty text": lambda: answering(""),
    "bytes": lambda: answering(b"250 yes"),
    "None": lambda: answering(None),
    "True": lambda: answering(True),
    "False": lambda: answering(False),
    "1": lambda: answering(1),
    "an object": lambda: answering(Truth()),
    "a list": lambda: answering(["250 yes"]),
    "a refusing list": lambda: answering(["550 no"]),
    "a long list": lambda: answering(["250 yes", "250 yes"]),
    "an empty list": lambda: answering([]),
    "PASS": lambda: answering(PASS),
    "a coroutine": lambda: wait("250 yes"),
    "a coroutine that refuses": lambda: wait("550 no"),
    "a coroutine of False": lambda: wait(False),
    "a Deferred": lambda: answering(succeed("250 yes")),
    "a Deferred that refuses": lambda: answering(succeed("550 no")),
    "a failed Deferred": lambda: answering(fail(ZeroDivisionError("secret"))),
    "an awaitable of an awaitable": lambda: wait_for_two,
    "an asynchronous generator": lambda: yield_statuses,
    "SMTPReplyError 554": lambda: raiser(SMTPReplyError(554, "5.7.1", "no")),
    "SMTPReplyError 250": lambda: raiser(SMTPReplyError(250, None, "yes")),
    "SMTPReplyError 421": lambda: raiser(SMTPReplyError(421, None, "bye")),
    "ValueError": lambda: raiser(ValueError("secret")),
    "OSError": lambda: raiser(OSError(28, "No space left on device")),
}


def masked(said: bytes) -> bytes:
    """Without the ids of sessions."""
    return re.sub(rb"session [0-9A-Za-z-]+", b"session ID", said)


def chains(make: Callable[[], Any]) -> list[tuple[str, Any]]:
    """The handler alone first, then the places that it may have in a chain."""
    return [
        ("alone", make()),
        ("in a chain", Chain(make())),
        ("behind one without hooks", Chain(object(), make())),
        ("before one without hooks", Chain(make(), object())),
        ("in a chain in a chain", Chain(Chain(make()), object())),
    ]


class AloneTests(SynchronousTestCase):
    """``handle_PROXY`` that answered ``554`` or raised it let everybody in when it was in a chain."""

    def outcome(self, hook: str, handler: Any, protocol: Any) -> list[Any]:
        """All that a client and a program can see."""
        script, options = SCRIPTS[hook], OPTIONS.get(hook, {})
        arguments = () if protocol is None else (protocol,)
        client: Client = connect(handler, *arguments, **options)
        seen: list[Any] = [masked(client.read())]
        for lines in script:
            seen.append(masked(client.send(lines if protocol is None else lines.replace(b"EHLO", b"LHLO"))))
            server = client.protocol
            if hasattr(server, "session"):
                seen.append((server.session.host_name, server.session.authenticated, server.session.peer))
            seen.append((server.envelope.mail_from, list(server.envelope.rcpt_tos), client.closed, client.aborted))
        client.lose()
        return [*seen, [type(failure.value) for failure in self.flushLoggedErrors()]]

    def compare(self, hook: str, name: str, make: Callable[[], Any], protocol: Any = None) -> None:
        outcomes = [(place, self.outcome(hook, handler, protocol)) for place, handler in chains(make)]
        for place, outcome in outcomes[1:]:
            self.assertEqual(outcome, outcomes[0][1], f"handle_{hook} that gives {name}, {place}")

    def test_a_hook_in_a_chain_does_what_it_does_alone(self) -> None:
        for hook in SCRIPTS:
            for name, make in KINDS.items():
                more = {"handle_NOOP": raiser(ZeroDivisionError("secret"))} if hook == "exception" else {}
                self.compare(
                    hook,
                    name,
                    lambda hook=hook, make=make, more=more: hooks(  # type: ignore[misc]
                        **{f"handle_{hook}": make(), **more}
                    ),
                )

    def test_the_same_for_lmtp(self) -> None:
        for hook in ("EHLO", "RCPT", "DATA", "DATA_STREAM"):
            for name, make in KINDS.items():
                self.compare(
                    hook,
                    name,
                    lambda hook=hook, make=make: hooks(**{f"handle_{hook}": make()}),  # type: ignore[misc]
                    LMTP,
                )

    def test_the_same_for_an_ehlo_with_five_arguments(self) -> None:
        for name, make in KINDS.items():

            def ehlo(make: Callable[[], Hook] = make) -> Any:
                hook = make()

                def handle_EHLO(server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]) -> Any:
                    return hook()

                return hooks(handle_EHLO=handle_EHLO)

            self.compare("EHLO", name, ehlo)

    def test_handlers_that_pass_on_change_nothing(self) -> None:
        """Neither a status nor a refusal is another one behind a handler that leaves the decision to it."""
        for hook in SCRIPTS:
            if hook in ("DATA", "DATA_STREAM", "QUIT", "RSET", "EHLO"):
                # Each handler hears these, or answers a part of them: their tests are in test_chain.
                continue
            for name, make in KINDS.items():
                more = {"handle_NOOP": raiser(ZeroDivisionError("secret"))} if hook == "exception" else {}

                def alone(hook: str = hook, make: Callable[[], Hook] = make, more: Any = more) -> Any:
                    return hooks(**{f"handle_{hook}": make(), **more})

                passing = hooks(**{f"handle_{hook}": answering(PASS)})
                self.assertEqual(
                    self.outcome(hook, Chain(passing, alone()), None),
                    self.outcome(hook, alone(), None),
                    f"handle_{hook} that gives {name}, behind one that passes on",
                )

    def test_a_no_is_a_no_to_a_proxy_in_a_chain(self) -> None:
        refused = [make for name, make in KINDS.items() if "no" in name or name in ("False", "None", "ValueError")]
        for make in refused:
            client = connect(Chain(hooks(handle_PROXY=make())), proxy_from=["192.0.2.1"])
            said = client.send(SCRIPTS["PROXY"][0] + MESSAGE)
            self.assertNotIn(220, codes(said))
            self.assertTrue(client.closed or client.aborted)
        self.flushLoggedErrors()

    def test_what_a_hook_raised_reaches_the_log_no_further_than_alone(self) -> None:
        """If no handle_exception of a chain decides, the server's own way of logging is taken."""
        chain = Chain(hooks(handle_NOOP=raiser(ZeroDivisionError("secret")), handle_exception=answering(PASS)))
        self.assertIn(b"(session ", connect(chain).send(b"NOOP\r\n"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_handle_exception_gets_the_exception_itself(self) -> None:
        """Not a Failure, not a copy, not the error of another handler: what was raised."""
        for wrap in (lambda handler: handler, Chain, lambda handler: Chain(object(), handler)):
            error, seen = ZeroDivisionError("secret"), []

            def handle_exception(given: BaseException, seen: list[BaseException] = seen) -> str:
                seen.append(given)
                return "451 later"

            handler: Any = wrap(hooks(handle_NOOP=raiser(error), handle_exception=handle_exception))
            self.assertEqual(codes(connect(handler).send(b"NOOP\r\n")), [451])
            self.assertIs(seen[0], error)
            self.assertEqual(len(seen), 1)

    def test_every_handler_hears_of_the_end_though_one_before_it_fails(self) -> None:
        for failing in (
            raiser(ValueError()),
            raiser(SMTPReplyError(550)),
            answering(fail(OSError())),
            wait("nonsense"),
        ):
            heard: list[Any] = []
            chain = Chain(
                hooks(handle_DISCONNECT=failing),
                hooks(handle_DISCONNECT=lambda *arguments, heard=heard: heard.append(arguments[3])),  # type: ignore[misc]
            )
            connect(chain).lose()
            self.assertEqual(len(heard), 1)
            self.assertIsInstance(heard[0], Exception)
            self.flushLoggedErrors()


class StartTLSTests(SecureTestCase):
    """``handle_STARTTLS`` that refused alone let everybody go on when it was in a chain."""

    def outcome(self, handler: Any) -> list[Any]:
        peer = self.connect(handler, tls_context=self.files())
        peer.starttls()
        seen = [codes(peer.send(MESSAGE)), peer.closed, peer.aborted]
        self.flushLoggedErrors()
        return seen

    def test_a_hook_in_a_chain_does_what_it_does_alone(self) -> None:
        for name, make in KINDS.items():
            outcomes = [
                (place, self.outcome(handler))
                for place, handler in chains(lambda make=make: hooks(handle_STARTTLS=make()))  # type: ignore[misc]
            ]
            for place, outcome in outcomes[1:]:
                self.assertEqual(outcome, outcomes[0][1], f"handle_STARTTLS that gives {name}, {place}")

    def test_a_no_is_a_no_in_a_chain(self) -> None:
        for answer in ("554 no", "354 go", False, None, "nonsense", Reply(554)):
            peer = self.connect(Chain(hooks(handle_STARTTLS=answering(answer))), tls_context=self.files())
            peer.starttls()
            self.assertEqual(set(codes(peer.send(ENVELOPE))), {554}, answer)
        failing = Chain(hooks(handle_STARTTLS=raiser(SMTPReplyError(554, None, "no"))))
        peer = self.connect(failing, tls_context=self.files())
        peer.starttls()
        self.assertEqual(set(codes(peer.send(ENVELOPE))), {554})
