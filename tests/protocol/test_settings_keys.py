"""Settings are found again whatever the values of the options are.

Seen: an authenticator that was a NamedTuple or a frozen dataclass with a dict inside was a TypeError (Mailrise).
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any, NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from tests.support.auth_helpers import ACCEPTED, PASSWORD, REJECTED, RIGHT, dial
from twisted_smtpd.assemble import settings_for
from twisted_smtpd.auth import AuthResult
from twisted_smtpd.smtp import SMTP


class Named(NamedTuple):
    """As Mailrise has it."""

    logins: Any

    def __call__(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=self.logins.get(data.login) == data.password, handled=False)


class Others(NamedTuple):
    logins: Any

    def __call__(self, *arguments: Any) -> AuthResult:
        return AuthResult(success=False, handled=False)


@dataclass(frozen=True)
class Frozen:
    logins: Any

    def __call__(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=self.logins.get(data.login) == data.password, handled=False)


class Mapped(dict[bytes, Any]):
    """A mapping that can be called, with lists inside."""

    def __call__(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=data.password in self.get(data.login, ()), handled=False)


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=data.password == PASSWORD, handled=False)


class Pairs(dict[bytes, bytes]):
    """Hashable, and equal to others."""

    def __hash__(self) -> int:  # type: ignore[override]
        return 1


LOGINS = {b"anne": PASSWORD}


class AnyValueTests(SynchronousTestCase):
    def test_an_authenticator_may_be_of_any_type(self) -> None:
        for authenticator in (Named(LOGINS), Frozen(LOGINS), Mapped({b"anne": [PASSWORD]}), Unhashable()):
            client = dial(authenticator=authenticator)
            self.assertEqual(client.send(b"AUTH PLAIN %b\r\n" % RIGHT), ACCEPTED, authenticator)

    def test_a_callback_may_be_too(self) -> None:
        class Callback(NamedTuple):
            logins: dict[bytes, bytes]

            def __call__(self, mechanism: str, login: bytes, password: bytes) -> bool:
                return self.logins.get(login) == password

        self.assertEqual(dial(auth_callback=Callback(LOGINS)).send(b"AUTH PLAIN %b\r\n" % RIGHT), ACCEPTED)

    def test_the_same_one_gives_the_same_settings(self) -> None:
        handler = object()
        for authenticator in (Named(LOGINS), Frozen(LOGINS), Mapped({b"anne": [PASSWORD]}), Unhashable()):
            options: Any = {"hostname": "x", "authenticator": authenticator}
            settings = settings_for(SMTP, handler, options)
            gc.collect()
            self.assertIs(settings_for(SMTP, handler, dict(options)), settings)  # type: ignore[arg-type]

    def test_another_one_gives_other_settings(self) -> None:
        handler = object()
        one = settings_for(SMTP, handler, {"hostname": "x", "authenticator": Named({})})
        other = settings_for(SMTP, handler, {"hostname": "x", "authenticator": Named(dict(LOGINS))})
        self.assertIsNot(one, other)

    def test_equal_tuples_of_different_classes_are_not_taken_for_each_other(self) -> None:
        handler = object()
        logins = Pairs(LOGINS)
        self.assertEqual(Named(logins), Others(logins))
        allowing = dial(handler, authenticator=Named(logins))
        refusing = dial(handler, authenticator=Others(logins), clock=allowing.protocol.connections.timers.clock)
        self.assertEqual(allowing.send(b"AUTH PLAIN %b\r\n" % RIGHT), ACCEPTED)
        self.assertEqual(refusing.send(b"AUTH PLAIN %b\r\n" % RIGHT), REJECTED)

    def test_what_is_wrong_with_an_option_is_said_even_if_it_can_not_be_hashed(self) -> None:
        error = self.assertRaises(TypeError, SMTP, object(), command_call_limit={"NOOP": [1]})
        self.assertIn("command_call_limit['NOOP']", str(error))
