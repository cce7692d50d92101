"""What goes wrong before any connection is made."""

from __future__ import annotations

from OpenSSL import SSL

__all__ = ["TLSConfigurationError", "openssl_reason"]


class TLSConfigurationError(ValueError):
    """TLS can't be set up as asked for.  The text is one line: which file or argument, and what is wrong with it."""


def openssl_reason(error: SSL.Error) -> str:
    """What OpenSSL says is wrong, in its own words.

    :param error: an error of pyOpenSSL's, or one of :mod:`twisted_smtpd.tls.contexts` in the same shape.
    :returns: the first reason of its error queue, else the error's own text; ``""`` if there is neither.
    """
    queue = error.args[0] if error.args else ()
    # Newer releases of pyOpenSSL raise one error with an empty queue where OpenSSL gave no reason.
    if isinstance(queue, (list, tuple)):
        return str(queue[0][-1]) if queue else ""
    return str(error.args[-1])
