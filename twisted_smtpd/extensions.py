"""The ESMTP extensions, one object each (RFC 5321 section 2.2)."""

from twisted_smtpd.auth.extension import Auth
from twisted_smtpd.protocol.extensions import (
    BASIC_EXTENSIONS,
    SMTPUTF8,
    EightBitMIME,
    EnhancedStatusCodes,
    Extension,
    Pipelining,
    Size,
)

__all__ = ["EXTENSIONS", "SMTPUTF8", "Auth", "EightBitMIME", "EnhancedStatusCodes", "Extension", "Pipelining", "Size"]

#: In the order in which EHLO lists them.
EXTENSIONS: tuple[Extension, ...] = (*BASIC_EXTENSIONS, Auth())
