"""The options about TLS and about whose word is taken, checked and made ready once per server."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from twisted_smtpd.options.networks import Everyone, Networks

if TYPE_CHECKING:
    from twisted.internet.interfaces import IOpenSSLServerConnectionCreator

__all__ = ["PROXY_TIMEOUT", "Security"]

# The PROXY specification (section 4) asks for 3 seconds at least, so that a lost segment can be sent again.
PROXY_TIMEOUT = 5.0


class Security:
    """What :class:`~twisted_smtpd.smtp.SMTP` was told of TLS, proxies and trusted clients.

    :param values: the value of each option.
    :param hooks: the names of the handler's hooks.
    :ivar starttls: makes the connections of STARTTLS; ``None`` if it is not offered.
    :ivar implicit: the same where TLS comes first.
    :ivar proxies: from whom a PROXY header is required; ``None`` for nobody.
    :ivar proxy_timeout: seconds for the PROXY header.
    :ivar xclients: who may use XCLIENT and XFORWARD; ``None`` for nobody.
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
        if self.proxies is None and timeout is not None:
            # Anybody may then say to be anybody, so somebody has to look.
            if "PROXY" not in hooks:
                raise ValueError("proxy_protocol_timeout without proxy_from needs a handler with handle_PROXY")
            self.proxies = Everyone()
        if values["require_starttls"] and not (self.starttls or self.implicit or self.proxies):
            raise ValueError("require_starttls needs a tls_context")

    @property
    def deadlines(self) -> list[float]:
        """The limits in seconds that are in force here."""
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
