"""The ESMTP extensions, one object each (RFC 5321 section 2.2): what EHLO says of it, and its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from twisted_smtpd.protocol.settings import ParameterCheck, SharedSettings
from twisted_smtpd.protocol.view import ClientView
from twisted_smtpd.wire.commands import parse_size
from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = [
    "BASIC_EXTENSIONS",
    "SMTPUTF8",
    "BinaryMIME",
    "Chunking",
    "EightBitMIME",
    "EnhancedStatusCodes",
    "Extension",
    "Pipelining",
    "RequireTLS",
    "Size",
    "StartTLS",
]


class Extension:
    """One extension of the protocol.

    :cvar name: its keyword, by which ``offer_extensions`` and ``disable_extensions`` know it.
    :cvar optional: whether ``disable_extensions`` may turn it off.
    :cvar requires: the names of extensions without which it is not offered.
    :cvar commands: the commands it adds, by verb: each is called with the connection and the argument, and answers with
        ``await connection.push(status)``.
    :cvar exclusive: sets of parameters of MAIL that a client may not use together.
    :cvar growth: by how many octets it lengthens which command line.
    :cvar mail_parameters: the parameters it adds to MAIL, each with its check.
    :cvar rcpt_parameters: the parameters it adds to RCPT.
    :cvar varies_with: the attributes of a connection on which its keyword depends, besides the settings.  If all
        extensions have this, an EHLO response is put together once for each set of their values.  ``None``: the keyword
        is asked for each time.
    """

    name: str = ""
    optional: bool = False
    requires: tuple[str, ...] = ()
    commands: Mapping[str, Callable[..., Any]] = MappingProxyType({})
    exclusive: tuple[frozenset[str], ...] = ()
    growth: Mapping[str, int] = MappingProxyType({})
    mail_parameters: Mapping[str, ParameterCheck] = MappingProxyType({})
    rcpt_parameters: Mapping[str, ParameterCheck] = MappingProxyType({})
    varies_with: tuple[str, ...] | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "keyword" in vars(cls) and "varies_with" not in vars(cls):
            # What the keyword of the base class depends on need not be true for this one.
            cls.varies_with = None

    def in_use(self, settings: SharedSettings) -> bool:
        """Whether a server with these settings has the extension at all."""
        return True

    def keyword(self, server: ClientView) -> str | None:
        """The line for the EHLO response, or ``None`` where the extension isn't available now."""
        raise NotImplementedError

    def refuse(self, server: ClientView, value: str | None) -> None:
        """Refuse one of its parameters where the extension is disabled."""
        raise SMTPReplyError(555, "5.5.4", f"{self.name} is not offered here")


class Size(Extension):
    """SIZE (RFC 1870)."""

    name = "SIZE"
    growth = MappingProxyType({"MAIL": 26})
    varies_with = ("data_size_limit",)

    def keyword(self, server: ClientView) -> str | None:
        # RFC 1870 section 3: SIZE 0 says that no fixed limit is in force.
        return f"SIZE {server.data_size_limit or 0}"

    @staticmethod
    def _check(server: ClientView, value: str | None) -> None:
        if value is None:
            raise SMTPReplyError(501, "5.5.4", "SIZE needs a number of octets: SIZE=1000")
        limit, size = server.data_size_limit, parse_size(value)
        if limit and size > limit:
            raise SMTPReplyError(552, "5.3.4", f"Message is larger than the {limit} octets accepted here")

    mail_parameters = MappingProxyType({"SIZE": _check})


class EightBitMIME(Extension):
    """8BITMIME (RFC 6152)."""

    name = "8BITMIME"
    growth = MappingProxyType({"MAIL": 17})
    varies_with = ()

    def keyword(self, server: ClientView) -> str | None:
        return "8BITMIME"

    @staticmethod
    def _check(server: ClientView, value: str | None) -> None:
        if value is None or value.upper() not in ("7BIT", "8BITMIME"):
            raise SMTPReplyError(501, "5.5.4", "BODY is one of 7BIT, 8BITMIME")

    mail_parameters = MappingProxyType({"BODY": _check})


class SMTPUTF8(Extension):
    """SMTPUTF8 (RFC 6531)."""

    name = "SMTPUTF8"
    # RFC 6531 section 3.2: 10 octets for the parameter; addresses may be longer than in ASCII, too.
    growth = MappingProxyType({"MAIL": 10})
    varies_with = ("enable_SMTPUTF8",)

    def keyword(self, server: ClientView) -> str | None:
        return "SMTPUTF8" if server.enable_SMTPUTF8 else None

    @staticmethod
    def _check(server: ClientView, value: str | None) -> None:
        if not server.enable_SMTPUTF8:
            raise SMTPReplyError(555, "5.5.4", "SMTPUTF8 is not offered here")
        if value is not None:
            raise SMTPReplyError(501, "5.5.4", "SMTPUTF8 takes no value")

    mail_parameters = MappingProxyType({"SMTPUTF8": _check})


class Pipelining(Extension):
    """PIPELINING (RFC 2920)."""

    name = "PIPELINING"
    varies_with = ()

    def keyword(self, server: ClientView) -> str | None:
        return "PIPELINING"


class EnhancedStatusCodes(Extension):
    """ENHANCEDSTATUSCODES (RFC 2034)."""

    name = "ENHANCEDSTATUSCODES"
    varies_with = ("enhanced_status_codes",)

    def keyword(self, server: ClientView) -> str | None:
        return "ENHANCEDSTATUSCODES" if server.enhanced_status_codes else None


class Chunking(Extension):
    """CHUNKING (RFC 3030): a message may come with BDAT, in chunks whose octets are counted."""

    name = "CHUNKING"
    optional = True
    varies_with = ()

    def keyword(self, server: ClientView) -> str | None:
        return "CHUNKING"


class BinaryMIME(Extension):
    """BINARYMIME (RFC 3030): a message may have any octets, and no lines."""

    name = "BINARYMIME"
    optional = True
    requires = ("CHUNKING",)
    varies_with = ()

    def keyword(self, server: ClientView) -> str | None:
        return "BINARYMIME"

    @staticmethod
    def _check(server: ClientView, value: str | None) -> None:
        if value is None or value.upper() not in ("7BIT", "8BITMIME", "BINARYMIME"):
            raise SMTPReplyError(501, "5.5.4", "BODY is one of 7BIT, 8BITMIME, BINARYMIME")

    mail_parameters = MappingProxyType({"BODY": _check})


class StartTLS(Extension):
    """STARTTLS (RFC 3207)."""

    name = "STARTTLS"
    varies_with = ("may_start_tls",)

    def in_use(self, settings: SharedSettings) -> bool:
        return settings.security.starttls is not None

    def keyword(self, server: ClientView) -> str | None:
        return "STARTTLS" if server.may_start_tls else None


class RequireTLS(Extension):
    """REQUIRETLS (RFC 8689): a message that may be passed on over verified TLS only."""

    name = "REQUIRETLS"
    optional = True
    growth = MappingProxyType({"MAIL": 11})
    varies_with = ("session.tls",)

    def keyword(self, server: ClientView) -> str | None:
        # RFC 8689 section 4: only where TLS is there already.
        return "REQUIRETLS" if server.session.tls else None

    @staticmethod
    def _check(server: ClientView, value: str | None) -> None:
        if not server.session.tls:
            raise SMTPReplyError(555, "5.5.4", "REQUIRETLS is offered over TLS only")
        if value is not None:
            raise SMTPReplyError(501, "5.5.4", "REQUIRETLS takes no value")

    mail_parameters = MappingProxyType({"REQUIRETLS": _check})


class XClient(Extension):
    """XCLIENT (Postfix): a trusted mail server says for whom it speaks."""

    name = "XCLIENT"
    attributes = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT")

    def in_use(self, settings: SharedSettings) -> bool:
        return settings.security.xclients is not None

    def keyword(self, server: ClientView) -> str | None:
        return " ".join(("XCLIENT", *self.attributes)) if server.may_vouch else None


class XForward(Extension):
    """XFORWARD (Postfix): the same, for logs only."""

    name = "XFORWARD"
    attributes = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE")

    def in_use(self, settings: SharedSettings) -> bool:
        return settings.security.xclients is not None

    def keyword(self, server: ClientView) -> str | None:
        return " ".join(("XFORWARD", *self.attributes)) if server.may_vouch else None


#: In the order in which EHLO lists them; the others come behind these (:mod:`twisted_smtpd.extensions`).
BASIC_EXTENSIONS: tuple[Extension, ...] = (
    Size(),
    EightBitMIME(),
    SMTPUTF8(),
    Pipelining(),
    EnhancedStatusCodes(),
    Chunking(),
    BinaryMIME(),
    StartTLS(),
    RequireTLS(),
    XClient(),
    XForward(),
)
