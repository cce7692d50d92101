"""The server for tests: in a thread, or in a coroutine."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from threading import Condition
from typing import TYPE_CHECKING, Any, overload

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from twisted_smtpd.controller import Controller
from twisted_smtpd.logs.escaping import peer_text
from twisted_smtpd.runtime.reactors import wait_for
from twisted_smtpd.runtime.steady import Unfrozen
from twisted_smtpd.store.memory import MAX_MESSAGES, MemoryStore
from twisted_smtpd.store.messages import StoredMessage
from twisted_smtpd.testing.failures import Failure, Failures, Step
from twisted_smtpd.testing.handler import DoubleHandler, Users
from twisted_smtpd.testing.mailbox import Criteria, Mailbox, Pattern, Predicate
from twisted_smtpd.testing.protocol import LMTPDouble, SMTPDouble
from twisted_smtpd.testing.tls import FailingTLS

if TYPE_CHECKING:
    from typing_extensions import Self

    from twisted_smtpd.testing.certificates import Authority
    from twisted_smtpd.testing.messages import ReceivedMessage

__all__ = ["DEFAULT_TIMEOUT", "AsyncMailServer", "BaseMailServer", "MailServer"]

#: Seconds that ``wait_for`` waits, unless it is told otherwise.
DEFAULT_TIMEOUT = 5.0


def _authority() -> Authority:
    # Imported here: most tests have no TLS, and the library for certificates takes time to load.
    from twisted_smtpd.testing.certificates import authority

    return authority()


class _DoubleController(Controller):
    """Runs a server for tests."""

    protocol: type[SMTPDouble] = SMTPDouble
    failures: Failures

    def factory(self) -> SMTPDouble:
        protocol = self.protocol(self.handler, **self.SMTP_kwargs)
        protocol.failures = self.failures
        return protocol


class BaseMailServer:
    """What :class:`MailServer` and :class:`AsyncMailServer` have in common.

    :param hostname: the address to listen on, and the name in :attr:`url`.
    :param port: the port; 0 for any that is free.
    :param lmtp: whether it speaks LMTP.
    :param starttls: whether it offers STARTTLS, with a certificate of :attr:`ca_file`.
    :param tls: whether it speaks TLS from the start (port 465).
    :param auth: whether it offers AUTH, in clear too.
    :param users: user to password; ``None`` to let in everyone, whatever the password.
    :param timeout: seconds that :meth:`wait_for` waits if it is not told otherwise.
    :param ssl_cert_file: whether the environment variable ``SSL_CERT_FILE`` names :attr:`ca_file` while the server
        runs, so that programs that use Python's defaults trust its certificate.
    :param max_messages: how many messages are kept; then the oldest go.
    :param options: see :class:`twisted_smtpd.smtp.SMTP`: ``auth_required=True``, ``data_size_limit=1000`` and so on.
    :ivar hostname: the address.
    :ivar port: the port, once the server has started.
    :ivar handler: the handler; a test may set hooks on it.
    """

    def __init__(
        self,
        *,
        hostname: str = "127.0.0.1",
        port: int = 0,
        lmtp: bool = False,
        starttls: bool = True,
        tls: bool = False,
        auth: bool = True,
        users: Mapping[str, str] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        ssl_cert_file: bool = False,
        max_messages: int = MAX_MESSAGES,
        **options: Any,
    ) -> None:
        self.timeout = timeout
        self._scheme = "lmtp" if lmtp else "smtps" if tls else "smtp"
        self._ssl_cert_file = ssl_cert_file
        self._environment: dict[str, str | None] = {}
        self._failures = Failures()
        self._mail = Mailbox(max_messages)
        self.handler = DoubleHandler(self._mail.store, self._mail.begin)
        creator = FailingTLS(None, tuple(dict.fromkeys((hostname, "localhost", "127.0.0.1", "::1"))), self._failures)
        if starttls and not tls:
            options.setdefault("tls_context", creator)
        if auth:
            options.setdefault("authenticator", Users(users))
            options.setdefault("auth_require_tls", False)
        # The machine's own name would have to be asked of the DNS, and differs from machine to machine.
        options.setdefault("server_hostname", "localhost")
        self._controller = _DoubleController(
            self.handler, hostname, port, ssl_context=creator if tls else None, grace=0.0, **options
        )
        self._controller.protocol = LMTPDouble if lmtp else SMTPDouble
        self._controller.failures = self._failures

    # -- where it is ---------------------------------------------------------------------------------------------------

    @property
    def hostname(self) -> str:
        """The address it listens on."""
        return self._controller.hostname

    @property
    def port(self) -> int:
        """Its port; 0 before the start, unless one was given."""
        return self._controller.port

    @property
    def url(self) -> str:
        """Its address: ``smtp://127.0.0.1:40123``, or ``smtps:``, or ``lmtp:``."""
        return f"{self._scheme}://{peer_text((self.hostname, self.port))}"

    @property
    def ca_file(self) -> str:
        """A file with the certificate of the authority that clients have to trust; for tests only."""
        return str(_authority().file)

    def ssl_context(self) -> ssl.SSLContext:
        """TLS for a client that trusts this server."""
        return _authority().client_context()

    def _enter(self) -> None:
        if self._ssl_cert_file:
            self._environment = {"SSL_CERT_FILE": os.environ.get("SSL_CERT_FILE")}
            os.environ["SSL_CERT_FILE"] = self.ca_file

    def _leave(self) -> None:
        environment, self._environment = self._environment, {}
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    # -- the mail ------------------------------------------------------------------------------------------------------

    @property
    def store(self) -> MemoryStore:
        """Where the messages are."""
        return self._mail.store

    @property
    def messages(self) -> list[ReceivedMessage]:
        """The messages that were accepted, the oldest first."""
        return self._mail.messages

    @property
    def refused(self) -> list[ReceivedMessage]:
        """The messages that came in full and were refused then."""
        return self._mail.refused

    @property
    def dialogs(self) -> list[str]:
        """What was said in each session, the oldest first, also where no message came."""
        return self._mail.dialogs

    def find(
        self,
        predicate: Predicate | None = None,
        *,
        to: Pattern | None = None,
        sender: Pattern | None = None,
        subject: Pattern | None = None,
        body: Pattern | None = None,
    ) -> list[ReceivedMessage]:
        """The messages that fit, the oldest first.

        A ``str`` is looked for as a part, whatever the case; a compiled regular expression is searched.

        :param predicate: called with a message; it fits if the result is true.
        :param to: in the recipients of the envelope: who gets it, whatever ``To:`` says.
        :param sender: in the sender of the envelope, and ``From:``.
        :param subject: in the subject.
        :param body: in the text or the HTML.
        """
        return self._mail.find(Criteria(predicate, to, sender, subject, body))

    def clear(self) -> None:
        """Forget the messages and the dialogs so far."""
        self._mail.clear()

    def report(self) -> str:
        """All messages in short, and the last dialogs."""
        return self._mail.report()

    # -- failures ------------------------------------------------------------------------------------------------------

    def fail(
        self,
        where: str,
        what: str | bytes,
        *,
        times: int | None = None,
        after: int = 0,
        match: str | Callable[[Step], object] | None = None,
        delay: float | None = None,
        octets: int = 0,
        chance: float = 1.0,
        seed: int = 0,
    ) -> Failure:
        """Have something go wrong from now on.

        :param where: a command (``"RCPT"``; ``"*"`` for each), or a place: ``"CONNECT"``, ``"TLS"``, ``"AUTH"``,
            ``"CONTENT"``, ``"MESSAGE"`` or ``"ANSWER"``.
        :param what: a reply (``"451 4.7.1 later"``), the name of one (``"mailbox full"``), octets to send in its place,
            or ``"drop"``, ``"reset"``, ``"stall"``, ``"slow"``, ``"split"``, ``"garble"``, ``"greylist"``,
            ``"without EXTENSION ..."`` (EHLO), ``"expired"`` and the like (TLS).
        :param times: how often; ``None`` for always.
        :param after: how many times it goes well before.
        :param match: what the command line has to contain, whatever the case; or a function of a :class:`Step`.
        :param delay: seconds, for ``"slow"`` (before the reply) and ``"split"`` (between octets).
        :param octets: for ``CONTENT``, after how many octets of the message; at its end if it has fewer.
        :param chance: how likely it is, above 0, at most 1; for the same ``seed`` it is always the same times.
        :param seed: see there.
        :returns: the failure, to ``remove()`` it, or to use it with ``with``.
        :raises ValueError: if this can't happen there.
        """
        return self._failures.add(
            Failure(
                *(where, what),
                times=times,
                after=after,
                match=match,
                delay=delay,
                octets=octets,
                chance=chance,
                seed=seed,
            )
        )

    @property
    def failures(self) -> Failures:
        """What goes wrong at present."""
        return self._failures

    def clear_failures(self) -> None:
        """From now on nothing goes wrong."""
        self._failures.clear()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"


class _Wanted:
    """What is waited for."""

    def __init__(self, wanted: int | Predicate | None, criteria: Criteria, timeout: float) -> None:
        self.many = wanted is not None and not callable(wanted)
        self.number = wanted if isinstance(wanted, int) else 1
        if self.number < 1:
            raise ValueError(f"wait_for: 1 message or more, not {self.number}; expect_none() waits for none")
        self.criteria, self.timeout = criteria, timeout

    def result(self, mail: Mailbox) -> Any:
        """The message or the messages, or ``None`` while they are not there."""
        found = mail.find(self.criteria, self.number)
        if len(found) < self.number:
            return None
        return found if self.many else found[0]


class MailServer(BaseMailServer):
    """A mail server for tests, in a thread.

        with MailServer() as smtpd:
            program.send_mail(smtpd.hostname, smtpd.port)
            assert smtpd.wait_for(to="bart@example.com")["Subject"] == "Hello"

    Its thread is that of the global Twisted reactor, which all servers share; it stays when a server has stopped.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._arrival = Condition()
        self._unwatch = self.store.watch(self._notify)

    def _notify(self, stored: StoredMessage) -> None:
        with self._arrival:
            self._arrival.notify_all()

    def start(self) -> None:
        """Start it; ``with`` does so, too.

        :raises OSError: if its address or its port can't be used.
        """
        self._controller.start()
        self._enter()

    def stop(self) -> None:
        """Stop it; connections are closed.  The messages stay.  Nothing happens if it doesn't run."""
        self._leave()
        self._controller.stop(no_assert=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @overload
    def wait_for(
        self,
        wanted: Predicate | None = None,
        *,
        to: Pattern | None = None,
        sender: Pattern | None = None,
        subject: Pattern | None = None,
        body: Pattern | None = None,
        timeout: float | None = None,
    ) -> ReceivedMessage: ...

    @overload
    def wait_for(
        self,
        wanted: int,
        *,
        to: Pattern | None = None,
        sender: Pattern | None = None,
        subject: Pattern | None = None,
        body: Pattern | None = None,
        timeout: float | None = None,
    ) -> list[ReceivedMessage]: ...

    def wait_for(
        self,
        wanted: int | Predicate | None = None,
        *,
        to: Pattern | None = None,
        sender: Pattern | None = None,
        subject: Pattern | None = None,
        body: Pattern | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Wait for mail.  What has come already counts; :meth:`clear` forgets it.

        :param wanted: a number, to get a list of so many messages; or a predicate, see :meth:`find`.
        :param to: see :meth:`find`, as for the others.
        :param timeout: seconds to wait at most.
        :returns: the first message that fits; with a number, a list of the first ones.
        :raises AssertionError: if they don't come in time; its text shows what did come, and the dialogs.
        """
        predicate = wanted if callable(wanted) else None
        criteria = Criteria(predicate, to, sender, subject, body)
        return self._wait(_Wanted(wanted, criteria, self.timeout if timeout is None else timeout))

    def _wait(self, wanted: _Wanted) -> Any:
        result = self._wait_until(lambda: wanted.result(self._mail), wanted.timeout)
        if result is None:
            raise AssertionError(self._mail.too_few(wanted.number, wanted.criteria, wanted.timeout))
        return result

    def expect_none(
        self,
        predicate: Predicate | None = None,
        *,
        within: float = 0.0,
        to: Pattern | None = None,
        sender: Pattern | None = None,
        subject: Pattern | None = None,
        body: Pattern | None = None,
    ) -> None:
        """Make sure that no mail has come, and that none comes for a while.

        :param predicate: see :meth:`find`, as for the others: only mail like that must not come.
        :param within: seconds to wait.
        :raises AssertionError: as soon as a message comes.
        """
        criteria = Criteria(predicate, to, sender, subject, body)
        if self._wait_until(lambda: self._mail.find(criteria, 1) or None, within) is not None:
            raise AssertionError(self._mail.too_many(criteria))

    def _wait_until(self, result: Callable[[], Any], timeout: float) -> Any:
        """The result, as soon as it is not ``None``; or ``None`` when the time is over."""
        end = Unfrozen.monotonic() + timeout
        with self._arrival:
            while (found := result()) is None and (left := end - Unfrozen.monotonic()) > 0:
                self._arrival.wait(left)
        return found


class AsyncMailServer(BaseMailServer):
    """A mail server for tests, on the asyncio loop or the Twisted reactor of the test.

    async with AsyncMailServer() as smtpd:
        await program.send_mail(smtpd.hostname, smtpd.port)
        assert (await smtpd.wait_for(to="bart@example.com"))["Subject"] == "Hello"
    """

    async def start(self) -> None:
        """Start it; ``async with`` does so, too.

        :raises OSError: if its address or its port can't be used.
        """
        await self._controller.listen()
        self._enter()

    async def stop(self) -> None:
        """Stop it; connections are closed.  The messages stay.  Nothing happens if it doesn't run."""
        self._leave()
        await self._controller.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def wait_for(
        self,
        wanted: int | Predicate | None = None,
        *,
        to: Pattern | None = None,
        sender: Pattern | None = None,
        subject: Pattern | None = None,
        body: Pattern | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Wait for mail, as :meth:`MailServer.wait_for` does."""
        predicate = wanted if callable(wanted) else None
        criteria = Criteria(predicate, to, sender, subject, body)
        want = _Wanted(wanted, criteria, self.timeout if timeout is None else timeout)
        result = await self._wait_until(lambda: want.result(self._mail), want.timeout)
        if result is None:
            raise AssertionError(self._mail.too_few(want.number, criteria, want.timeout))
        return result

    async def expect_none(
        self,
        predicate: Predicate | None = None,
        *,
        within: float = 0.0,
        to: Pattern | None = None,
        sender: Pattern | None = None,
        subject: Pattern | None = None,
        body: Pattern | None = None,
    ) -> None:
        """Make sure that no mail comes, as :meth:`MailServer.expect_none` does."""
        criteria = Criteria(predicate, to, sender, subject, body)
        if await self._wait_until(lambda: self._mail.find(criteria, 1) or None, within) is not None:
            raise AssertionError(self._mail.too_many(criteria))

    async def _wait_until(self, result: Callable[[], Any], timeout: float) -> Any:
        if (found := result()) is not None or timeout <= 0 or self._controller.server is None:
            return found
        over: Deferred[None] = deferLater(self._controller.server.reactor, timeout)

        def arrived(stored: StoredMessage) -> None:
            if not over.called and result() is not None:
                over.cancel()

        unwatch = self.store.watch(arrived)
        over.addErrback(lambda failure: None)
        try:
            await wait_for(over)
        finally:
            unwatch()
        return result()
