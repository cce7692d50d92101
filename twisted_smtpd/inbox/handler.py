"""The handler of an inbox: it keeps mail, and runs the site that shows it."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from twisted.application.internet import TimerService
from twisted.application.service import IService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_smtpd import __version__
from twisted_smtpd.inbox.command import Arguments, listeners_of, parse_arguments
from twisted_smtpd.inbox.connection import inbox_protocol
from twisted_smtpd.inbox.mailboxes import Mailboxes
from twisted_smtpd.inbox.settings import SiteSettings
from twisted_smtpd.interfaces import IDATAHandler, IOffersProtocol, IOffersServices, IStartable, IStoppable
from twisted_smtpd.logs.escaping import peer_text
from twisted_smtpd.runtime.database import DatabaseError
from twisted_smtpd.runtime.lifecycle import HandlerStartError, ServerInfo
from twisted_smtpd.runtime.listeners import Listener
from twisted_smtpd.service import ListeningService
from twisted_smtpd.session import Envelope, Recipient, Session
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.store.interfaces import IMessageStore
from twisted_smtpd.store.messages import NewMessage
from twisted_smtpd.store.sqlite import SQLiteStore
from twisted_smtpd.testing.failures import Failures
from twisted_smtpd.testing.transcript import Transcript

if TYPE_CHECKING:
    from twisted_smtpd.handlers.proxy import Proxy
    from twisted_smtpd.inbox.releasing import HostReleaser

__all__ = ["Inbox"]

log = Logger()

# Seconds after which the dialog of a session that goes on is kept, and after which old messages are looked for.
KEEP_DIALOGS = 1.0
PURGE = 1.0


@dataclass
class _Dialog:
    """The dialog of a session that is open, or has just ended.

    :ivar session: the session's id.
    :ivar pending: messages of the session that are being kept.
    :ivar has_messages: whether there were any.
    :ivar kept: lines of the dialog that were kept.
    """

    session: str
    transcript: Transcript
    pending: int = 0
    has_messages: bool = False
    kept: int = 0
    ended: bool = False


@implementer(IDATAHandler, IStartable, IStoppable, IOffersServices, IOffersProtocol)
class Inbox:
    """Keeps messages, and shows them on a page.

    :param arguments: what the command line says.
    :param store: where messages are kept; by default an SQLite store as the arguments say.
    :ivar failures: what is to go wrong.
    """

    #: Options whose defaults are others with this handler: it takes lines of any length, as real mail has them.
    option_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"line_length_limit": 0})

    def __init__(self, arguments: Arguments | None = None, *, store: IMessageStore | None = None) -> None:
        self._arguments = arguments or Arguments()
        self._store: Any = store
        self._owns_store = store is None
        self._mailboxes = Mailboxes.read(self._arguments.mailboxes)
        self._proxy = _proxy(self._arguments.release)
        self._releaser: HostReleaser | None = None
        self._server: ServerInfo | None = None
        self._dialogs: dict[str, _Dialog] = {}
        self._purge_fails = False
        self.failures = Failures()

    def __repr__(self) -> str:
        return f"<Inbox {self._arguments.store or 'in a temporary file'}>"

    @classmethod
    def from_cli(cls, parser: ArgumentParser, *args: str) -> Inbox:
        """The handler for the command line.

        :param parser: says what is wrong with the arguments.
        :param args: options; see docs/reference/inbox.rst.
        """
        return cls(parse_arguments(parser, args))

    @property
    def store(self) -> Any:
        """The messages.

        :raises RuntimeError: before the start.
        """
        if self._store is None:
            raise RuntimeError("the inbox has not been started")
        return self._store

    # -- its life ------------------------------------------------------------------------------------------------------

    async def start(self, server: ServerInfo) -> None:
        self._server = server
        arguments = self._arguments
        if self._proxy is not None:
            from twisted_smtpd.inbox.releasing import HostReleaser

            self._releaser = HostReleaser(self._proxy, server.hostname)
        if self._store is None:
            try:
                self._store = SQLiteStore(
                    arguments.store,
                    max_messages=arguments.max_messages,
                    max_octets=arguments.max_size,
                    max_age=arguments.max_age,
                )
            except DatabaseError as error:
                raise HandlerStartError(str(error)) from None
            except OSError as error:
                raise HandlerStartError(f"--store: {error.filename or arguments.store}: {error.strerror}") from None

    def protocol(self, lmtp: bool, failures: Failures | None) -> type[SMTP]:
        if failures is not None:
            self.failures = failures
        return inbox_protocol(self, self.failures, lmtp)

    def services(self) -> Iterable[IService]:
        assert self._server is not None
        timers = [_timer(self._server.reactor, KEEP_DIALOGS, self._keep_dialogs)]
        if self._owns_store:
            timers.append(_timer(self._server.reactor, PURGE, self._purge))
        site = _SiteService(self._site(), self._listeners(), reactor=self._server.reactor)
        site.base = self._arguments.base
        return [site, *timers]

    def _listeners(self) -> Sequence[Listener]:
        assert self._server is not None
        return listeners_of(self._arguments.http, self._server.reactor)

    def _site(self) -> Any:
        # Imported here: its libraries are an extra.
        from twisted_smtpd.inbox.site import make_site

        assert self._server is not None
        arguments = self._arguments
        settings = SiteSettings(
            title=arguments.title,
            version=__version__,
            http_hosts=arguments.http_hosts,
            base=arguments.base,
            users=arguments.users,
            tokens={**dict.fromkeys(arguments.tokens), **self._mailboxes.tokens},
            smtp_addresses=tuple(peer_text(address) for address in self._server.addresses),
            release=self._releaser,
            failures=self.failures,
            sort=self._sorted,
            check_links=arguments.check_links,
            trust_programs=arguments.trust_programs,
        )
        return make_site(settings, self.store, self._server.reactor)

    def _sorted(self, message: NewMessage) -> NewMessage:
        """A message that came over HTTP, with its mailboxes."""
        return replace(message, mailboxes=self._mailboxes.names(message, _OVER_HTTP))

    def _purge(self) -> Deferred[None]:
        return maybeDeferred(self.store.purge).addCallbacks(self._purged, self._not_purged)

    def _purged(self, _: object) -> None:
        self._purge_fails = False

    def _not_purged(self, failure: Failure) -> None:
        if not self._purge_fails:
            # Once: with a full disk it fails each second.
            self._purge_fails = True
            _not_kept(failure, "old messages can't be removed")

    async def stop(self) -> None:
        if self._releaser is not None:
            await self._releaser.stop()
        if self._owns_store and self._store is not None:
            await self._store.close()

    # -- mail ----------------------------------------------------------------------------------------------------------

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:
        # What can't be kept can't be kept as refused either.
        server.was_kept = True
        try:
            await self._keep(NewMessage.of(session, envelope), server)
        except DatabaseError as error:
            log.error("a message could not be kept: {error}", error=str(error))
            return "451 4.3.0 The message can't be kept now, try again later"
        return "250 2.0.0 Kept"

    def message_refused(
        self, server: Any, session: Session, envelope: Envelope, recipients: tuple[Recipient, ...], refusal: str
    ) -> None:
        """Keep a message that a failure on demand has refused."""
        server.was_kept = True
        self.keep_refused(server, session, envelope, recipients, refusal)

    def keep_refused(
        self, server: Any, session: Session, envelope: Envelope, recipients: tuple[Recipient, ...], refusal: str
    ) -> None:
        if self._store is not None:
            message = replace(NewMessage.of(session, envelope, refusal=refusal), recipients=recipients)
            self._keep(message, server).addErrback(_not_kept, "a refused message could not be kept")

    def _keep(self, message: NewMessage, server: Any) -> Deferred[Any]:
        message = replace(message, mailboxes=self._mailboxes.names(message, server))
        keeping = maybeDeferred(self.store.add, message)
        dialog = self._dialogs.get(message.session.id)
        if dialog is not None:
            dialog.pending += 1
            keeping.addBoth(self._was_kept, dialog)
        return keeping

    def _was_kept(self, result: Any, dialog: _Dialog) -> Any:
        dialog.pending -= 1
        dialog.has_messages = True
        if dialog.ended and not dialog.pending:
            self._keep_dialog(dialog)
        return result

    # -- dialogs -------------------------------------------------------------------------------------------------------

    def session_began(self, session: Session, transcript: Transcript) -> None:
        self._dialogs[session.id] = _Dialog(session.id, transcript)

    def session_ended(self, session: Session) -> None:
        dialog = self._dialogs.pop(session.id, None)
        if dialog is not None:
            dialog.ended = True
            if not dialog.pending:
                self._keep_dialog(dialog)

    def _keep_dialogs(self) -> None:
        for dialog in list(self._dialogs.values()):
            self._keep_dialog(dialog)

    def _keep_dialog(self, dialog: _Dialog) -> None:
        """Keep a dialog, if it is one of a message, and has become longer."""
        length = dialog.transcript.length
        if dialog.has_messages and length > dialog.kept:
            dialog.kept = length
            keeping = maybeDeferred(self.store.keep_transcript, dialog.session, str(dialog.transcript))
            keeping.addErrback(_not_kept, "a dialog could not be kept")


def _not_kept(failure: Failure, what: str) -> None:
    if failure.check(DatabaseError, OSError) is None:
        log.failure(what, failure)
    else:
        log.error("{what}: {error}", what=what, error=str(failure.value))


def _timer(clock: Any, interval: float, call: Callable[[], Any]) -> TimerService:
    timer: Any = TimerService(interval, call)
    timer.clock = clock
    return timer  # type: ignore[no-any-return]


def _proxy(words: Sequence[str]) -> Proxy | None:
    if not words:
        return None
    # Imported here: few inboxes send mail on.
    from twisted_smtpd.handlers.proxy import Proxy

    return Proxy.from_cli(_ReleaseParser(prog="--release"), *words)


class _ReleaseParser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{self.prog}: {message}")


class _SiteService(ListeningService):
    """Listens for browsers; its parameters are those of :class:`ListeningService`."""

    base = ""

    def stopService(self) -> Any:
        """Stop listening, and end the answers that have no end of their own."""
        site: Any = self.factory
        site.inbox.api.close()
        return super().stopService()

    def _opened(self) -> None:
        for _, port in self.ports:
            self.log.info("The inbox is at {place}", place=f"{_url(port.getHost())}{self.base}/")


class _OverHTTP:
    """Stands for the connection of a message that did not come by SMTP; rules about listeners know it as ``http``."""

    name = b"http"

    @property
    def transport(self) -> _OverHTTP:
        return self

    def getHost(self) -> _OverHTTP:
        return self


_OVER_HTTP = _OverHTTP()


def _url(address: Any) -> str:
    if not hasattr(address, "port"):
        return f"unix:{os.fsdecode(address.name or b'')} "
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    return f"http://{peer_text((host, address.port))}"
