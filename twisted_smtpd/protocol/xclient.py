"""XCLIENT and XFORWARD: a mail server in front says for whom it speaks.

Postfix describes them in its ``XCLIENT_README`` and ``XFORWARD_README``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import Any, Protocol

from twisted_smtpd.protocol.extensions import XClient, XForward
from twisted_smtpd.protocol.greeting import greet
from twisted_smtpd.protocol.states import State
from twisted_smtpd.protocol.view import ClientView
from twisted_smtpd.session import Session
from twisted_smtpd.wire.commands import parse_helo_name, xtext_decode
from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = ["ClientIdentity", "VouchingClient", "trust_xclient", "trusts_clients"]

# How the sender says that it doesn't know, for good or for the moment.
UNKNOWN = frozenset({"[UNAVAILABLE]", "[TEMPUNAVAIL]"})
MAX_VALUE = 255

_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)


def _address(value: str) -> str:
    """An address as ``ADDR`` has it: ``192.0.2.1``, ``IPV6:2001:db8::1``."""
    text = value[5:] if value[:5].upper() == "IPV6:" else value
    if "%" in text:
        # A zone names an interface of the sender's host.
        raise ValueError
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


def _port(value: str) -> str:
    if _PORT.fullmatch(value) is None or int(value) > 0xFFFF:
        raise ValueError
    return str(int(value))


def _protocol(value: str) -> str:
    if value.upper() not in ("SMTP", "ESMTP"):
        raise ValueError
    return value.upper()


def _source(value: str) -> str:
    if value.upper() not in ("LOCAL", "REMOTE"):
        raise ValueError
    return value.upper()


_CHECKS = {
    "ADDR": _address,
    "DESTADDR": _address,
    "PORT": _port,
    "DESTPORT": _port,
    "PROTO": _protocol,
    "SOURCE": _source,
}


class VouchingClient(ClientView, Protocol):
    """A connection that may be a trusted mail server's."""

    def _client_identity(self) -> ClientIdentity:
        """Its XCLIENT and XFORWARD, made when they are first asked for."""


def trusts_clients(client: VouchingClient) -> bool:
    """Whether there are clients that may use XCLIENT."""
    return client._settings.security.xclients is not None


async def trust_xclient(client: VouchingClient) -> bool:
    """Find out whether this client is one of them; it is served in any case."""
    client._client_identity().find_out()
    return True


class ClientIdentity:
    """XCLIENT and XFORWARD, for trusted clients.

    :param client: the connection.
    :ivar may_vouch: whether the client is one of them.
    """

    __slots__ = ("_client", "may_vouch")

    def __init__(self, client: ClientView) -> None:
        self._client = client
        self.may_vouch = False

    def find_out(self) -> None:
        """Look whether the settings trust the client."""
        trusted = self._client._settings.security.xclients
        session = self._client.session
        peer = session.peer
        # A Unix socket that a proxy tells of is not one of this host.
        ours = bool(peer) or session.proxy_peer is None
        self.may_vouch = trusted is not None and ours and (peer[0] if peer else "") in trusted

    def _attributes(self, arg: str | None, known: Collection[str]) -> dict[str, str | None]:
        """The attributes of a command: decoded, checked, ``None`` where the sender doesn't know."""
        verb = self._client._verb
        if not self.may_vouch:
            raise SMTPReplyError(550, "5.7.0", f"You may not use {verb}")
        values: dict[str, str | None] = {}
        for word in (arg or "").split():
            name, _, value = word.partition("=")
            name = name.upper()
            if name not in known or name in values or not value:
                raise SMTPReplyError(501, "5.5.4", "Each attribute is one of those offered, once, with its value")
            values[name] = None if value.upper() in UNKNOWN else _read(name, value)
        if not values:
            raise SMTPReplyError(501, "5.5.4", f"Syntax: {verb} attribute=value...")
        return values

    async def xclient(self, arg: str | None) -> None:
        """Carry out XCLIENT: the session begins anew, as the session of the client that is named."""
        client = self._client
        values = self._attributes(arg, XClient.attributes)
        helo = values.get("HELO")
        if helo is not None:
            helo = values["HELO"] = parse_helo_name(helo)
        before = client.session
        # Postfix: what is known of the client stays, what was said in its session does not.
        kept = {name: value for name, value in before.xclient.items() if name not in ("HELO", "PROTO", "LOGIN")}
        session = client._renew_session()
        session.xclient = {**kept, **values}
        session.host_name = helo
        session.extended_smtp = values.get("PROTO") == "ESMTP"
        if values.get("LOGIN") is not None:
            session.authenticated, session.login_data = True, values["LOGIN"]
        refusal = self._introduce(session, values)
        if refusal is not None:
            client.hang_up(refusal.format(hostname=client.hostname))
            return
        client._set_barrier(State.UNWELCOME)
        await greet(client)

    def _introduce(self, session: Session, values: dict[str, str | None]) -> str | None:
        """Take over the address that is named; returns why that client can't be served, or ``None``."""
        if not values.keys() & {"ADDR", "PORT"}:
            return None
        peer = session.peer
        host = values["ADDR"] if "ADDR" in values else (peer[0] if peer else None)
        port = int(session.xclient.get("PORT") or 0)
        if not host:
            # The sender does not know the address.  The client is never the sender itself.
            return self._client._stands_for("")
        client: tuple[Any, ...] = (host, port, 0, 0) if ":" in host else (host, port)
        return self._client._stands_for(client)

    async def xforward(self, arg: str | None) -> None:
        """Carry out XFORWARD: note what is said for one transaction."""
        self._client.session.xforward.update(self._attributes(arg, XForward.attributes))
        await self._client.push("250 OK")


def _read(name: str, value: str) -> str:
    """Decode and check a value.

    :raises SMTPReplyError: 501 for one that is wrong: it may end up in headers and logs.
    """
    decoded = xtext_decode(value)
    if len(decoded) > MAX_VALUE:
        raise SMTPReplyError(501, "5.5.4", f"{name} is too long")
    check = _CHECKS.get(name)
    try:
        return decoded if check is None else check(decoded)
    except ValueError:
        raise SMTPReplyError(501, "5.5.4", f"{name} has a value that it can't have") from None
