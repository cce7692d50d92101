"""The ESMTP extensions; the public name of :mod:`twisted_smtpd.protocol.extensions`."""

from twisted_smtpd.protocol.extensions import (
    EXTENSIONS,
    SMTPUTF8,
    Auth,
    EightBitMIME,
    EnhancedStatusCodes,
    Extension,
    Pipelining,
    Size,
)

__all__ = ["EXTENSIONS", "SMTPUTF8", "Auth", "EightBitMIME", "EnhancedStatusCodes", "Extension", "Pipelining", "Size"]
