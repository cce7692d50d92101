"""A pyOpenSSL connection that knows when OpenSSL has nothing to say, without asking it."""

from __future__ import annotations

import contextlib
from typing import Any

from OpenSSL import SSL

__all__ = ["RecordConnection", "ServerConnection"]

# A TLS record (RFC 8446 section 5.1): type and version, the length in two octets, and that many octets.
_HEADER = 5

# What may be there to be read: nothing, one record, or nobody knows.
_NOTHING, _ONE_RECORD, _UNKNOWN = range(3)


class RecordConnection(SSL.Connection):
    """A server's end of a connection.

    Each time something has arrived, Twisted reads until pyOpenSSL raises ``WantReadError``, and then asks for what is
    to be sent until it raises that again.  The two exceptions take as long as all that is needed.  Most of what clients
    send are single records, and when one has been read that arrived alone, there is nothing to read any more, and
    nothing to send but what is sent by :meth:`send`.

    Whatever is not that simple is left to OpenSSL.  (The base class is called by its name: ``super()`` costs a tenth of
    what it calls.)

    :param context: the context.
    """

    def __init__(self, context: SSL.Context) -> None:
        super().__init__(context, None)
        self._readable = _UNKNOWN
        self._may_have_output = True
        # Of the record that has arrived in part: its header, if that isn't complete, and how many octets are to come.
        self._header = b""
        self._to_come = 0

    def bio_write(self, buf: Any) -> int:
        """Take in octets from the network; returns how many."""
        complete = not self._to_come and not self._header
        one = complete and len(buf) >= _HEADER and len(buf) == _HEADER + (buf[3] << 8 | buf[4])
        if not one:
            self._find_records(buf)
        self._readable = _ONE_RECORD if one and self._readable == _NOTHING else _UNKNOWN
        return SSL.Connection.bio_write(self, buf)

    def _find_records(self, buf: bytes) -> None:
        """Note where the record ends that `buf` ends in."""
        if self._header:
            buf, self._header = self._header + buf, b""
        at = self._to_come
        while at <= len(buf) - _HEADER:
            at += _HEADER + (buf[at + 3] << 8 | buf[at + 4])
        if at < len(buf):
            self._header, self._to_come = buf[at:], 0
        else:
            self._to_come = at - len(buf)

    def recv(self, bufsiz: int, flags: int | None = None) -> bytes:
        """Decrypt what has arrived.

        :param bufsiz: how many octets at most.
        :raises OpenSSL.SSL.WantReadError: if there is nothing.
        """
        if self._readable == _NOTHING:
            raise SSL.WantReadError
        readable, self._readable = self._readable, _UNKNOWN
        try:
            data = SSL.Connection.recv(self, bufsiz, flags)
        except SSL.WantReadError:
            # What it has found instead, such as a new key, may have to be answered.
            self._may_have_output = True
            self._readable = _NOTHING
            raise
        if readable == _ONE_RECORD and len(data) < bufsiz and not flags:
            self._readable = _NOTHING
        else:
            self._may_have_output = True
        return data

    def send(self, buf: Any, flags: int = 0) -> int:
        """Encrypt octets; returns how many were taken."""
        self._may_have_output = True
        return SSL.Connection.send(self, buf, flags)

    def bio_read(self, bufsiz: int) -> bytes:
        """All octets that wait for the network.

        Twisted asks once for 32 KiB after each step; what a longer flight (names of client authorities) left behind
        would stay here while the client waits for it.

        :param bufsiz: how many are asked for at a time.
        :raises OpenSSL.SSL.WantReadError: if there are none.
        """
        if not self._may_have_output:
            raise SSL.WantReadError
        self._may_have_output = False
        data = SSL.Connection.bio_read(self, bufsiz)
        if len(data) < bufsiz:
            return data
        pieces = [data]
        with contextlib.suppress(SSL.WantReadError):
            while True:
                pieces.append(super().bio_read(bufsiz))
        return b"".join(pieces)

    def do_handshake(self) -> None:
        """Go on with the handshake."""
        self._ask_openssl()
        super().do_handshake()

    def shutdown(self) -> bool:
        """Send close_notify; returns whether the client's has come as well."""
        self._ask_openssl()
        return super().shutdown()

    def bio_shutdown(self) -> None:
        """Nothing more will arrive from the network."""
        self._ask_openssl()
        super().bio_shutdown()

    def _ask_openssl(self) -> None:
        self._readable = _UNKNOWN
        self._may_have_output = True


class ServerConnection(RecordConnection):
    """A connection with one of a server's certificates.

    :param context: the context of the certificate that clients get at first.
    :param origin: what holds the server's contexts.  The connection keeps it alive: after a HelloRetryRequest OpenSSL
        calls the first context's SNI callback again, when pyOpenSSL holds only the context that was chosen.  If a
        reload had removed the first one, the call would go to freed memory.
    :ivar peer_untrusted: whether the client sent a certificate that can't be verified.
    """

    peer_untrusted = False

    def __init__(self, context: SSL.Context, origin: object) -> None:
        super().__init__(context)
        self._origin = origin
