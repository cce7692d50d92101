"""Tests for aiosmtpd's AUTH API: what its handlers page promises, sentence by sentence."""

from __future__ import annotations

import asyncio
import types
from base64 import b64encode
from concurrent.futures import Future
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import formatEvent

from tests.support.auth_helpers import (
    ACCEPTED,
    LOGIN,
    PASSWORD,
    REJECTED,
    RIGHT,
    WRONG,
    AuthCase,
    authenticator,
    dial,
    line,
)
from tests.support.fakes import codes, hooks
from twisted_smtpd.smtp import (
    MISSING,
    SMTP,
    AuthResult,
    LoginPassword,
    SMTPReplyError,
    auth_mechanism,
)

FOO = b"AUTH FOO\r\n"


def foo(hook: Any) -> Any:
    return hooks(auth_FOO=hook)


class ReturnTests(AuthCase):
    """The three kinds of return value, and AuthResult."""

    def test_none_means_that_it_has_been_handled(self) -> None:
        async def auth_FOO(server: Any, args: list[str]) -> None:
            await server.push("432 4.7.12 A password transition is needed")

        client = self.check(FOO, b"432 4.7.12 A password transition is needed\r\n", foo(auth_FOO))
        self.assertIsNone(client.protocol.session.authenticated)

    def test_missing_means_rejected(self) -> None:
        async def auth_FOO(server: Any, args: list[str]) -> Any:
            return MISSING

        self.check(FOO, REJECTED, foo(auth_FOO))
        self.check(FOO, REJECTED, foo(lambda server, args: False))

    def test_anything_else_is_an_identity(self) -> None:
        for identity in ("anne", b"anne", 17, ("session", 1), True):
            client = self.check(FOO, ACCEPTED, foo(lambda server, args, identity=identity: identity))
            self.assertEqual(client.protocol.session.login_data, identity)
            self.assertTrue(client.protocol.session.authenticated)

    def test_hooks_may_be_plain_coroutines_or_give_a_deferred(self) -> None:
        async def auth_FOO(server: Any, args: list[str]) -> str:
            await succeed(None)
            return "anne"

        async def nested(server: Any, args: list[str]) -> Any:
            return auth_FOO(server, args)

        for hook in (auth_FOO, nested, lambda server, args: succeed("anne"), lambda server, args: "anne"):
            client = self.check(FOO, ACCEPTED, foo(hook))
            self.assertEqual(client.protocol.session.login_data, "anne")

    def test_an_awaitable_is_never_an_identity(self) -> None:
        async def no() -> Any:
            return MISSING

        async def auth_FOO(server: Any, args: list[str]) -> Any:
            return no()

        self.check(FOO, REJECTED, foo(auth_FOO))

    def test_what_is_not_finished_is_never_an_identity(self) -> None:
        async def no() -> Any:
            return MISSING

        async def middle() -> Any:
            return waiting[0]

        async def third_awaitable(server: Any, args: list[str]) -> Any:
            return middle()

        async def asynchronous_generator(server: Any, args: list[str]) -> Any:
            yield False

        def future(server: Any, args: list[str]) -> Any:
            return Future()

        for hook in (third_awaitable, asynchronous_generator, future):
            waiting = [no()]
            events = self.events()
            client = dial(foo(hook))
            self.assertEqual(client.send(FOO), REJECTED, hook)
            self.assertIsNone(client.protocol.session.authenticated)
            self.assertIn("that is no identity", formatEvent(events[0]))
            waiting[0].close()

    def test_a_generator_by_mistake_is_never_an_identity(self) -> None:
        def generator(server: Any, args: list[str]) -> Any:
            if (yield succeed(False)):
                return MISSING
            return "anne"

        client = dial(foo(generator))
        self.assertEqual(client.send(FOO)[:3], b"454")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertIsNone(client.protocol.session.authenticated)

    def test_a_generator_is_waited_for(self) -> None:
        def generator(server: Any, args: list[str]) -> Any:
            if (yield from succeed(False)):
                return "anne"
            return False

        for hook in (generator, types.coroutine(generator)):
            client = dial(foo(hook))
            self.assertEqual(client.send(FOO), REJECTED)
            self.assertIsNone(client.protocol.session.authenticated)

    def test_what_is_false_is_nobody(self) -> None:
        for nobody in ("", b"", 0, (), [], {}, False):
            client = dial(foo(lambda server, args, nobody=nobody: nobody))
            self.assertEqual(client.send(FOO), REJECTED, nobody)
            self.assertIsNone(client.protocol.session.authenticated)

    def test_a_failure_is_never_told_as_a_success(self) -> None:
        for message in ("235 2.7.0 fine", "334 more", "250 ok"):
            self.check(FOO, REJECTED, foo(lambda *a, m=message: AuthResult(success=False, message=m)))

        def auth_FOO(server: Any, args: list[str]) -> Any:
            raise SMTPReplyError(235, "2.7.0", "fine")

        self.check(FOO, REJECTED, foo(auth_FOO))

    def test_an_identity_is_logged_only_if_it_is_a_name(self) -> None:
        for identity, name in (
            ((LOGIN, PASSWORD), "?"),
            ({"password": PASSWORD.decode()}, "?"),
            (LoginPassword(LOGIN, PASSWORD), "'anne'"),
            ("anne", "'anne'"),
        ):
            events = self.events()
            dial(foo(lambda *a, identity=identity: identity)).send(FOO)
            self.assertTrue(formatEvent(events[0]).endswith(f"authenticated with FOO as {name}"), identity)

    def test_auth_result(self) -> None:
        for result, expected in (
            (AuthResult(success=True), ACCEPTED),
            (AuthResult(success=True, handled=False, message="235 2.7.0 Hello"), b"235 2.7.0 Hello\r\n"),
            (AuthResult(success=False, handled=False), REJECTED),
            (AuthResult(success=False), REJECTED),
            (AuthResult(success=False, handled=False, message="534 5.7.9 Too weak"), b"534 5.7.9 Too weak\r\n"),
            (AuthResult(success=False, handled=False, message="454 Later"), b"454 4.7.0 Later\r\n"),
        ):
            self.check(FOO, expected, foo(lambda server, args, result=result: result))

    def test_auth_results_data_is_in_the_session(self) -> None:
        data = LoginPassword(b"a", b"b")
        session = self.check(FOO, ACCEPTED, foo(lambda *a: AuthResult(success=True, auth_data=data))).protocol.session
        self.assertEqual((session.auth_data, session.login_data, session.authenticated), (data, b"a", True))
        session = self.check(FOO, ACCEPTED, foo(lambda *a: AuthResult(success=True, auth_data=1))).protocol.session
        self.assertEqual((session.auth_data, session.login_data), (1, None))

    def test_success_with_a_status_that_refuses_is_no_success(self) -> None:
        client = self.check(FOO, b"535 5.7.8 No\r\n", foo(lambda *a: AuthResult(success=True, message="535 No")))
        self.assertIsNone(client.protocol.session.authenticated)

    def test_a_client_that_has_been_refused_is_not_let_in_afterwards(self) -> None:
        events = self.events()

        async def auth_FOO(server: Any, args: list[str]) -> Any:
            await server.push("535 5.7.8 No")
            return "anne"

        client = self.check(FOO, b"535 5.7.8 No\r\n", foo(auth_FOO))
        self.assertIsNone(client.protocol.session.authenticated)
        self.assertIn("auth_FOO refused the client, then let it in", " ".join(map(formatEvent, events)))

    def test_a_hook_that_says_nothing_and_returns_nothing(self) -> None:
        events = self.events()
        self.assertEqual(dial(foo(lambda *a: None)).send(FOO), b"454 4.7.0 Temporary authentication failure\r\n")
        self.assertIn("auth_FOO gave None, and no answer", formatEvent(events[0]))
        client = dial(foo(lambda *a: None))
        self.assertEqual(codes(client.send(FOO * 4)), [454, 454, 454, 421])

    def test_a_raised_reply_is_the_answer(self) -> None:
        def auth_FOO(server: Any, args: list[str]) -> Any:
            raise SMTPReplyError(535, "5.7.8", "Not today")

        client = dial(foo(auth_FOO))
        self.assertEqual(codes(client.send(FOO * 4)), [535, 535, 535, 421])

    def test_a_hook_that_breaks_is_454_and_counts(self) -> None:
        def auth_FOO(server: Any, args: list[str]) -> Any:
            raise RuntimeError("oops")

        client = dial(foo(auth_FOO))
        self.assertEqual(codes(client.send(FOO * 4)), [454, 454, 454, 421])
        self.assertEqual([error.type for error in self.flushLoggedErrors()], [RuntimeError] * 3)

    def test_handle_exception_chooses_the_status(self) -> None:
        def auth_FOO(server: Any, args: list[str]) -> Any:
            raise RuntimeError("oops")

        handler = hooks(auth_FOO=auth_FOO, handle_exception=lambda error: "542 Internal server error")
        self.check(FOO, b"542 5.0.0 Internal server error\r\n", handler)


class NameTests(AuthCase):
    """What makes a mechanism."""

    def offered(self, handler: Any, **options: Any) -> list[str]:
        lines = dial(handler, ehlo=False, **options).send(b"EHLO client.example\r\n").decode().splitlines()
        return next((text[9:].split() for text in lines if text[4:].startswith("AUTH ")), [])

    def test_the_hooks_name_is_the_mechanisms(self) -> None:
        self.assertEqual(self.offered(foo(lambda *a: None)), ["FOO"])

    def test_two_underscores_are_a_hyphen(self) -> None:
        handler = hooks(auth_SCRAM__SHA__1=lambda *a: "x", auth_WITH_ONE=lambda *a: "x")
        self.assertEqual(self.offered(handler), ["SCRAM-SHA-1", "WITH_ONE"])
        self.assertEqual(dial(handler).send(b"AUTH SCRAM-SHA-1\r\n"), ACCEPTED)

    def test_auth_mechanism_names_it(self) -> None:
        @auth_mechanism("with_one__and-all")
        def auth_whatever(server: Any, args: list[str]) -> str:
            return args[0]

        client = dial(hooks(auth_x=auth_whatever))
        self.assertEqual(client.send(b"AUTH With_One__And-All\r\n"), ACCEPTED)
        self.assertEqual(client.protocol.session.login_data, "WITH_ONE__AND-ALL")

    def test_auth_mechanism_takes_only_names(self) -> None:
        for name in ("", "has space", "dot.ted", "É", "a" * 65):
            self.assertRaises(ValueError, auth_mechanism, name)

    def test_what_else_begins_with_auth(self) -> None:
        handler = hooks(auth_FOO=lambda *a: "x", auth_database=lambda *a: "x")
        handler.auth_TABLE = {"anne": "secret"}
        self.assertEqual(self.offered(handler), ["FOO"])

    def test_args_are_the_words_and_the_first_is_the_mechanism(self) -> None:
        seen: list[Any] = []
        client = dial(foo(lambda server, args: seen.append((server, args)) or "x"))
        client.send(b"auth foo QUJD\r\n")
        self.assertEqual(seen, [(client.protocol, ["FOO", "QUJD"])])

    def test_additional_hooks_do_not_disable_the_built_in_ones(self) -> None:
        handler = foo(lambda *a: "x")
        self.assertEqual(self.offered(handler, authenticator=authenticator), ["FOO", "LOGIN", "PLAIN"])
        offered = self.offered(handler, authenticator=authenticator, auth_exclude_mechanism=["login", "FOO"])
        self.assertEqual(offered, ["PLAIN"])

    def test_an_excluded_mechanism_is_unknown(self) -> None:
        expected = b"504 5.5.4 Unrecognized authentication type\r\n"
        self.check(b"AUTH PLAIN %b\r\n" % RIGHT, expected, auth_exclude_mechanism={"PLAIN"})

    def test_one_name_in_place_of_a_collection(self) -> None:
        for option in ("auth_exclude_mechanism", "auth_mechanisms"):
            self.assertRaises(TypeError, dial, authenticator=authenticator, **{option: b"PLAIN"})
        # Taken letter by letter, it would exclude nothing.
        self.assertEqual(self.offered(object(), authenticator=authenticator, auth_exclude_mechanism="PLAIN"), ["LOGIN"])

    def test_the_handlers_hook_overrides_the_built_in_one(self) -> None:
        client = dial(hooks(auth_PLAIN=lambda server, args: "mine"), authenticator=authenticator)
        client.send(b"AUTH PLAIN\r\n")
        self.assertEqual(client.protocol.session.login_data, "mine")

    def test_a_subclass_may_have_mechanisms(self) -> None:
        class Mine(SMTP):
            async def auth_FOO(self, server: Any, args: list[str]) -> Any:
                assert server is self
                return "foo"

            async def auth_PLAIN(self, server: Any, args: list[str]) -> Any:
                return await super().auth_PLAIN(server, args)

        client = dial(hooks(), protocol=Mine, auth_callback=lambda m, login, password: password == PASSWORD)
        self.assertEqual(client.send(b"AUTH PLAIN %b\r\n" % RIGHT), ACCEPTED)
        self.assertEqual(dial(hooks(), protocol=Mine).send(FOO), ACCEPTED)

    def test_only_what_is_asked_for(self) -> None:
        handler = foo(lambda *a: "x")
        offered = self.offered(handler, authenticator=authenticator, auth_mechanisms=["plain", "CRAM-MD5"])
        self.assertEqual(offered, ["CRAM-MD5", "PLAIN"])
        self.assertRaises(ValueError, dial, authenticator=authenticator, auth_mechanisms=["GSSAPI"])
        self.assertRaises(ValueError, dial, authenticator=authenticator, auth_mechanisms=["SCRAM-SHA-256"])


class ServerTests(AuthCase):
    """What a hook may call."""

    def asking(self, *arguments: Any, method: str = "challenge_auth", **keywords: Any) -> Any:
        async def auth_FOO(server: Any, args: list[str]) -> Any:
            said = await getattr(server, method)(*arguments, **keywords)
            return None if said is MISSING else said

        return foo(auth_FOO)

    def test_challenge_auth(self) -> None:
        for challenge in ("Who?", b"Who?"):
            client = self.check(FOO + line(b"me"), b"334 V2hvPw==\r\n" + ACCEPTED, self.asking(challenge))
            self.assertEqual(client.protocol.session.login_data, b"me")
        self.check(FOO + line(b"me"), b"334 Who?\r\n" + ACCEPTED, self.asking("Who?", encode_to_b64=False))
        self.check(FOO + line(b"me"), b"334 \r\n" + ACCEPTED, self.asking(""))
        self.check(FOO + b"\r\n", b"334 \r\n" + REJECTED, self.asking(""))

    def test_challenge_auth_logs_no_response(self) -> None:
        events = self.events()
        dial(self.asking("", log_client_response=True)).send(FOO + line(PASSWORD))
        self.assertNotIn(repr(PASSWORD), repr([event for event in events if "user" not in event]))

    def test_challenge_auth_gives_missing_when_it_has_answered(self) -> None:
        for said, answer in (
            (b"*", b"501 5.7.0 Authentication cancelled\r\n"),
            (b"!", b"501 5.5.2 That is not base64\r\n"),
        ):
            self.check(FOO + said + b"\r\n", b"334 \r\n" + answer, self.asking(""))

    def test_a_hook_that_returns_missing_for_it_does_not_answer_twice(self) -> None:
        async def auth_FOO(server: Any, args: list[str]) -> Any:
            return await server.challenge_auth("")

        self.check(
            FOO + b"*\r\nNOOP\r\n", b"334 \r\n501 5.7.0 Authentication cancelled\r\n250 2.0.0 OK\r\n", foo(auth_FOO)
        )

    def test_a_long_challenge_is_one_line(self) -> None:
        said = dial(self.asking(b"c" * 9000)).send(FOO)
        self.assertEqual(said, b"334 " + b64encode(b"c" * 9000) + b"\r\n")

    def test_a_challenge_that_can_not_be_sent(self) -> None:
        for challenge in ("a\r\n535 b", "é", "a" * 13000, "a\0"):
            client = dial(self.asking(challenge, encode_to_b64=False))
            self.assertEqual(codes(client.send(FOO)), [454])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 4)

    def test_auth_interact(self) -> None:
        for said in (b"334 V2hvPw==", "334 V2hvPw==\r\n", "V2hvPw=="):
            self.check(FOO + line(b"me"), b"334 V2hvPw==\r\n" + ACCEPTED, self.asking(said, method="_auth_interact"))

    def test_authenticate_gives_a_result_at_once_where_it_can(self) -> None:
        def auth_FOO(server: Any, args: list[str]) -> Any:
            result = server._authenticate("FOO", LoginPassword(LOGIN, PASSWORD))
            return "let in" if result.success else MISSING

        handler = foo(auth_FOO)
        self.check(FOO, ACCEPTED, handler, authenticator=authenticator)
        self.check(FOO, ACCEPTED, handler, auth_callback=lambda mechanism, login, password: mechanism == "FOO")
        self.check(FOO, REJECTED, handler)

    def test_authenticate_may_be_returned_when_it_takes_time(self) -> None:
        async def slow(*arguments: Any) -> AuthResult:
            return authenticator(*arguments)

        handler = foo(lambda server, args: server._authenticate("FOO", LoginPassword(LOGIN, PASSWORD)))
        self.check(FOO, ACCEPTED, handler, authenticator=slow)
        handler = foo(lambda server, args: server._authenticate("FOO", LoginPassword(LOGIN, b"wrong")))
        self.check(FOO, REJECTED, handler, authenticator=slow)

    def test_the_authenticator_gets_server_session_envelope_mechanism_and_data(self) -> None:
        seen: list[Any] = []

        def keep(*arguments: Any) -> AuthResult:
            seen.append(arguments)
            return AuthResult(success=True)

        client = dial(authenticator=keep, auth_callback=lambda *a: False)
        client.send(b"AUTH LOGIN %b" % line(LOGIN) + line(PASSWORD))
        protocol = client.protocol
        expected = (protocol, protocol.session, protocol.envelope, "LOGIN", LoginPassword(LOGIN, PASSWORD))
        self.assertEqual(seen, [expected])

    def test_the_callback_gets_mechanism_login_and_password(self) -> None:
        seen: list[Any] = []
        client = dial(auth_callback=lambda *arguments: seen.append(arguments) or True)
        self.assertEqual(client.send(b"AUTH PLAIN %b\r\n" % RIGHT), ACCEPTED)
        self.assertEqual(seen, [("PLAIN", LOGIN, PASSWORD)])

    def test_an_authenticator_may_give_a_deferred(self) -> None:
        waiting: Deferred[AuthResult] = Deferred()
        client = dial(authenticator=lambda *arguments: waiting)
        self.assertEqual(client.send(b"AUTH PLAIN %b\r\nNOOP\r\n" % RIGHT), b"")
        waiting.callback(AuthResult(success=True))
        self.assertEqual(client.read(), ACCEPTED + b"250 2.0.0 OK\r\n")

    def test_login_asks_with_the_class_attributes(self) -> None:
        class Mine(SMTP):
            AuthLoginUsernameChallenge = "User Name\0"
            AuthLoginPasswordChallenge = b"Password\0"

        client = dial(hooks(), protocol=Mine, auth_callback=lambda *a: True)
        self.assertEqual(client.send(b"AUTH LOGIN\r\n"), b"334 VXNlciBOYW1lAA==\r\n")
        self.assertEqual(client.send(line(LOGIN)), b"334 UGFzc3dvcmQA\r\n")


class HandleAuthTests(AuthCase):
    """``handle_AUTH``."""

    def test_it_does_everything_itself(self) -> None:
        async def handle_AUTH(server: Any, session: Any, envelope: Any, args: list[str]) -> str:
            session.authenticated, session.login_data = True, args
            return "235 2.7.0 Come in"

        client = self.check(b"AUTH plain QUJD\r\n", b"235 2.7.0 Come in\r\n", hooks(handle_AUTH=handle_AUTH))
        self.assertEqual(client.protocol.session.login_data, ["PLAIN", "QUJD"])

    def test_missing_leaves_it_to_the_mechanisms(self) -> None:
        handler = hooks(handle_AUTH=lambda *a: MISSING)
        self.check(b"AUTH PLAIN %b\r\n" % RIGHT, ACCEPTED, handler, authenticator=authenticator)

    def test_it_may_use_the_server(self) -> None:
        async def handle_AUTH(server: Any, session: Any, envelope: Any, args: list[str]) -> str:
            said = await server.challenge_auth("Who?")
            return f"535 {said.decode()} again"

        client = dial(hooks(handle_AUTH=handle_AUTH))
        said = client.send((b"AUTH PLAIN\r\n" + line(b"you")) * 4)
        self.assertEqual(codes(said), [334, 535, 334, 535, 334, 535, 421])

    def test_without_an_answer_it_is_a_failure(self) -> None:
        client = dial(hooks(handle_AUTH=lambda *a: None))
        self.assertEqual(codes(client.send(b"AUTH PLAIN\r\n")), [454])
        self.flushLoggedErrors()


class AsyncioTests(AuthCase):
    """On the asyncio reactor, hooks are tasks."""

    def test_a_hook_may_await_asyncio_and_the_client(self) -> None:
        async def auth_FOO(server: Any, args: list[str]) -> Any:
            first = await server.challenge_auth("one")
            await asyncio.sleep(0)
            return first + await asyncio.wait_for(server.challenge_auth("two"), 5)

        async def check_later(*arguments: Any) -> AuthResult:
            await asyncio.sleep(0)
            return authenticator(*arguments)

        async def talk() -> None:
            client = dial(foo(auth_FOO), authenticator=check_later)
            said = b""
            for sent in (FOO, line(b"a"), line(b"b"), b"QUIT\r\n"):
                said += client.send(sent)
                for _ in range(9):
                    await asyncio.sleep(0)
                said += client.read()
            self.assertEqual(codes(said), [334, 334, 235, 221])
            self.assertEqual(client.protocol.session.login_data, b"ab")
            client = dial(authenticator=check_later)
            client.send(b"AUTH PLAIN %b\r\nAUTH PLAIN %b\r\n" % (WRONG, RIGHT))
            for _ in range(20):
                await asyncio.sleep(0)
            self.assertEqual(codes(client.read()), [535, 235])

        asyncio.run(talk())
