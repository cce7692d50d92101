"""The ESMTP extensions, one object each (RFC 5321 section 2.2)."""

from twisted_smtpd.auth.extension import Auth
from twisted_smtpd.protocol.envelope_extensions import (
    DSN,
    ON_REQUEST,
    RRVS,
    DeliverBy,
    Expansion,
    FutureRelease,
    Limits,
    MTPriority,
    RemoteQueue,
)
from twisted_smtpd.protocol.extensions import (
    BASIC_EXTENSIONS,
    SMTPUTF8,
    BinaryMIME,
    Chunking,
    EightBitMIME,
    EnhancedStatusCodes,
    Extension,
    Pipelining,
    RequireTLS,
    Size,
    StartTLS,
)

__all__ = [
    "DSN",
    "EXTENSIONS",
    "ON_REQUEST",
    "RRVS",
    "SMTPUTF8",
    "Auth",
    "BinaryMIME",
    "Chunking",
    "DeliverBy",
    "EightBitMIME",
    "EnhancedStatusCodes",
    "Expansion",
    "Extension",
    "FutureRelease",
    "Limits",
    "MTPriority",
    "Pipelining",
    "RemoteQueue",
    "RequireTLS",
    "Size",
    "StartTLS",
]

#: In the order in which EHLO lists them.
EXTENSIONS: tuple[Extension, ...] = (*BASIC_EXTENSIONS, DSN(), Limits(), Expansion(), RemoteQueue(), Auth())
