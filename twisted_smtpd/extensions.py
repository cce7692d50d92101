"""The ESMTP extensions, one object each (RFC 5321 section 2.2): what EHLO says of it, and its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from twisted_smtpd.wire.commands import parse_size
from twisted_smtpd.wire.replies import SMTPReplyError

if TYPE_CHECKING:
    from twisted_smtpd.server import Server

__all__ = ["EXTENSIONS", "SMTPUTF8", "EightBitMIME", "EnhancedStatusCodes", "Extension", "Pipelining", "Size"]

#: Checks a parameter's value and notes it in ``server.envelope``; raises :exc:`SMTPReplyError`.
ParameterCheck = Callable[["Server", "str | None"], None]


class Extension:
    """One extension of the protocol.

    :cvar growth: by how many octets it lengthens which command line.
    :cvar mail_parameters: the parameters it adds to MAIL, each with its check.
    :cvar rcpt_parameters: the parameters it adds to RCPT.
    """

    growth: Mapping[str, int] = MappingProxyType({})
    mail_parameters: Mapping[str, ParameterCheck] = MappingProxyType({})
    rcpt_parameters: Mapping[str, ParameterCheck] = MappingProxyType({})

    def keyword(self, server: Server) -> str | None:
        """The line for the EHLO response, or ``None`` where the extension isn't available now."""
        raise NotImplementedError


class Size(Extension):
    """SIZE (RFC 1870)."""

    growth = MappingProxyType({"MAIL": 26})

    def keyword(self, server: Server) -> str | None:
        # RFC 1870 section 3: SIZE 0 says that no fixed limit is in force.
        return f"SIZE {server.data_size_limit or 0}"

    @staticmethod
    def _check(server: Server, value: str | None) -> None:
        if value is None:
            raise SMTPReplyError(501, "5.5.4", "SIZE needs a number of octets: SIZE=1000")
        limit = server.data_size_limit
        if limit and parse_size(value) > limit:
            raise SMTPReplyError(552, "5.3.4", f"Message is larger than the {limit} octets accepted here")

    mail_parameters = MappingProxyType({"SIZE": _check})


class EightBitMIME(Extension):
    """8BITMIME (RFC 6152)."""

    growth = MappingProxyType({"MAIL": 17})

    def keyword(self, server: Server) -> str | None:
        return "8BITMIME"

    @staticmethod
    def _check(server: Server, value: str | None) -> None:
        if value is None or value.upper() not in ("7BIT", "8BITMIME"):
            raise SMTPReplyError(501, "5.5.4", "BODY is one of 7BIT, 8BITMIME")

    mail_parameters = MappingProxyType({"BODY": _check})


class SMTPUTF8(Extension):
    """SMTPUTF8 (RFC 6531)."""

    # RFC 6531 section 3.2: 10 octets for the parameter; addresses may be longer than in ASCII, too.
    growth = MappingProxyType({"MAIL": 10})

    def keyword(self, server: Server) -> str | None:
        return "SMTPUTF8" if server.enable_SMTPUTF8 else None

    @staticmethod
    def _check(server: Server, value: str | None) -> None:
        if not server.enable_SMTPUTF8:
            raise SMTPReplyError(555, "5.5.4", "SMTPUTF8 is not offered here")
        if value is not None:
            raise SMTPReplyError(501, "5.5.4", "SMTPUTF8 takes no value")

    mail_parameters = MappingProxyType({"SMTPUTF8": _check})


class Pipelining(Extension):
    """PIPELINING (RFC 2920)."""

    def keyword(self, server: Server) -> str | None:
        return "PIPELINING"


class EnhancedStatusCodes(Extension):
    """ENHANCEDSTATUSCODES (RFC 2034)."""

    def keyword(self, server: Server) -> str | None:
        return "ENHANCEDSTATUSCODES" if server.enhanced_status_codes else None


#: In the order in which EHLO lists them.
EXTENSIONS: tuple[Extension, ...] = (Size(), EightBitMIME(), SMTPUTF8(), Pipelining(), EnhancedStatusCodes())
