"""What a client says in AUTH gets into no log, whichever handlers a chain has."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from twisted.logger import formatEvent

from tests.support.auth_helpers import PASSWORD, RIGHT, AuthCase, dial
from tests.support.fakes import answering, codes, hooks, raiser
from twisted_smtpd.handlers import Chain
from twisted_smtpd.handlers.chain import PASS
from twisted_smtpd.testing import talk


def broken(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> None:
    raise KeyError(f"no {data.password.decode()} in the table")


def handlers() -> dict[str, Any]:
    """Handlers none of which decides what an error is answered with."""
    passing = hooks(handle_exception=answering(PASS))
    return {
        "alone": passing,
        "a chain of one": Chain(passing),
        "a chain of two": Chain(passing, hooks(handle_exception=answering(PASS))),
        "a chain in a chain": Chain(Chain(passing), hooks()),
    }


class ChainSecretTests(AuthCase):
    """Seen: a chain wrote an exception into the log as it was, with the password in its text."""

    def test_a_password_in_an_exceptions_text_is_not_logged(self) -> None:
        for name, handler in handlers().items():
            events = self.events()
            said = dial(handler, authenticator=broken).send(b"AUTH PLAIN %b\r\n" % RIGHT)
            self.assertEqual(codes(said), [454], name)
            texts = "\n".join(f"{formatEvent(event)} {event!r}" for event in events)
            for secret in (PASSWORD, RIGHT, b64encode(PASSWORD)):
                self.assertNotIn(secret.decode(), texts + said.decode(), name)
            self.assertIn("KeyError", texts, name)
            self.assertIn("in broken", texts, name)

    def test_nor_is_that_of_a_failing_hook_of_its_own(self) -> None:
        for inner in (raiser(ValueError(PASSWORD.decode())), answering(None)):
            events = self.events()
            handler = Chain(hooks(handle_exception=answering(PASS)), hooks(handle_exception=inner))
            said = dial(handler, authenticator=broken).send(b"AUTH PLAIN %b\r\n" % RIGHT)
            self.assertEqual(codes(said), [500])
            texts = "\n".join(f"{formatEvent(event)} {event!r}" for event in events)
            self.assertNotIn(PASSWORD.decode(), texts)

    def test_where_no_handler_decides_the_server_answers_as_it_does_by_itself(self) -> None:
        for name, handler in handlers().items():
            dialog = talk(Chain(handler, hooks(handle_NOOP=raiser(RuntimeError("oops")))), "EHLO x\nNOOP")
            self.assertRegex(dialog, r"S: 451 4\.3\.0 .*\(session [-0-9a-f]+\)$", name)
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1, name)
