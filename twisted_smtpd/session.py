"""What is known about a connection (:class:`Session`) and about the message in progress (:class:`Envelope`)."""

from __future__ import annotations

import itertools
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

__all__ = ["Envelope", "Recipient", "Session"]

# Unlike a random number per session, a counter costs nothing; the prefix keeps two processes' logs apart.
_prefix = secrets.token_hex(4)
_counter = itertools.count(1)


class Session:
    """One client's connection, as the hooks see it.

    :ivar peer: the client's address: ``(host, port)`` for IPv4, ``(host, port, flow, scope)`` for IPv6, ``""`` for a
        Unix socket.  Behind a trusted proxy it is the address the proxy vouches for.
    :ivar proxy_peer: the proxy's own address, if there is one.
    :ivar proxy_data: what the PROXY header said, if there was one.
    :ivar xclient: what a trusted mail server said of the client with XCLIENT: attribute to value, ``None`` where it
        said that it doesn't know.
    :ivar xforward: the same with XFORWARD, for logs; it holds for one transaction.
    :ivar ssl: what is known of TLS (a :class:`~twisted_smtpd.tls.TLSInfo`), or ``None`` in clear.
    :ivar tls: whether TLS protects the client's connection; a trusted proxy may vouch for it.
    :ivar host_name: the name given with HELO, EHLO or LHLO; ``None`` before.
    :ivar extended_smtp: whether it was EHLO or LHLO.
    :ivar authenticated: whether the client has authenticated.
    :ivar auth_data: what the authenticator said of it.
    :ivar login_data: what an ``auth_*`` hook returned.
    :ivar loop: the running asyncio loop on the asyncio reactor, else ``None``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.peer: Any = None
        self.proxy_peer: Any = None
        self.proxy_data: Any = None
        self.xclient: dict[str, str | None] = {}
        self.xforward: dict[str, str | None] = {}
        self.ssl: Any = None
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
        """Take over what is known of the connection itself, not from what was said on it."""
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


class Envelope:
    """The transaction in progress.

    :ivar mail_from: the reverse-path's mailbox; ``""`` is the null reverse-path; ``None`` before MAIL.
    :ivar mail_options: its parameters as sent: the keyword in upper case, the value untouched.
    :ivar mail_parameters: the same, parsed: keyword to value, or to ``None`` where there is none.
    :ivar smtp_utf8: whether the client asked for SMTPUTF8 (RFC 6531).
    :ivar rcpt_tos: the accepted recipients' addresses.
    :ivar rcpt_options: their parameters, all in one list.
    :ivar recipients: a :class:`Recipient` for each accepted RCPT.
    :ivar submitter: the mailbox of whoever submitted the message, as an authenticated client says with ``AUTH=`` (RFC
        4954 section 5); ``""`` if it says ``<>`` or isn't authenticated; ``None`` if it says nothing.
    :ivar content: the message: bytes, or a ``str`` with ``decode_data``.
    :ivar original_content: the message, always bytes.
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

    def __repr__(self) -> str:
        return f"<Envelope from={self.mail_from!r} to={self.rcpt_tos!r}>"
