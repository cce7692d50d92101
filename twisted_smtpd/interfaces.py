"""The hooks of a handler, an interface each.

A handler need not declare any of them: the server looks for the methods only.  Declaring them lets a type checker and
:func:`zope.interface.verify.verifyObject` find a misspelled name or a wrong signature before a client does.

Every hook may be a plain function, an ``async def``, or return a Deferred or an asyncio awaitable.  Unless said
otherwise it answers with a status: a ``str`` such as ``"250 OK"``, or a :class:`~twisted_smtpd.wire.replies.Reply`;
or it raises :class:`~twisted_smtpd.wire.replies.SMTPReplyError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted_smtpd.session import Envelope, Session

__all__ = [
    "IAUTHHandler",
    "ICONNECTHandler",
    "IDATAHandler",
    "IDATAStreamHandler",
    "IDISCONNECTHandler",
    "IEHLOHandler",
    "IEHLOResponsesHandler",
    "IExceptionHandler",
    "IHELOHandler",
    "IHandlerPlugin",
    "IMAILHandler",
    "INOOPHandler",
    "IPROXYHandler",
    "IQUITHandler",
    "IRCPTHandler",
    "IRSETHandler",
    "ISTARTTLSHandler",
    "IVRFYHandler",
]

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

    def handle_DISCONNECT(server: Any, session: Session, envelope: Envelope, reason: Any) -> Any:
        """The connection is gone; called once for each that ``handle_CONNECT`` was, or would have been, called for.

        :param reason: the exception that says why: :exc:`~twisted.internet.error.ConnectionDone` if it was closed.
        :returns: nothing that anybody looks at.
        """


class IPROXYHandler(Interface):
    """Decides about a PROXY header (``proxy_from``, ``proxy_protocol_timeout``)."""

    def handle_PROXY(server: Any, session: Session, envelope: Envelope, proxy_data: Any) -> Any:
        """A proxy has said whom it connects, ``session.peer``; there was no greeting yet, and no TLS.

        :param proxy_data: what the header said: a :class:`~twisted_smtpd.wire.proxy_protocol.ProxyData`.
        :returns: true to go on, false to hang up; a status with another code than 2yz is said before.
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


class IMAILHandler(Interface):
    """Decides about a sender (RFC 5321 section 4.1.1.2)."""

    def handle_MAIL(server: Any, session: Session, envelope: Envelope, address: str, mail_options: list[str]) -> Any:
        """A transaction begins; the hook must set ``envelope.mail_from`` and may extend ``envelope.mail_options``.

        :param address: the parsed reverse-path, ``""`` the null one.
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

    def handle_DATA_STREAM(server: Any, session: Session, envelope: Envelope, stream: Any) -> Any:
        """A message begins.

        :param stream: a :class:`~twisted_smtpd.stream.ContentStream`, an asynchronous iterator of chunks of bytes; the
            client is held back while nobody asks for the next.
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
    """A Twisted plugin (:mod:`twisted.plugin`) that gives a handler a name for ``twist smtpd -c``.

    :class:`~twisted_smtpd.handlers.registry.HandlerPlugin` is one.
    """

    name = Attribute("The name, a word (``str``).  It can't replace a built-in one.")
    summary = Attribute("What the handler does, and its arguments, in a line for ``--help-handlers`` (``str``).")
    handler = Attribute("The handler's class, or its dotted path (``str``), which is imported when it is used.")
