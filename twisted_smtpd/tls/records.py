"""A pyOpenSSL connection that knows, without calling OpenSSL, when there is nothing to read or to send."""

from __future__ import annotations

import contextlib
from typing import Any

from OpenSSL import SSL

from twisted_smtpd.tls.engine import shake_hands

__all__ = ["LARGEST_RECORD", "RecordConnection", "ServerConnection"]

# A TLS record (RFC 8446 section 5.1): type and version, the length in two octets, and that many octets.
_HEADER = 5
#: Octets that a record holds at most (RFC 8446 section 5.1).
LARGEST_RECORD = 2**14

# What there is to be read.
_NOTHING, _ONE_RECORD, _UNKNOWN = range(3)


class RecordConnection(SSL.Connection):
    """A server's end of a connection.

    After each arrival Twisted reads until pyOpenSSL raises ``WantReadError``, and then fetches the octets to be sent
    until it raises that again.  The two exceptions take as long as all the useful work.  Clients mostly send single
    records.  Once such a record has been read, there is nothing more to read, and nothing to send except by
    :meth:`send`: then this class raises the exception itself.

    In all other cases it asks OpenSSL.  (The base class is called by its name, since ``super()`` adds a tenth to the
    cost of a call.)

    :param context: the context.
    """

    def __init__(self, context: SSL.Context) -> None:
        super().__init__(context, None)
        self.set_accept_state()
        self._readable = _UNKNOWN
        self.has_output = True
        # If a record has arrived in part: its header, if that is incomplete, or else how many octets are missing.
        self._header = b""
        self._to_come = 0
        self.over: SSL.Error | None = None

    # For TLSTransport: everything at once, and no exception where there is nothing to do.

    def handshake(self, data: bytes) -> bool:
        """See :class:`twisted_smtpd.tls.engine.Engine`."""
        return shake_hands(self, data)

    def decrypt(self, data: bytes) -> bytes:
        """See :class:`twisted_smtpd.tls.engine.Engine`."""
        if data:
            self.bio_write(data)
        pieces: list[bytes] = []
        while self._readable != _NOTHING:
            try:
                pieces.append(self.recv(LARGEST_RECORD))
            except SSL.WantReadError:
                break
            except SSL.Error as error:
                self.over = error
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def encrypt(self, data: bytes) -> bytes:
        """See :class:`twisted_smtpd.tls.engine.Engine`."""
        sent = self.send(data)
        while sent < len(data):
            sent += self.send(data[sent:])
        return self.due()

    def due(self, least: int = 1) -> bytes:
        """See :class:`twisted_smtpd.tls.engine.Engine`."""
        if not self.has_output:
            return b""
        try:
            return self.bio_read(LARGEST_RECORD)
        except SSL.WantReadError:
            return b""

    # For Twisted's layer.

    def bio_write(self, buf: bytes | bytearray | memoryview) -> int:
        """Take in octets from the network.

        :returns: how many were taken.
        """
        complete = not self._to_come and not self._header
        one = complete and len(buf) >= _HEADER and len(buf) == _HEADER + (buf[3] << 8 | buf[4])
        if not one:
            self._find_records(bytes(buf))
        self._readable = _ONE_RECORD if one and self._readable == _NOTHING else _UNKNOWN
        return SSL.Connection.bio_write(self, buf)

    def _find_records(self, buf: bytes) -> None:
        """Note how much is missing of the last record in `buf`."""
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
        """Decrypt octets that have arrived.

        :param bufsiz: how many octets to return at most.
        :raises OpenSSL.SSL.WantReadError: if there are none.
        """
        if self._readable == _NOTHING:
            raise SSL.WantReadError
        readable, self._readable = self._readable, _UNKNOWN
        try:
            data = SSL.Connection.recv(self, bufsiz, flags)
        except SSL.WantReadError:
            # OpenSSL may have found something that it has to answer, such as a new key.
            self.has_output = True
            self._readable = _NOTHING
            raise
        except SSL.Error:
            # An alert, perhaps.
            self.has_output = True
            raise
        if readable == _ONE_RECORD and len(data) < bufsiz and not flags:
            self._readable = _NOTHING
        else:
            self.has_output = True
        return data

    def send(self, buf: bytes | bytearray | memoryview, flags: int = 0) -> int:
        """Encrypt octets.

        :returns: how many were taken.
        """
        self.has_output = True
        return SSL.Connection.send(self, buf, flags)

    def bio_read(self, bufsiz: int) -> bytes:
        """All octets that are to be sent.

        Twisted asks once for 32 KiB after each step: the rest of a longer flight (with the names of client authorities)
        would stay here while the client waits for it.

        :param bufsiz: how many octets to ask OpenSSL for at a time.
        :raises OpenSSL.SSL.WantReadError: if there are none.
        """
        if not self.has_output:
            raise SSL.WantReadError
        self.has_output = False
        data = SSL.Connection.bio_read(self, bufsiz)
        if len(data) < bufsiz:
            return data
        pieces = [data]
        with contextlib.suppress(SSL.WantReadError):
            while True:
                pieces.append(super().bio_read(bufsiz))
        return b"".join(pieces)

    # Twisted calls none of the next four today.  pyOpenSSL's own would leave this class with a wrong idea.

    def sendall(self, buf: Any, flags: int = 0) -> int:
        """Encrypt all octets; returns how many there were."""
        self._ask_openssl()
        return super().sendall(buf, flags)

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int | None = None) -> int:
        """Decrypt what has arrived into a buffer; returns how many octets that were."""
        self._ask_openssl()
        return super().recv_into(buffer, nbytes, flags)

    read = recv
    write = send

    def do_handshake(self) -> None:
        """Go on with the handshake.

        :raises OpenSSL.SSL.Error: if it has failed, now or before.  Twisted 24.7 looks at the last entry of the error
            queue, which OpenSSL leaves empty when the client sends more after a handshake that failed.
        """
        self._ask_openssl()
        try:
            super().do_handshake()
        except SSL.Error as error:
            if error.args == ([],):
                raise SSL.Error([("SSL routines", "", "the handshake has failed before")]) from error
            raise

    def shutdown(self) -> bool:
        """Send close_notify.

        :returns: whether the client's close_notify has arrived as well.
        """
        self._ask_openssl()
        return super().shutdown()

    def bio_shutdown(self) -> None:
        """Note that nothing more will arrive from the network."""
        self._ask_openssl()
        super().bio_shutdown()

    def _ask_openssl(self) -> None:
        self._readable = _UNKNOWN
        self.has_output = True


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
