"""What this package uses of pyOpenSSL that is not documented.

The connections of :mod:`twisted_smtpd.tls.records` need nothing of that kind: they override public methods only.
"""

from __future__ import annotations

from typing import Any

import OpenSSL
from OpenSSL import SSL

from twisted_smtpd.runtime.twisted_private import Names, Shortcut

__all__ = ["SESSION_REUSED", "session_reused"]

#: Which of the two Finished messages came first.  pyOpenSSL has no public way to ask.
SESSION_REUSED = Shortcut(
    "clients with TLS 1.2 can't use the channel binding tls-unique; other ways to sign in work",
    (
        Names("SSL", lambda _: SSL, {"_lib.SSL_session_reused": "tells whether a session was resumed"}),
        Names("SSL.Connection", lambda connection: connection, {"_ssl": "is OpenSSL's own connection"}),
    ),
    library=f"pyOpenSSL {OpenSSL.__version__}",
)


def session_reused(connection: SSL.Connection) -> bool | None:
    """Whether the handshake of a connection has resumed a session.

    :param connection: a connection after its handshake.
    :returns: ``None`` if pyOpenSSL can't be asked.
    """
    if not SESSION_REUSED.is_there(connection):
        return None
    private: Any = SSL
    return bool(private._lib.SSL_session_reused(connection._ssl))
