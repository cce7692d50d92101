"""What is known about a connection (:class:`Session`) and about the message in progress (:class:`Envelope`)."""

from __future__ import annotations

import itertools
import secrets
from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from twisted_smtpd.wire.parameters import (
    parse_deliver_by,
    parse_envid,
    parse_hold_for,
    parse_hold_until,
    parse_notify,
    parse_orcpt,
    parse_priority,
    parse_ret,
    parse_valid_since,
)

if TYPE_CHECKING:
    from twisted_smtpd.wire.parameter_values import DeliveryTime, OriginalRecipient, ValidSince
    from twisted_smtpd.wire.proxy_protocol import ProxyData

__all__ = ["NULL_SENDER", "Envelope", "Peer", "Recipient", "Session", "TLSDetails", "as_bytes", "within_brackets"]

#: An address as a socket has it: ``(host, port)`` for IPv4, ``(host, port, flow, scope)`` for IPv6, a path or ``""``
#: for a Unix socket.
Peer: TypeAlias = "tuple[str, int] | tuple[str, int, int, int] | str"

#: The null reverse-path in ``envelope.mail_from``: the message is a bounce, and must not be bounced.
NULL_SENDER = "<>"

# A counter is cheaper than a random number for each session; the prefix keeps the logs of two processes apart.
_prefix = secrets.token_hex(4)
_counter = itertools.count(1)


T = TypeVar("T")


def _typed(parameters: Mapping[str, str | None], keyword: str, read: Callable[[str | None], T]) -> T | None:
    """The value of a parameter, or ``None`` where the client has not given it."""
    return read(parameters[keyword]) if keyword in parameters else None


def within_brackets(mail_from: str | None) -> str:
    """What stands between the angle brackets of ``MAIL FROM:<>``.

    :param mail_from: an ``envelope.mail_from``.
    :returns: the mailbox; ``""`` for the null reverse-path, and before MAIL.
    """
    return "" if mail_from is None or mail_from == NULL_SENDER else mail_from


def as_bytes(content: str | bytes | None) -> bytes:
    """What :attr:`Envelope.content_bytes` is, for an envelope of another class.

    :param content: its content.
    """
    if isinstance(content, str):
        return content.encode("utf-8", "surrogateescape")
    return content or b""


class TLSDetails(Protocol):
    """What ``session.ssl`` tells about TLS; :class:`twisted_smtpd.tls.TLSInfo` documents each member.

    ``session.ssl["cipher"]`` and the like work as well, for handlers written for aiosmtpd.
    """

    @property
    def version(self) -> str: ...

    @property
    def cipher(self) -> str: ...

    @property
    def bits(self) -> int: ...

    @property
    def server_name(self) -> str | None: ...

    @property
    def alpn(self) -> str | None: ...

    @property
    def peer_certificate(self) -> bytes | None: ...

    @property
    def peer_verified(self) -> bool: ...

    def __getitem__(self, key: str, /) -> Any: ...

    def __contains__(self, key: object, /) -> bool: ...


class Session:
    """One client's connection, as the hooks see it.

    :ivar peer: the client's address: ``(host, port)`` for IPv4, ``(host, port, flow, scope)`` for IPv6, ``""`` for a
        Unix socket; ``None`` before there is a connection.  Behind a trusted proxy it is the address that the proxy
        gives.
    :ivar proxy_peer: the proxy's own address, if there is a proxy.
    :ivar proxy_data: what the PROXY header said, if there was a header.
    :ivar xclient: what a trusted mail server said about the client with XCLIENT: attribute to value, ``None`` where it
        said that it doesn't know.
    :ivar xforward: the same with XFORWARD, for logs; it is valid for one transaction.
    :ivar ssl: what is known about TLS (a :class:`~twisted_smtpd.tls.TLSInfo`), or ``None`` in clear.
    :ivar tls: whether TLS protects the client's connection; a trusted proxy may vouch for it.
    :ivar host_name: the name given with HELO, EHLO or LHLO; ``None`` before.
    :ivar extended_smtp: whether it was EHLO or LHLO.
    :ivar authenticated: whether the client has authenticated.
    :ivar auth_data: what the authenticator said about it.
    :ivar login_data: what an ``auth_*`` hook returned.
    :ivar loop: the running asyncio loop on the asyncio reactor, else ``None``.
    """

    def __init__(self, loop: AbstractEventLoop | None = None) -> None:
        self.peer: Peer | None = None
        self.proxy_peer: Peer | None = None
        self.proxy_data: ProxyData | None = None
        self.xclient: dict[str, str | None] = {}
        self.xforward: dict[str, str | None] = {}
        self.ssl: TLSDetails | None = None
        self.tls: bool = False
        self.host_name: str | None = None
        self.extended_smtp: bool = False
        self.authenticated: bool | None = None
        self.auth_data: Any = None
        self.login_data: Any = None
        self.loop = loop
        self._id: str | None = None

    @property
    def id(self) -> str:
        """A name for this session, unique on this host: it is in each log line, and in what a client may quote."""
        if self._id is None:
            self._id = f"{_prefix}-{next(_counter):x}"
        return self._id

    def inherit(self, before: Session) -> None:
        """Take over what is known about the connection itself, and nothing that the client said on it.

        :param before: the session that this one replaces.
        """
        self._id = before.id
        self.peer, self.proxy_peer, self.proxy_data = before.peer, before.proxy_peer, before.proxy_data
        self.ssl, self.tls = before.ssl, before.tls

    def __repr__(self) -> str:
        return f"<Session {self.id} peer={self.peer!r} host_name={self.host_name!r}>"


@dataclass
class Recipient:
    """One accepted recipient.

    :ivar address: the forward-path's mailbox.
    :ivar options: its parameters as sent: the keyword in upper case, the value untouched.
    :ivar parameters: the same, parsed: keyword to value, or to ``None`` where there is none.
    """

    address: str
    options: list[str] = field(default_factory=list)
    parameters: dict[str, str | None] = field(default_factory=dict)

    @property
    def notify(self) -> frozenset[str] | None:
        """Which notices the sender wants (RFC 3461): some of ``SUCCESS``, ``FAILURE``, ``DELAY``.

        It is empty for ``NOTIFY=NEVER``, and ``None`` where the client has not said.
        """
        return _typed(self.parameters, "NOTIFY", parse_notify)

    @property
    def original_recipient(self) -> OriginalRecipient | None:
        """The address that the sender used (``ORCPT``, RFC 3461), or ``None`` where the client has not said."""
        return _typed(self.parameters, "ORCPT", parse_orcpt)

    @property
    def valid_since(self) -> ValidSince | None:
        """Since when the mailbox must have had its owner (``RRVS``, RFC 7293), or ``None``."""
        return _typed(self.parameters, "RRVS", parse_valid_since)


class Envelope:
    """The transaction in progress.

    :ivar mail_from: the reverse-path's mailbox; ``"<>"`` is the null reverse-path; ``None`` before MAIL.
    :ivar mail_options: its parameters as sent: the keyword in upper case, the value untouched.
    :ivar mail_parameters: the same, parsed: keyword to value, or to ``None`` where there is none.
    :ivar smtp_utf8: whether the client asked for SMTPUTF8 (RFC 6531).
    :ivar rcpt_tos: the accepted recipients' addresses.
    :ivar rcpt_options: their parameters, all in one list.
    :ivar recipients: a :class:`Recipient` for each accepted RCPT.
    :ivar submitter: the mailbox that submitted the message, as an authenticated client says with ``AUTH=`` (RFC 4954
        section 5); ``""`` if the client says ``<>`` or isn't authenticated; ``None`` if it says nothing.
    :ivar content: the message: bytes, or a ``str`` with ``decode_data``; ``None`` before it has arrived.
    :ivar original_content: the message, always bytes.
    :ivar queue_id: the message's id in the queue that delivers it, which stays the same for each attempt; ``None``
        where there is no queue.
    :ivar queued_at: when the queue accepted it, in seconds since 1970; ``None`` where there is no queue.
    """

    def __init__(self) -> None:
        self.mail_from: str | None = None
        self.mail_options: list[str] = []
        self.mail_parameters: dict[str, str | None] = {}
        self.smtp_utf8: bool = False
        self.rcpt_tos: list[str] = []
        self.rcpt_options: list[str] = []
        self.recipients: list[Recipient] = []
        self.submitter: str | None = None
        self.content: str | bytes | None = None
        self.original_content: bytes | None = None
        self.queue_id: str | None = None
        self.queued_at: float | None = None

    @property
    def null_sender(self) -> bool:
        """Whether the reverse-path is the null one (``MAIL FROM:<>``): a bounce, to which no bounce may be sent."""
        return self.mail_from == NULL_SENDER or self.mail_from == ""

    @property
    def ret(self) -> str | None:
        """What a notice of failure is to have of the message (RFC 3461): ``"FULL"``, ``"HDRS"``; or ``None``."""
        return _typed(self.mail_parameters, "RET", parse_ret)

    @property
    def envelope_id(self) -> str | None:
        """The sender's name for this envelope (``ENVID``, RFC 3461), decoded; or ``None``."""
        return _typed(self.mail_parameters, "ENVID", parse_envid)

    @property
    def priority(self) -> int | None:
        """How urgent the message is (``MT-PRIORITY``, RFC 6710), from -9 to 9; or ``None``."""
        return _typed(self.mail_parameters, "MT-PRIORITY", parse_priority)

    @property
    def deliver_by(self) -> DeliveryTime | None:
        """How soon it has to be delivered (``BY``, RFC 2852), counted from MAIL; or ``None``."""
        return _typed(self.mail_parameters, "BY", parse_deliver_by)

    @property
    def hold_for(self) -> int | None:
        """The seconds for which it is to be held (``HOLDFOR``, RFC 4865), counted from MAIL; or ``None``."""
        return _typed(self.mail_parameters, "HOLDFOR", parse_hold_for)

    @property
    def hold_until(self) -> datetime | None:
        """The time until which it is to be held (``HOLDUNTIL``, RFC 4865); or ``None``."""
        return _typed(self.mail_parameters, "HOLDUNTIL", parse_hold_until)

    @property
    def require_tls(self) -> bool:
        """Whether it may be passed on over verified TLS only (``REQUIRETLS``, RFC 8689)."""
        return "REQUIRETLS" in self.mail_parameters

    @property
    def binary(self) -> bool:
        """Whether the message is ``BODY=BINARYMIME`` (RFC 3030): any octets, without lines."""
        return (self.mail_parameters.get("BODY") or "").upper() == "BINARYMIME"

    @property
    def content_bytes(self) -> bytes:
        """The message as bytes, whatever :attr:`content` is.

        A ``str`` (``decode_data``, or a hook has put one there) is encoded as UTF-8, and what the server could not
        decode becomes the bytes that it was.  It is ``b""`` while there is no content.
        """
        return as_bytes(self.content)

    def __repr__(self) -> str:
        return f"<Envelope from={self.mail_from!r} to={self.rcpt_tos!r}>"
