"""The options about TLS, proxies and trusted clients, checked and made ready once per server."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from twisted_smtpd.options.networks import Everyone, Networks
from twisted_smtpd.options.table import PROXY_TIMEOUT

if TYPE_CHECKING:
    from twisted.internet.interfaces import IOpenSSLServerConnectionCreator

__all__ = ["Security"]


log = Logger()


class Security:
    """What a server's options say about TLS, proxies and trusted clients.

    :param values: the value of each option.
    :param hooks: the names of the handler's hooks.
    :ivar starttls: makes the TLS connections of STARTTLS; ``None`` if STARTTLS is not offered.
    :ivar implicit: makes the TLS connections that begin with TLS; ``None`` if connections begin in clear.
    :ivar proxies: the addresses that must send a PROXY header; ``None`` if no header is read.
    :ivar proxy_timeout: seconds the PROXY header may take.
    :ivar unjudged_proxies: whether headers are taken from everyone, and no hook judges them.
    :ivar xclients: the addresses that may use XCLIENT and XFORWARD; ``None`` if these are not offered.
    :raises TypeError: for a value of the wrong type.
    :raises ValueError: for a value that can't be used, or values that don't go together.
    """

    def __init__(self, values: Mapping[str, Any], hooks: Collection[str]) -> None:
        self.starttls = _creator("tls_context", values)
        self.implicit = _creator("ssl_context", values)
        self.proxies = _networks("proxy_from", values)
        self.xclients = _networks("xclient_from", values)
        timeout: float | None = values["proxy_protocol_timeout"]
        self.proxy_timeout = PROXY_TIMEOUT if timeout is None else timeout
        self.unjudged_proxies = False
        if self.proxies is None and timeout is not None:
            # Any client can then claim any address, so the handler has to judge each header.
            self.unjudged_proxies = "PROXY" not in hooks
            if self.unjudged_proxies:
                log.warn("proxy_protocol_timeout without proxy_from needs handle_PROXY: every connection is dropped")
            self.proxies = Everyone()
        if values["require_starttls"] and not self.can_have_tls:
            raise ValueError("require_starttls needs a tls_context")

    @property
    def can_have_tls(self) -> bool:
        """Whether a session can have TLS: by STARTTLS, from the start, or in front of a proxy."""
        return bool(self.starttls or self.implicit or self.proxies)

    @property
    def deadlines(self) -> list[float]:
        """The limits in seconds that these options add to a connection's others."""
        return [] if self.proxies is None else [self.proxy_timeout]


def _creator(name: str, values: Mapping[str, Any]) -> IOpenSSLServerConnectionCreator | None:
    context = values[name]
    if context is None:
        return None
    # Here, since most servers have no TLS.
    from twisted_smtpd.tls import connection_creator

    try:
        return connection_creator(context)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error


def _networks(name: str, values: Mapping[str, Any]) -> Networks | None:
    networks = values[name]
    if networks is None or isinstance(networks, Networks):
        return networks
    try:
        return Networks(networks)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None
