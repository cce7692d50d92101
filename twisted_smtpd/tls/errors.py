"""Errors in the setup of TLS."""

from __future__ import annotations

from OpenSSL import SSL

__all__ = ["TLSConfigurationError", "openssl_reason"]


class TLSConfigurationError(ValueError):
    """TLS can't be set up.  The text is one line that says which file or argument is wrong, and why."""


def openssl_reason(error: SSL.Error) -> str:
    """OpenSSL's own words for an error.

    :param error: an error from pyOpenSSL or from :mod:`twisted_smtpd.tls.contexts`.
    :returns: the first reason in its error queue, or else the error's own text; it may be ``""``.
    """
    queue = error.args[0] if error.args else ()
    # Newer releases of pyOpenSSL raise an error with an empty queue if OpenSSL gave no reason.
    if isinstance(queue, (list, tuple)):
        return str(queue[0][-1]) if queue else ""
    return str(error.args[-1])
