"""TLS that fails where it is told to."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from twisted_smtpd.session import Envelope, Session
from twisted_smtpd.testing.failures import Failures

__all__ = ["FailingTLS"]


@implementer(IOpenSSLServerConnectionCreator)
class FailingTLS:
    """TLS with a certificate of the tests' authority, or another one; bad where something is to go wrong.

    :param good: makes the connections where nothing goes wrong; ``None`` for the tests' authority.
    :param names: the host names and addresses in the certificates of the tests' authority.
    :param failures: what is to go wrong.
    """

    def __init__(
        self, good: IOpenSSLServerConnectionCreator | None, names: tuple[str, ...], failures: Failures
    ) -> None:
        self._good, self._names, self._failures = good, names, failures

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        client: Any = tlsProtocol.wrappedProtocol
        # With implicit TLS there is neither a session nor an envelope yet.
        session, envelope = client.session or Session(), client.envelope or Envelope()
        failure = self._failures.due("TLS", str(session.peer[0]) if session.peer else "", session, envelope)
        if failure is None and self._good is not None:
            return self._good.serverConnectionForTLS(tlsProtocol)
        # Imported here: most tests have no TLS, and the library for certificates takes time to load.
        from twisted_smtpd.testing.certificates import authority
        from twisted_smtpd.tls import connection_creator

        context = authority().server_context(self._names, "" if failure is None else failure.action)
        return connection_creator(context).serverConnectionForTLS(tlsProtocol)
