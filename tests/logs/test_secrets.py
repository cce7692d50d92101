"""No secret is in the log: each mechanism, however a client says it, in each form of the log, and in the transcript."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import scramp
from twisted.logger import (
    eventAsText,
    formatEvent,
    formatEventAsClassicLogText,
    globalLogPublisher,
)
from twisted.trial.unittest import SynchronousTestCase

from tests.support.auth_helpers import dial, splits
from tests.support.fakes import Client
from twisted_smtpd.auth import AuthResult, LoginPassword
from twisted_smtpd.auth.scram import ScramKeys
from twisted_smtpd.logs.forms import json_line, text_line, untimed_text_line
from twisted_smtpd.testing.memory import talk

SECRET = "hunter2-Gehéim?"
OCTETS = SECRET.encode()
FORMS: tuple[Callable[[Any], Any], ...] = (
    text_line,
    untimed_text_line,
    json_line,
    formatEvent,
    formatEventAsClassicLogText,
    eventAsText,
)
MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER", "SCRAM-SHA-1", "SCRAM-SHA-256")


def disguises(secret: bytes) -> set[str]:
    """A secret as it may stand in a log: as it is, escaped, in hexadecimal, in base64 wherever it begins."""
    text = secret.decode("utf-8", "backslashreplace")
    found = {
        text,
        text.upper(),
        repr(secret)[2:-1],
        ascii(text)[1:-1],
        secret.hex(),
        quote(secret),
        text[:8],
        text[-8:],
    }
    for before in range(3):
        # Without the characters that depend on what stands before and after.
        encoded = b64encode(b"\0" * before + secret)
        found.add(encoded[[0, 2, 3][before] : len(encoded) - 4].decode())
    return found


class Authenticator:
    """Knows one password, and says no to the others; or fails, with what it was given in the traceback."""

    mechanisms = MECHANISMS

    def __init__(self, password: bytes = OCTETS, fails: bool = False) -> None:
        self.password, self.fails = password, fails

    def __call__(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        if self.fails:
            raise RuntimeError(f"no answer about {data!r} in {session!r} and {envelope!r} of {server!r}")
        if mechanism == "CRAM-MD5":
            right = data.check(self.password)
        elif mechanism in ("XOAUTH2", "OAUTHBEARER"):
            right = data.token.encode() == self.password
        else:
            right = data.password == self.password
        return AuthResult(success=right, handled=False, auth_data=data)

    def scram_keys(self, server: Any, session: Any, envelope: Any, mechanism: str, login: bytes) -> ScramKeys:
        if self.fails:
            raise RuntimeError(f"no answer about {login!r} in {session!r}")
        return ScramKeys.derive(mechanism, self.password, iterations=4096)


class Exchange:
    """A client's half of an exchange; keeps what is secret in it.

    :param mechanism: the mechanism.
    :param client: who says it.
    :ivar secrets: what must not be seen.
    """

    def __init__(self, mechanism: str, client: Client) -> None:
        self.mechanism, self.client = mechanism, client
        self.secrets: set[str] = disguises(OCTETS)

    def responses(self) -> Iterator[bytes]:
        """What the client says, each after the server's challenge, which is sent in."""
        if self.mechanism == "PLAIN":
            yield b"\0anne\0" + OCTETS
        elif self.mechanism == "LOGIN":
            yield b"anne"
            yield OCTETS
        elif self.mechanism == "CRAM-MD5":
            digest = hmac.new(OCTETS, self.challenge, hashlib.md5).hexdigest()
            self.secrets |= {digest, *disguises(digest.encode())}
            yield b"anne " + digest.encode()
        elif self.mechanism == "XOAUTH2":
            yield b"user=anne\1auth=Bearer " + TOKEN + b"\1\1"
        elif self.mechanism == "OAUTHBEARER":
            yield b"n,a=anne,\1auth=Bearer " + TOKEN + b"\1\1"
        else:
            theirs = scramp.ScramClient([self.mechanism], "anne", SECRET)
            yield theirs.get_client_first().encode()
            theirs.set_server_first(self.challenge.decode())
            final = theirs.get_client_final()
            proof = final.partition("p=")[2]
            self.secrets |= {proof, proof.rstrip("="), b64decode(proof).hex(), *disguises(proof.encode())}
            yield final.encode()
            # The server has shown that it knows the password, too.
            yield b""

    challenge = b""

    def run(self, initial: bool) -> None:
        """Say all of it.

        :param initial: whether the first response comes with AUTH.
        """
        responses = self.responses()
        if initial:
            said = self.client.send(b"AUTH %s %s\r\n" % (self.mechanism.encode(), b64encode(next(responses))))
        else:
            said = self.client.send(b"AUTH %s\r\n" % self.mechanism.encode())
        while said.startswith(b"334"):
            self.challenge = b64decode(said[4:].strip())
            response = next(responses, None)
            said = self.client.send(b"*\r\n" if response is None else b64encode(response) + b"\r\n")


TOKEN = b"ya29.hunter2-token-Geheim"


class SecretsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def check(self, client: Client, *more: str, secrets: set[str] | None = None) -> None:
        """Look for what is secret in all that was logged, and in all that an object says of itself."""
        protocol = client.protocol
        client.lose()
        objects = (
            protocol,
            protocol.session,
            protocol.envelope,
            protocol.session.auth_data,
            protocol.session.login_data,
        )
        texts = [str(form(event)) for event in self.events for form in FORMS]
        texts += [text for one in objects for text in (repr(one), str(one))]
        whole = "\n".join([*texts, *more])
        for secret in (secrets or set()) | disguises(OCTETS) | disguises(TOKEN):
            self.assertFalse(secret in whole, f"{secret!r} is seen")
        self.assertTrue(self.events)
        self.events.clear()
        self.flushLoggedErrors()

    def dial(self, authenticator: Authenticator, **options: Any) -> Client:
        return dial(authenticator=authenticator, auth_mechanisms=MECHANISMS, trace=True, **options)

    def test_each_mechanism_with_a_right_a_wrong_and_an_unknown_answer(self) -> None:
        for mechanism in MECHANISMS:
            for initial in (False, True) if mechanism != "CRAM-MD5" else (False,):
                right = TOKEN if "OAUTH" in mechanism else OCTETS
                for authenticator in (
                    Authenticator(right),
                    Authenticator(b"battery staple"),
                    Authenticator(fails=True),
                ):
                    client = self.dial(authenticator)
                    exchange = Exchange(mechanism, client)
                    exchange.run(initial)
                    expected = authenticator.password == right and not authenticator.fails
                    self.assertEqual(bool(client.protocol.session.authenticated), expected, mechanism)
                    self.check(client, secrets=exchange.secrets)

    def test_one_that_is_not_offered_is_pipelined_or_is_cut_anywhere(self) -> None:
        plain, login, password = (b64encode(each) for each in (b"\0anne\0" + OCTETS, b"anne", OCTETS))
        for script in (
            b"AUTH PLAIN " + plain + b"\r\nMAIL FROM:<a@b.example>\r\n",
            b"AUTH LOGIN\r\n" + login + b"\r\n" + password + b"\r\nNOOP\r\n",
            b"AUTH DIGEST-MD5\r\n" + login + b"\r\n" + password + b"\r\n",
            b"AUTH NTLM " + password + b"\r\n",
            b"AUTH " + password + b"\r\n",
            b"AUTH LOGIN " + password + b" " + password + b"\r\n" + login + b"\r\n" + password + b"\r\n",
            b"auth\tplain\t" + plain + b"\r\n",
        ):
            for offered in (Authenticator(), None):
                for parts in (*splits(script),)[::3]:
                    options: dict[str, Any] = {"authenticator": offered} if offered else {"auth_callback": None}
                    client = dial(trace=True, **options)
                    for part in parts:
                        client.send(part)
                    self.check(client)

    def test_before_ehlo_in_clear_and_after_the_sign_in(self) -> None:
        plain = b"AUTH PLAIN " + b64encode(b"\0anne\0" + OCTETS) + b"\r\n"
        lines = b64encode(b"anne") + b"\r\n" + b64encode(OCTETS) + b"\r\n"
        self.check(self._say(self.dial(Authenticator(), ehlo=False), plain + lines))
        self.check(self._say(self.dial(Authenticator(), tls=False, auth_require_tls=True), plain + lines))
        self.check(self._say(self.dial(Authenticator()), plain + plain + lines))
        self.check(self._say(self.dial(Authenticator()), b"MAIL FROM:<a@b.example>\r\n" + plain + lines))

    @staticmethod
    def _say(client: Client, script: bytes) -> Client:
        client.send(script)
        return client

    def test_a_response_that_is_too_long_or_no_base64_is_not_shown(self) -> None:
        for said in (OCTETS, b"=" + OCTETS, b64encode(OCTETS) * 2000, b"\x00" + OCTETS, OCTETS + b"\xff"):
            client = self.dial(Authenticator())
            client.send(b"AUTH LOGIN\r\n" + said + b"\r\n" + said + b"\r\n")
            self.check(client)

    def test_credentials_in_the_hands_of_programs(self) -> None:
        texts = repr(LoginPassword(b"anne", OCTETS)), str(LoginPassword(b"anne", OCTETS))
        for secret in disguises(OCTETS):
            self.assertFalse(any(secret in text for text in texts), secret)

    def test_the_disguises_are_found(self) -> None:
        for before in (b"", b"x", b"xy", b"\0anne\0"):
            text = b64encode(before + OCTETS + b"more").decode()
            self.assertTrue(any(secret in text for secret in disguises(OCTETS)), before)
        self.assertTrue(re.search("AUTH PLAIN", talk(object(), "AUTH PLAIN x")))
