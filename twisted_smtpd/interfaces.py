"""The methods of a handler: an interface for each hook, and for its start and stop.

A handler need not declare any of them, since the server looks for the methods.  Declaring them lets a type checker and
:func:`zope.interface.verify.verifyObject` find a misspelled name or a wrong signature before a client does.

Each method may be a plain function, an ``async def``, or return a Deferred or (where an asyncio loop runs) an asyncio
awaitable.  If its description says nothing else, a hook answers with a status: a ``str`` such as ``"250 OK"``, or a
:class:`~twisted_smtpd.wire.replies.Reply`; or it raises :class:`~twisted_smtpd.wire.replies.SMTPReplyError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from zope.interface import Attribute, Interface

from twisted_smtpd.session import Envelope, Session
from twisted_smtpd.stream import ContentStream
from twisted_smtpd.wire.replies import Reply

if TYPE_CHECKING:
    from twisted_smtpd.wire.proxy_protocol import ProxyData

__all__ = [
    "IAUTHHandler",
    "ICONNECTHandler",
    "IDATAHandler",
    "IDATAStreamHandler",
    "IDISCONNECTHandler",
    "IEHLOHandler",
    "IEHLOResponsesHandler",
    "IETRNHandler",
    "IEXPNHandler",
    "IExceptionHandler",
    "IHELOHandler",
    "IHandlerPlugin",
    "IMAILHandler",
    "IMeasured",
    "INOOPHandler",
    "IOffersProtocol",
    "IOffersServices",
    "IPROXYHandler",
    "IPreceded",
    "IQUITHandler",
    "IRCPTHandler",
    "IRSETHandler",
    "IReloadable",
    "ISTARTTLSHandler",
    "IStartable",
    "IStoppable",
    "IVRFYHandler",
]


class HookServer(Protocol):
    """What the built-in handlers use of their hooks' ``server``, an :class:`~twisted_smtpd.smtp.SMTP`.

    :ivar hostname: the server's name.
    :ivar ident: the software's name in the greeting.
    :ivar replies_to_each_recipient: whether there is a reply for each recipient after a message, as in LMTP.
    """

    hostname: str
    ident: str
    replies_to_each_recipient: bool

    async def push(self, status: str | Reply) -> None:
        """Send a reply, or part of one."""


class IStartable(Interface):
    """Is started before its server takes connections.

    A handler need not declare this.  A method ``start`` is called if it can be called with exactly one argument, and
    not with none; so the ``start()`` of a :class:`threading.Thread` or of a controller that is its own handler is left
    alone.  The ``start`` of a handler that declares this interface is always called.
    """

    def start(server: Any) -> Any:
        """Open what the handler needs: files, database connections, and so on.

        No client is served before this has ended.  If it raises an error, the server does not start:
        ``twisted-smtpd`` ends with status 1 and one line on stderr, and a controller's ``start()`` raises the error.

        :param server: a :class:`~twisted_smtpd.handlers.ServerInfo`: what is known about the server.
        :returns: nothing that is looked at.
        :raises HandlerStartError: (or :exc:`OSError`, or :exc:`ValueError`) if the handler can't work, for a reason
            that is understood without a traceback.
        """


class IStoppable(Interface):
    """Is stopped after its server has ended.

    A method ``stop`` is called if the handler has a ``start(server)`` as well (see :class:`IStartable`), or declares
    this interface.  Without either, ``stop`` may be meant for something else.
    """

    def stop() -> Any:
        """Close what the handler holds.

        It is called once for each start that succeeded, when the last connection is closed and no hook runs.  It may
        take 10 seconds.

        :returns: nothing that is looked at.
        """


class IOffersServices(Interface):
    """Has services of its own, which ``twisted-smtpd`` runs beside the server.

    A method ``services`` is called if it needs no arguments.  Only the command line calls it, controllers don't.
    """

    def services() -> Any:
        """Give the services.

        They are started after the handler's ``start`` and before the server takes connections, and stopped after the
        last connection is closed and before the handler's ``stop``.  With ``--workers`` each worker runs its own.

        :returns: an iterable of :class:`twisted.application.service.IService` providers.
        """


class IOffersProtocol(Interface):
    """Has a class of its own for connections.  Only the command line asks for it; of a chain, the first is used.

    A handler has to declare this: a method ``protocol`` may be meant for something else.
    """

    def protocol(lmtp: bool, failures: Any) -> Any:
        """Give the class.

        :param lmtp: whether the connections speak LMTP.
        :param failures: what is to go wrong on purpose (:class:`twisted_smtpd.testing.Failures`), or ``None``.
        :returns: a subclass of :class:`twisted_smtpd.smtp.SMTP` or :class:`twisted_smtpd.lmtp.LMTP`.
        """


class IMeasured(Interface):
    """Has metrics of its own, for the page of ``--metrics``.

    A handler has to declare this: a method ``metrics`` may be meant for something else.
    """

    def metrics() -> Any:
        """Give the metrics as they are now.  It is called each time the page is read, and must not wait.

        :returns: an iterable of :class:`twisted_smtpd.metrics.Metric`.
        """


class IReloadable(Interface):
    """Reads its files again at a SIGHUP.

    A handler has to declare this: a method ``reload`` may be meant for something else.  Only the command line calls it.
    """

    def reload() -> Any:
        """Read the files again.  What can't be read is logged, and what was read before stays in use.

        :returns: nothing that is looked at.
        """


class IPreceded(Interface):
    """Has to know which handlers of its chain are asked before it.

    A handler has to declare this.
    """

    def preceded_by(handlers: Any) -> Any:
        """Be told, when the chain is made.

        :param handlers: the handlers before this one, in order.
        :returns: nothing that is looked at.
        """


# The server is Any: a handler that annotates it with a subclass of SMTP is right as well.


class ICONNECTHandler(Interface):
    """Decides about a connection before the greeting."""

    def handle_CONNECT(server: Any, session: Session, envelope: Envelope) -> Any:
        """A client has connected.

        :returns: a status: 220 is the greeting, any other 2yz code stands for the usual one.  With another code the
            client is refused: it hears the status and may say QUIT, or is hung up on after 421.  A hook that fails or
            takes too long refuses as well, with 451.
        """


class IDISCONNECTHandler(Interface):
    """Hears that a connection is over."""

    def handle_DISCONNECT(server: Any, session: Session, envelope: Envelope, reason: Exception) -> Any:
        """The connection is gone.

        It is called once for each connection for which ``handle_CONNECT`` was called, or would have been if the handler
        had it.

        :param reason: the exception that says why: :exc:`~twisted.internet.error.ConnectionDone` if it was closed.
        :returns: nothing that is looked at.
        """


class IPROXYHandler(Interface):
    """Decides about a PROXY header (``proxy_from``, ``proxy_protocol_timeout``)."""

    def handle_PROXY(server: Any, session: Session, envelope: Envelope, proxy_data: ProxyData) -> Any:
        """A proxy has named the client, ``session.peer``; there was no greeting yet, and no TLS.

        :param proxy_data: what the header said.
        :returns: true to go on, false to close the connection; or a status: with another code than 2yz it is sent, and
            then the connection is closed.
        """


class IHELOHandler(Interface):
    """Answers HELO (RFC 5321 section 4.1.1.1)."""

    def handle_HELO(server: Any, session: Session, envelope: Envelope, hostname: str) -> Any:
        """The client says who it is; the hook must set ``session.host_name``.

        :param hostname: the name it gives.
        :returns: a status, ``f"250 {server.hostname}"`` if it is welcome.
        """


class IEHLOHandler(Interface):
    """Answers EHLO (RFC 5321 section 4.1.1.1), in its form with four arguments."""

    def handle_EHLO(server: Any, session: Session, envelope: Envelope, hostname: str) -> Any:
        """The client says who it is; the hook must set ``session.host_name``.

        It may announce more with ``await server.push("250-KEYWORD")``.

        :param hostname: the name it gives.
        :returns: the last line's status, ``"250 HELP"`` if it is welcome.
        """


class IEHLOResponsesHandler(Interface):
    """Answers EHLO (RFC 5321 section 4.1.1.1), in its form with five arguments."""

    def handle_EHLO(server: Any, session: Session, envelope: Envelope, hostname: str, responses: list[str]) -> Any:
        """The client says who it is; the hook must set ``session.host_name``.

        :param hostname: the name it gives.
        :param responses: the lines the server is about to answer, ``250-`` or ``250`` included.
        :returns: the list of lines to answer.
        """


class INOOPHandler(Interface):
    """Answers NOOP (RFC 5321 section 4.1.1.9)."""

    def handle_NOOP(server: Any, session: Session, envelope: Envelope, arg: str | None) -> Any:
        """The client wants to hear something.

        :param arg: what follows the verb, if anything does.
        :returns: a status.
        """


class IQUITHandler(Interface):
    """Answers QUIT (RFC 5321 section 4.1.1.10)."""

    def handle_QUIT(server: Any, session: Session, envelope: Envelope) -> Any:
        """The client leaves.

        :returns: a status, ``"221 Bye"``.
        """


class IVRFYHandler(Interface):
    """Answers VRFY (RFC 5321 section 4.1.1.6)."""

    def handle_VRFY(server: Any, session: Session, envelope: Envelope, address: str) -> Any:
        """The client asks whether there is such a mailbox.

        :param address: the parsed address.
        :returns: a status.
        """


class IEXPNHandler(Interface):
    """Answers EXPN (RFC 5321 section 4.1.1.7); where a handler has this, EHLO says so."""

    def handle_EXPN(server: Any, session: Session, envelope: Envelope, name: str) -> Any:
        """The client asks who is on a mailing list.

        :param name: the list's name, as sent.
        :returns: a status; one of several lines has a member in each (section 3.5.2).
        """


class IETRNHandler(Interface):
    """Answers ETRN (RFC 1985); where a handler has this, EHLO offers it."""

    def handle_ETRN(server: Any, session: Session, envelope: Envelope, queue: str) -> Any:
        """The client asks that the mail which waits for it be sent.

        :param queue: a host's name, ``@`` and a domain, or ``#`` and the name of a queue, as sent.
        :returns: a status: 250 to 253, 458 or 459 (section 5.3).
        """


class IMAILHandler(Interface):
    """Decides about a sender (RFC 5321 section 4.1.1.2)."""

    def handle_MAIL(server: Any, session: Session, envelope: Envelope, address: str, mail_options: list[str]) -> Any:
        """A transaction begins; the hook must set ``envelope.mail_from`` and may extend ``envelope.mail_options``.

        :param address: the parsed reverse-path, ``"<>"`` the null one.
        :param mail_options: the parameters as sent.
        :returns: a status.
        """


class IRCPTHandler(Interface):
    """Decides about a recipient (RFC 5321 section 4.1.1.3)."""

    def handle_RCPT(server: Any, session: Session, envelope: Envelope, address: str, rcpt_options: list[str]) -> Any:
        """Another recipient; the hook should append it to ``envelope.rcpt_tos``, may extend ``envelope.rcpt_options``.

        :param address: the parsed forward-path.
        :param rcpt_options: the parameters as sent.
        :returns: a status.
        """


class IRSETHandler(Interface):
    """Answers RSET (RFC 5321 section 4.1.1.5)."""

    def handle_RSET(server: Any, session: Session, envelope: Envelope) -> Any:
        """The client drops the transaction.

        :returns: a status.
        """


class IDATAHandler(Interface):
    """Takes a message (RFC 5321 section 4.1.1.4)."""

    def handle_DATA(server: Any, session: Session, envelope: Envelope) -> Any:
        """The whole message has arrived: ``envelope.content``, and always as bytes ``envelope.original_content``.

        A 2yz status takes over the responsibility for the message.

        :returns: a status, or one for each accepted recipient: a list of them, or an asynchronous iterator.
        """


class IDATAStreamHandler(Interface):
    """Takes a message while it arrives (RFC 5321 section 4.1.1.4, RFC 3030)."""

    def handle_DATA_STREAM(server: Any, session: Session, envelope: Envelope, stream: ContentStream) -> Any:
        """A message begins.

        :param stream: an asynchronous iterator of chunks of bytes; the client has to wait while the hook does not ask
            for the next.  ``stream.end`` says why it has ended.
        :returns: what ``handle_DATA`` may return.
        """


class IAUTHHandler(Interface):
    """Does AUTH itself (RFC 4954); usually an ``auth_MECHANISM`` method or an authenticator is enough."""

    def handle_AUTH(server: Any, session: Session, envelope: Envelope, args: list[str]) -> Any:
        """The client wants to authenticate.

        :param args: the words after the verb.
        :returns: a status.
        """


class ISTARTTLSHandler(Interface):
    """Decides whether the TLS of STARTTLS is good enough (RFC 3207 section 4.1).

    With TLS from the start it is not asked; ``handle_CONNECT`` is, with ``session.ssl`` there already.
    """

    def handle_STARTTLS(server: Any, session: Session, envelope: Envelope) -> Any:
        """The handshake is done: ``session.ssl`` says what came of it, and what the client said before is forgotten.

        :returns: true if it is good enough; after false, every command but QUIT is answered with 554.
        """


class IExceptionHandler(Interface):
    """Chooses the reply to an error."""

    def handle_exception(error: Exception) -> Any:
        """A command or a hook has failed.

        :param error: what it raised.
        :returns: a status; with ``None``, or if it raises, the client gets a 500.
        """


class IHandlerPlugin(Interface):
    """A Twisted plugin (:mod:`twisted.plugin`) that gives a handler a name for ``twisted-smtpd -c``.

    :class:`~twisted_smtpd.handlers.registry.HandlerPlugin` is one.
    """

    name = Attribute("The name, a word (``str``).  It can't replace a built-in one.")
    summary = Attribute("What the handler does, and its arguments, in a line for ``--help-handlers`` (``str``).")
    handler = Attribute("The handler's class, or its dotted path (``str``), which is imported when it is used.")
