"""What the tests of AUTH share."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import execute
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import EHLO, Client, connect
from twisted_smtpd.auth import AuthResult, LoginPassword, PasswordFile, hashes
from twisted_smtpd.auth.worker import Worker

LOGIN, PASSWORD = b"anne", b"correct horse"
RIGHT = b64encode(b"\0anne\0correct horse")
WRONG = b64encode(b"\0anne\0battery staple")
ACCEPTED = b"235 2.7.0 Authentication successful\r\n"
REJECTED = b"535 5.7.8 Authentication credentials invalid\r\n"


def line(data: bytes) -> bytes:
    """What a client says in an exchange."""
    return b64encode(data) + b"\r\n"


def authenticator(server: Any, session: Any, envelope: Any, mechanism: str, auth_data: LoginPassword) -> AuthResult:
    """Lets Anne in."""
    right = (auth_data.login, auth_data.password) == (LOGIN, PASSWORD)
    return AuthResult(success=right, handled=False, auth_data=auth_data)


def able(*mechanisms: str) -> Callable[..., AuthResult]:
    """An authenticator for these mechanisms, that lets everybody in and keeps what it was given in ``seen``."""

    def accept(server: Any, session: Any, envelope: Any, mechanism: str, auth_data: Any) -> AuthResult:
        accept.seen.append((mechanism, auth_data))  # type: ignore[attr-defined]
        return AuthResult(success=True, auth_data=auth_data)

    accept.seen = []  # type: ignore[attr-defined]
    accept.mechanisms = mechanisms  # type: ignore[attr-defined]
    return accept


def dial(handler: Any = None, host: Any = "127.0.0.1", tls: bool = True, ehlo: bool = True, **options: Any) -> Client:
    """A client that has said EHLO; its connection has TLS unless said otherwise."""
    if not options.keys() & {"authenticator", "auth_callback"} and handler is None:
        options["authenticator"] = authenticator
    options.setdefault("clock", Clock())
    client = connect(handler, host=host, **options)
    client.protocol.session.tls = tls
    if ehlo:
        client.send(EHLO)
    return client


def splits(data: bytes) -> Iterator[list[bytes]]:
    """The same octets in one segment, cut in two at every place, and one by one."""
    yield [data]
    for place in range(1, len(data)):
        yield [data[:place], data[place:]]
    yield [data[i : i + 1] for i in range(len(data))]


class AuthCase(SynchronousTestCase):
    """A test of AUTH."""

    def check(self, sent: bytes, expected: bytes, handler: Any = None, **options: Any) -> Client:
        """Have a client say this, however it is cut; the last client."""
        for parts in splits(sent):
            client = dial(handler, **options)
            said = b"".join(client.send(part) for part in parts)
            self.assertEqual(said, expected, parts)
        return client

    def events(self) -> list[dict[str, Any]]:
        """The events that are logged from now on."""
        events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        return events


class PasswordFileCase(AuthCase):
    """Password files whose hashes cost nothing, and no threads."""

    def setUp(self) -> None:
        self.patch(hashes, "SCRYPT", (4, 8, 1))
        self.path = Path(self.mktemp())

    def write(self, *lines: str) -> PasswordFile:
        self.path.write_text("".join(f"{text}\n" for text in lines))
        self.path.chmod(0o600)
        return self.open()

    def open(self) -> PasswordFile:
        return PasswordFile(self.path, worker=Worker(execute))
