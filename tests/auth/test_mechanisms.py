"""Tests for the built-in mechanisms, with a client's half of its own for each; scramp's for SCRAM."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import scramp
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.cred.checkers import ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import fail, succeed
from zope.interface import implementer

from tests.support.auth_helpers import ACCEPTED, LOGIN, PASSWORD, REJECTED, RIGHT, WRONG, AuthCase, able, dial, line
from tests.support.fakes import EHLO, codes, hooks
from tests.support.tls_dialog import SecureTestCase
from tests.support.tls_helpers import Client as TLSSettings
from twisted_smtpd.auth import (
    AcceptAnyone,
    AuthResult,
    BearerToken,
    CramMD5Response,
    CredAuthenticator,
    ExternalIdentity,
    ScramKeys,
)
from twisted_smtpd.auth.scram import ScramError, ScramServer
from twisted_smtpd.tls import channel_binding

MALFORMED = b"501 5.5.2 That is not what this mechanism has to say\r\n"


class Keys:
    """An authenticator that knows Anne's SCRAM keys."""

    mechanisms = ("PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS")

    def __call__(self, *arguments: Any) -> AuthResult:
        raise AssertionError("SCRAM needs no password")

    def scram_keys(self, server: Any, session: Any, envelope: Any, mechanism: str, login: bytes) -> Any:
        if login not in (LOGIN, "Änne".encode(), b"a,b=c"):
            return None
        return succeed(ScramKeys.derive(mechanism, PASSWORD, salt=b"salt" * 4, iterations=4096))


def scram(
    send: Callable[[bytes], bytes],
    mechanism: str,
    login: str = "anne",
    password: str = "correct horse",
    binding: Any = None,
) -> bytes:
    """Authenticate with scramp's client; what the server says at the end."""
    client = scramp.ScramClient([mechanism], login, password, channel_binding=binding)
    said = send(b"AUTH %b %b\r\n" % (mechanism.encode(), b64encode(client.get_client_first().encode())))
    if not said.startswith(b"334 "):
        return said
    client.set_server_first(b64decode(said[4:]).decode())
    said = send(line(client.get_client_final().encode()))
    if not said.startswith(b"334 "):
        return said
    # It raises an exception if the server does not know the password.
    client.set_server_final(b64decode(said[4:]).decode())
    return send(b"\r\n")


class ScramTests(AuthCase):
    def test_each_hash_with_an_independent_client(self) -> None:
        for mechanism in ("SCRAM-SHA-1", "SCRAM-SHA-256"):
            client = dial(authenticator=Keys())
            self.assertEqual(scram(client.send, mechanism), ACCEPTED)
            session = client.protocol.session
            self.assertEqual((session.authenticated, session.login_data), (True, LOGIN))

    def test_wrong_passwords_and_unknown_users_look_the_same(self) -> None:
        for login, password in (("anne", "wrong"), ("nobody", "correct horse")):
            client = dial(authenticator=Keys())
            self.assertEqual(scram(client.send, "SCRAM-SHA-256", login, password), REJECTED)
            self.assertIsNone(client.protocol.session.authenticated)

    def test_an_unknown_user_has_the_same_salt_each_time(self) -> None:
        first = b"n,,n=nobody,r=fyko+d2lbbFgONRv9qkxdawL"
        salts = set()
        for _ in range(2):
            said = b64decode(dial(authenticator=Keys()).send(b"AUTH SCRAM-SHA-256 %b\r\n" % b64encode(first))[4:])
            salts.add(said.partition(b",")[2])
        self.assertEqual(len(salts), 1)

    def test_names_are_unescaped_and_prepared(self) -> None:
        for name in ("Änne", "A\u0308nne", "a,b=c"):
            client = dial(authenticator=Keys())
            self.assertEqual(scram(client.send, "SCRAM-SHA-256", name), ACCEPTED)

    def test_split_at_every_octet(self) -> None:
        client = dial(authenticator=Keys())
        self.assertEqual(scram(lambda data: b"".join(client.send(bytes([o])) for o in data), "SCRAM-SHA-256"), ACCEPTED)

    def test_the_example_of_rfc_7677(self) -> None:
        keys = ScramKeys.derive("SCRAM-SHA-256", "pencil", salt=b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), iterations=4096)
        exchange = ScramServer("SCRAM-SHA-256", lambda kind: None, False, nonce="%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
        self.assertEqual(exchange.first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"), b"user")
        self.assertEqual(
            exchange.challenge(keys),
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        )
        proof = (
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
            b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        )
        self.assertEqual(exchange.final(proof), b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")

    def test_acting_as_somebody_else_is_refused(self) -> None:
        client = dial(authenticator=Keys())
        said = client.send(b"AUTH SCRAM-SHA-256 %b\r\n" % b64encode(b"n,a=root,n=anne,r=abc"))
        self.assertEqual(codes(said), [535])
        said = dial(authenticator=Keys()).send(b"AUTH SCRAM-SHA-256 %b\r\n" % b64encode(b"n,a=anne,n=anne,r=abc"))
        self.assertEqual(codes(said), [334])

    def test_messages_that_are_none(self) -> None:
        for first in (
            b"",
            b"n,,n=anne",
            b"n,,r=abc,n=anne",
            b"x,,n=anne,r=abc",
            b"n,,m=ext,n=anne,r=abc",
            b"n,,n=,r=abc",
            b"n,,n=a=41nne,r=abc",
            b"n,,n=anne,r=a\x7f",
            b"n,,n=an\0ne,r=abc",
            b"n,,n=\xff,r=abc",
            b"n,,n=an\x07ne,r=abc",
        ):
            said = dial(authenticator=Keys()).send(b"AUTH SCRAM-SHA-256\r\n" + line(first))
            self.assertEqual(said, b"334 \r\n" + MALFORMED, first)

    def test_final_messages_that_belong_elsewhere(self) -> None:
        for change, code in (
            (lambda final: final.replace(b"r=", b"r=x"), 535),
            (lambda final: final.replace(b"c=biws", b"c=" + b64encode(b"y,,")), 535),
            (lambda final: final.replace(b"c=biws", b"c=b"), 501),
            (lambda final: final[:-4], 535),
            (lambda final: b"p=" + final, 501),
            (lambda final: b"", 501),
            (lambda final: b"\xff", 501),
        ):
            client = dial(authenticator=Keys())
            theirs = scramp.ScramClient(["SCRAM-SHA-256"], "anne", PASSWORD.decode())
            said = client.send(b"AUTH SCRAM-SHA-256 %b\r\n" % b64encode(theirs.get_client_first().encode()))
            theirs.set_server_first(b64decode(said[4:]).decode())
            said = client.send(line(change(theirs.get_client_final().encode())))
            self.assertEqual(codes(said), [code])
            self.assertIsNone(client.protocol.session.authenticated)

    def test_success_needs_the_clients_last_word(self) -> None:
        for last, code in ((b"*\r\n", 501), (line(b"x"), 501)):
            client = dial(authenticator=Keys())
            said = scram(lambda data, last=last, c=client: c.send(last if data == b"\r\n" else data), "SCRAM-SHA-256")
            self.assertEqual(codes(said), [code])
            self.assertIsNone(client.protocol.session.authenticated)

    @given(st.binary(max_size=80), st.binary(max_size=80))
    def test_any_octets_are_refused(self, first: bytes, final: bytes) -> None:
        exchange = ScramServer("SCRAM-SHA-256-PLUS", lambda kind: b"data", True)
        try:
            login = exchange.first(first)
            exchange.challenge(ScramKeys.decoy("SCRAM-SHA-256", login))
            self.assertIsNone(exchange.final(final))
        except ScramError:
            pass


class ChannelBindingTests(SecureTestCase):
    """``-PLUS`` over real TLS."""

    def peer(self, version: int | None = None, context: Any = None) -> Any:
        peer = self.connect(tls_context=context or self.files(), authenticator=Keys())
        peer.starttls(TLSSettings(version=version))
        return peer

    def test_plus_is_offered_where_a_binding_can_be_had(self) -> None:
        both = b"250-AUTH PLAIN SCRAM-SHA-1 SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-256-PLUS\r\n"
        self.assertIn(both, self.peer().send(EHLO))
        self.assertIn(both, self.peer(SSL.TLS1_2_VERSION).send(EHLO))
        # There is no way to it with a standard library context and TLS 1.3.
        self.assertIn(b"250-AUTH PLAIN SCRAM-SHA-1 SCRAM-SHA-256\r\n", self.peer(context=self.stdlib()).send(EHLO))

    def test_plus_is_not_offered_in_clear(self) -> None:
        peer = self.connect(authenticator=Keys(), auth_require_tls=False)
        self.assertIn(b"250-AUTH PLAIN SCRAM-SHA-1 SCRAM-SHA-256\r\n", peer.send(EHLO))
        self.assertEqual(codes(peer.send(b"AUTH SCRAM-SHA-256-PLUS\r\n")), [538])

    def test_the_binding_of_this_connection(self) -> None:
        for version, kind in ((None, "tls-server-end-point"), (SSL.TLS1_2_VERSION, "tls-unique")):
            for mechanism in ("SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS"):
                peer = self.peer(version)
                peer.send(EHLO)
                data = channel_binding(peer.protocol.transport, kind)
                self.assertEqual(scram(peer.send, mechanism, binding=(kind, data)), ACCEPTED)

    def test_the_binding_of_another_connection_is_refused(self) -> None:
        other, peer = self.peer(SSL.TLS1_2_VERSION), self.peer(SSL.TLS1_2_VERSION)
        peer.send(EHLO)
        data = channel_binding(other.protocol.transport, "tls-unique")
        said = scram(peer.send, "SCRAM-SHA-256-PLUS", binding=("tls-unique", data))
        self.assertEqual(said, b"535 5.7.8 the channel binding does not match\r\n")

    def test_tls_exporter(self) -> None:
        peer = self.peer()
        peer.send(EHLO)
        data = peer.tls.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
        header = b"p=tls-exporter,,"
        said = peer.send(b"AUTH SCRAM-SHA-256-PLUS %b\r\n" % b64encode(header + b"n=anne,r=abc"))
        first = b64decode(said[4:])
        nonce = first[2:].partition(b",")[0]
        final = b"c=%b,r=%b" % (b64encode(header + data), nonce)
        transcript = b",".join((b"n=anne,r=abc", first, final))
        salted = hashlib.pbkdf2_hmac("sha256", PASSWORD, b"salt" * 4, 4096)
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), transcript, "sha256")
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        self.assertEqual(codes(peer.send(line(final + b",p=" + b64encode(proof)))), [334])
        self.assertEqual(peer.send(b"\r\n"), ACCEPTED)

    def test_a_client_that_was_made_to_believe_there_is_no_plus(self) -> None:
        first = b64encode(b"y,,n=anne,r=abc")
        peer = self.peer()
        peer.send(EHLO)
        self.assertEqual(codes(peer.send(b"AUTH SCRAM-SHA-256 %b\r\n" % first)), [535])
        peer = self.peer(context=self.stdlib())
        peer.send(EHLO)
        self.assertEqual(codes(peer.send(b"AUTH SCRAM-SHA-256 %b\r\n" % first)), [334])

    def test_binding_goes_with_plus_only(self) -> None:
        for mechanism, first in (
            (b"SCRAM-SHA-256", b"p=tls-unique,,n=anne,r=abc"),
            (b"SCRAM-SHA-256-PLUS", b"n,,n=anne,r=abc"),
            (b"SCRAM-SHA-256-PLUS", b"p=tls-unique,,n=anne,r=abc"),
            (b"SCRAM-SHA-256-PLUS", b"p=made-up,,n=anne,r=abc"),
        ):
            peer = self.peer()
            peer.send(EHLO)
            self.assertEqual(codes(peer.send(b"AUTH %b %b\r\n" % (mechanism, b64encode(first)))), [535], first)


class ExternalTests(SecureTestCase):
    """EXTERNAL with a client certificate."""

    def peer(self, identity: Any, **options: Any) -> Any:
        self.accept = able("EXTERNAL")
        files = self.files(client_ca=self.write("ca.pem", self.authority.pem))
        peer = self.connect(tls_context=files, authenticator=self.accept, **options)
        peer.starttls(TLSSettings(identity=identity))
        return peer

    def test_offered_to_a_verified_certificate_only(self) -> None:
        self.assertIn(b"250-AUTH EXTERNAL\r\n", self.peer(self.known).send(EHLO))
        peer = self.peer(None)
        self.assertNotIn(b"AUTH", peer.send(EHLO))
        self.assertEqual(codes(peer.send(b"AUTH EXTERNAL =\r\n")), [504])
        peer = self.connect(tls_context=self.files(), authenticator=self.accept, auth_require_tls=False)
        self.assertEqual(codes(peer.send(EHLO + b"AUTH EXTERNAL =\r\n")), [250, 538])

    def test_who_the_client_wants_to_be(self) -> None:
        for sent, login in (
            (b"AUTH EXTERNAL =\r\n", b""),
            (b"AUTH EXTERNAL\r\n\r\n", b""),
            (b"AUTH EXTERNAL %b\r\n" % b64encode(LOGIN), LOGIN),
        ):
            peer = self.peer(self.known)
            peer.send(EHLO)
            self.assertEqual(peer.send(sent)[-len(ACCEPTED) :], ACCEPTED)
            self.assertEqual(self.accept.seen, [("EXTERNAL", ExternalIdentity(login, self.known.der))])
            self.assertEqual(peer.protocol.session.login_data, login)

    def test_malformed_and_cancelled(self) -> None:
        peer = self.peer(self.known)
        peer.send(EHLO)
        self.assertEqual(codes(peer.send(b"AUTH EXTERNAL\r\n*\r\n")), [334, 501])
        self.assertEqual(codes(peer.send(b"AUTH EXTERNAL %b\r\n" % b64encode(b"a\0b"))), [501])


class CramTests(AuthCase):
    def answer(self, login: bytes, password: bytes, **options: Any) -> bytes:
        client = dial(auth_mechanisms=["CRAM-MD5"], **options)
        challenge = b64decode(client.send(b"AUTH CRAM-MD5\r\n")[4:])
        self.assertRegex(challenge, rb"^<[0-9a-f]{32}@mx\.example>$")
        return client.send(line(login + b" " + hmac.new(password, challenge, "md5").hexdigest().encode()))

    def test_off_by_default(self) -> None:
        checker = InMemoryUsernamePasswordDatabaseDontUse(anne=PASSWORD)
        client = dial(authenticator=CredAuthenticator(checker), ehlo=False)
        self.assertIn(b"250-AUTH LOGIN PLAIN\r\n", client.send(EHLO))
        self.assertEqual(codes(client.send(b"AUTH CRAM-MD5\r\n")), [504])

    def test_with_a_checker(self) -> None:
        authenticator = CredAuthenticator(InMemoryUsernamePasswordDatabaseDontUse(anne=PASSWORD))
        self.assertEqual(self.answer(LOGIN, PASSWORD, authenticator=authenticator), ACCEPTED)
        self.assertEqual(self.answer(LOGIN, b"wrong", authenticator=authenticator), REJECTED)
        self.assertEqual(self.answer(b"bart", PASSWORD, authenticator=authenticator), REJECTED)

    def test_with_an_authenticator_of_ones_own(self) -> None:
        def authenticator(
            server: Any, session: Any, envelope: Any, mechanism: str, data: CramMD5Response
        ) -> AuthResult:
            return AuthResult(success=data.login == b"with blank" and data.check(PASSWORD), handled=False)

        self.assertEqual(self.answer(b"with blank", PASSWORD, authenticator=authenticator), ACCEPTED)
        self.assertEqual(self.answer(b"with blank", b"wrong", authenticator=authenticator), REJECTED)

    def test_malformed_and_cancelled(self) -> None:
        for said, code in ((b"*\r\n", 501), (line(b"anne"), 501), (line(b"anne 1234"), 501), (line(b""), 501)):
            client = dial(auth_mechanisms=["CRAM-MD5"], authenticator=able("CRAM-MD5"))
            self.assertEqual(codes(client.send(b"AUTH CRAM-MD5\r\n" + said)), [334, code])
        client = dial(auth_mechanisms=["CRAM-MD5"], authenticator=able("CRAM-MD5"))
        self.assertEqual(client.send(b"AUTH CRAM-MD5 QUJD\r\n"), MALFORMED)


class BearerTests(AuthCase):
    """XOAUTH2 and OAUTHBEARER."""

    XOAUTH2 = b"user=anne@x.example\x01auth=Bearer ya29.token==\x01\x01"
    OAUTHBEARER = b"n,a=anne@x.example,\x01host=mx.example\x01port=587\x01auth=Bearer ya29.token==\x01\x01"

    def test_what_the_authenticator_gets(self) -> None:
        for mechanism, message, expected in (
            ("XOAUTH2", self.XOAUTH2, BearerToken(b"anne@x.example", "ya29.token==")),
            ("OAUTHBEARER", self.OAUTHBEARER, BearerToken(b"anne@x.example", "ya29.token==", "mx.example", 587)),
            ("OAUTHBEARER", b"y,,\x01auth=bearer t\x01\x01", BearerToken(b"", "t")),
            ("OAUTHBEARER", b"n,a=a=2Cb=3Dc,\x01auth=Bearer t\x01port=x\x01\x01", BearerToken(b"a,b=c", "t")),
        ):
            accept = able(mechanism)
            client = self.check(
                b"AUTH %b %b\r\n" % (mechanism.encode(), b64encode(message)), ACCEPTED, authenticator=accept
            )
            self.assertEqual(accept.seen[-1], (mechanism, expected))
            self.assertEqual(client.protocol.session.login_data, expected.login)

    def test_a_refused_token_is_explained_first(self) -> None:
        def refuse(*arguments: Any) -> AuthResult:
            return AuthResult(success=False, handled=False)

        refuse.mechanisms = ("XOAUTH2", "OAUTHBEARER")  # type: ignore[attr-defined]
        for mechanism, message, key in (
            (b"XOAUTH2", self.XOAUTH2, "400"),
            (b"OAUTHBEARER", self.OAUTHBEARER, "invalid_token"),
        ):
            for last in (b"AQ==\r\n", b"\r\n"):
                client = dial(authenticator=refuse)
                said = client.send(b"AUTH %b %b\r\n" % (mechanism, b64encode(message)))
                self.assertEqual(json.loads(b64decode(said[4:]))["status"], key)
                self.assertEqual(client.send(last), REJECTED)
                self.assertEqual(client.protocol._auth.failures, 1)
            client = dial(authenticator=refuse)
            said = client.send(b"AUTH %b %b\r\n*\r\nNOOP\r\n" % (mechanism, b64encode(message)))
            self.assertEqual(codes(said), [334, 501, 250])

    def test_a_status_of_the_authenticators_own(self) -> None:
        def later(*arguments: Any) -> AuthResult:
            return AuthResult(success=False, handled=False, message="454 4.7.0 Try later")

        later.mechanisms = ("XOAUTH2",)  # type: ignore[attr-defined]
        self.check(b"AUTH XOAUTH2 %b\r\n" % b64encode(self.XOAUTH2), b"454 4.7.0 Try later\r\n", authenticator=later)

    def test_malformed_and_cancelled(self) -> None:
        for mechanism, messages in (
            (b"XOAUTH2", (b"", b"user=a", b"user=\x01auth=Bearer t\x01\x01", b"user=a\x01auth=Basic t\x01\x01")),
            (
                b"OAUTHBEARER",
                (b"", b"n,,", b"n,,\x01\x01", b"p=x,,\x01auth=Bearer t\x01\x01", b"n,,\x01host=x\x01\x01"),
            ),
        ):
            for message in messages:
                client = dial(authenticator=able("XOAUTH2", "OAUTHBEARER"))
                said = client.send(b"AUTH %b\r\n" % mechanism + line(message))
                self.assertEqual(said, b"334 \r\n" + MALFORMED, message)
            self.assertEqual(
                codes(dial(authenticator=able("XOAUTH2", "OAUTHBEARER")).send(b"AUTH %b\r\n*\r\n" % mechanism)),
                [334, 501],
            )

    def test_tokens_are_not_shown(self) -> None:
        self.assertNotIn("secret", repr(BearerToken(b"a", "secret")))
        self.assertNotIn("ab" * 8, repr(CramMD5Response(b"a", b"b", b"ab" * 16)))


@implementer(ICredentialsChecker)
class AskingChecker:
    """A checker that returns what a function gives."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, ask: Callable[[], Any]) -> None:
        self.ask = ask

    def requestAvatarId(self, credentials: Any) -> Any:
        return self.ask()


class CredTests(AuthCase):
    def test_any_of_several_checkers(self) -> None:
        one = InMemoryUsernamePasswordDatabaseDontUse(bart=b"x")
        two = InMemoryUsernamePasswordDatabaseDontUse(anne=PASSWORD)
        authenticator = CredAuthenticator(one, two)
        session = self.check(b"AUTH PLAIN %b\r\n" % RIGHT, ACCEPTED, authenticator=authenticator).protocol.session
        self.assertEqual((session.login_data, session.auth_data.login), (LOGIN, LOGIN))
        self.assertNotIn("correct", repr(vars(session)))
        self.check(b"AUTH PLAIN %b\r\n" % WRONG, REJECTED, authenticator=authenticator)

    def checker(self, result: Any) -> Any:
        from twisted.cred.credentials import IUsernamePassword

        return hooks(requestAvatarId=lambda credentials: result), IUsernamePassword

    def test_what_a_checker_may_say(self) -> None:
        for result, code in (
            (succeed(LOGIN), 235),
            (b"", 535),
            (lambda: fail(UnauthorizedLogin("no")), 535),
            (lambda: fail(OSError("down")), 454),
        ):
            checker, interface = self.checker(result() if callable(result) else result)
            checker.credentialInterfaces = (interface,)
            self.assertEqual(
                codes(dial(authenticator=CredAuthenticator(checker)).send(b"AUTH PLAIN %b\r\n" % RIGHT)), [code]
            )

    def test_a_checker_without_passwords(self) -> None:
        checker, _ = self.checker(b"")
        checker.credentialInterfaces = ()
        self.assertRaises(ValueError, CredAuthenticator, checker)

    def test_a_checker_that_has_not_finished_lets_nobody_in(self) -> None:
        async def talk() -> None:
            loop = asyncio.get_running_loop()

            async def no() -> None:
                return None

            async def nested() -> Any:
                future = loop.create_future()
                future.set_result(None)
                return future

            def generator() -> Any:
                yield b"anne"

            for ask in (no, nested, generator, Future, lambda: loop.create_task(no())):
                checker = AskingChecker(ask)
                client = dial(authenticator=CredAuthenticator(checker))
                said = client.send(b"AUTH PLAIN %b\r\n" % RIGHT)
                for _ in range(9):
                    await asyncio.sleep(0)
                refusal = b"454" if ask is generator else REJECTED
                self.assertTrue((said + client.read()).startswith(refusal), ask)

        asyncio.run(talk())

    def test_a_checker_may_give_a_future(self) -> None:
        async def talk() -> None:
            async def yes() -> bytes:
                await asyncio.sleep(0)
                return b"anne"

            client = dial(authenticator=CredAuthenticator(AskingChecker(lambda: asyncio.ensure_future(yes()))))
            client.send(b"AUTH PLAIN %b\r\n" % RIGHT)
            for _ in range(9):
                await asyncio.sleep(0)
            self.assertEqual(client.read(), ACCEPTED)

        asyncio.run(talk())


class AcceptAnyoneTests(AuthCase):
    def test_each_of_its_mechanisms(self) -> None:
        client = dial(authenticator=AcceptAnyone(), ehlo=False)
        self.assertIn(b"250-AUTH CRAM-MD5 LOGIN OAUTHBEARER PLAIN XOAUTH2\r\n", client.send(EHLO))
        self.check(b"AUTH PLAIN %b\r\n" % WRONG, ACCEPTED, authenticator=AcceptAnyone())
        self.check(b"AUTH XOAUTH2 %b\r\n" % b64encode(BearerTests.XOAUTH2), ACCEPTED, authenticator=AcceptAnyone())
