"""Base classes for handlers that want a message object."""

from __future__ import annotations

import asyncio
import email.message
import email.policy
import inspect
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from twisted_smtpd.handlers.decoding import tame_headers
from twisted_smtpd.handlers.parsing import parse
from twisted_smtpd.handlers.trace import modern_header, split_header, trace_header, trace_values
from twisted_smtpd.interfaces import HookServer, IDATAHandler
from twisted_smtpd.runtime.computing import compute, is_large
from twisted_smtpd.session import Envelope, Session
from twisted_smtpd.wire.replies import BadStatus, Reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from email.policy import Policy

__all__ = ["AsyncMessage", "Message", "status_of"]


def status_of(result: object) -> str | Reply:
    """The status a ``handle_message`` asks for by what it returned.

    :returns: the result if it is a :class:`~twisted_smtpd.wire.replies.Reply` or a ``str`` that is a status, and
        ``"250 OK"`` for anything else.
    """
    if isinstance(result, (str, Reply)):
        try:
            Reply.parse(result)
        except BadStatus:
            return "250 OK"
        return result
    return "250 OK"


@implementer(IDATAHandler)
class Message(ABC):
    """Makes a message object of each message and calls :meth:`handle_message`, which a subclass must have.

    A message above 64 KiB or 500 lines is parsed in the reactor's thread pool, one after the other, unless
    :meth:`prepare_message` is overridden.

    :param message_class: the class of the message objects; ``None`` is :class:`email.message.Message`, or what the
        policy says.
    :param policy: the :mod:`email.policy` of the message objects; ``None`` is :data:`email.policy.compat32`.  With
        :data:`email.policy.default` they are of class :class:`email.message.EmailMessage`.
    """

    def __init__(
        self, message_class: Callable[..., email.message.Message] | None = None, *, policy: Policy[Any] | None = None
    ) -> None:
        self.message_class = message_class
        self.policy = policy

    async def handle_DATA(self, server: HookServer, session: Session, envelope: Envelope) -> str | Reply:
        """Prepare the message and hand it over.

        :returns: the status that :meth:`handle_message` returned, else ``"250 OK"``.
        """
        result = self.handle_message(await self._prepared(session, envelope))
        # Without this, a handle_message written as `async def` by mistake would not run, and its message be lost.
        if inspect.isawaitable(result):
            result = await result
        return status_of(result)

    async def _prepared(self, session: Session, envelope: Envelope) -> email.message.Message:
        prepare: Any = self.prepare_message
        if is_large(envelope.content) and getattr(prepare, "__func__", None) is Message.prepare_message:
            # Parsing takes up to a second for some megabytes, in which no other client would be served.
            return await compute(prepare, session, envelope)  # type: ignore[no-any-return]
        return prepare(session, envelope)  # type: ignore[no-any-return]

    def prepare_message(self, session: Session, envelope: Envelope) -> email.message.Message:
        """Make a message object.

        The headers ``X-Peer``, ``X-MailFrom`` and ``X-RcptTo`` come first and say what the server knows; headers of
        these names that the client sent are left out.

        :raises TypeError: if the envelope has no content.
        :raises SMTPReplyError: if parts are in parts more than 100 deep (554).
        """
        content = envelope.content
        policy = email.policy.compat32 if self.policy is None else self.policy
        # Parsed with the trace headers, or places for them, at the top: the email package can only add headers at the
        # end.  A modern policy would decode a value that is put in, an address with "=?" in it, say.
        values = trace_values(session, envelope)
        modern = not isinstance(policy, email.policy.Compat32)
        places = trace_header(values if modern else dict.fromkeys(values, ""))
        if isinstance(content, bytes):
            header, body = split_header(content)
            message = parse(b"".join((places, modern_header(header), body)), self.message_class, policy)
        elif isinstance(content, str):
            text_header, text_body = split_header(content)
            text = places.decode("ascii") + modern_header(text_header) + text_body
            message = parse(text, self.message_class, policy)
        else:
            raise TypeError(f"envelope.content is bytes or str, not {type(content).__name__}")
        if modern:
            tame_headers(message)
        else:
            for name, value in values.items():
                message.replace_header(name, value)
        return message

    @abstractmethod
    def handle_message(self, message: email.message.Message) -> Any:
        """Do something with a message.

        :param message: what :meth:`prepare_message` made.
        :returns: ``None``, or a status that the client is to get: a ``str`` such as ``"550 5.7.1 not wanted"`` or a
            :class:`~twisted_smtpd.wire.replies.Reply`.
        """


class AsyncMessage(Message):
    """A :class:`Message` whose ``handle_message`` is an ``async def``, or returns a Deferred or an asyncio awaitable.

    :param message_class: see :class:`Message`.
    :param loop: kept as :attr:`loop`; nothing here needs it.
    :param policy: see :class:`Message`.
    """

    def __init__(
        self,
        message_class: Callable[..., email.message.Message] | None = None,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        policy: Policy[Any] | None = None,
    ) -> None:
        super().__init__(message_class, policy=policy)
        self._loop = loop

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that was given, else the running one, else ``None``: not every reactor has one."""
        if self._loop is not None:
            return self._loop
        try:
            return asyncio.get_running_loop()
        except RuntimeError:
            return None

    @loop.setter
    def loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop

    @abstractmethod
    def handle_message(self, message: email.message.Message) -> Awaitable[Any]:
        """Do something with a message; see :meth:`Message.handle_message`."""
