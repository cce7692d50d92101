"""A pyOpenSSL connection that often knows, without asking OpenSSL, that nothing is left to read or to send.

It overrides public methods of pyOpenSSL only, and all of them through which octets go, so it does not matter which of
them Twisted calls.
"""

from __future__ import annotations

import contextlib
from typing import Any

from OpenSSL import SSL

__all__ = ["RecordConnection"]

# A TLS record (RFC 8446 section 5.1): type and version, the length in two octets, and that many octets.
_HEADER = 5

# What is left to read: nothing, one record, or only OpenSSL knows.
_NOTHING, _ONE_RECORD, _UNKNOWN = range(3)


class RecordConnection(SSL.Connection):
    """A server's end of a connection.

    Each time something has arrived, Twisted reads until pyOpenSSL raises ``WantReadError``, then asks for octets to
    send until it raises that again.  The two exceptions take as long as all the rest.  But most of the time a client
    sends one record.  Once a record that arrived alone has been read, nothing is left to read, and nothing to send but
    what :meth:`send` is given.

    Everything that is not so simple is left to OpenSSL.  (The hot methods call the base class by its name, since
    ``super()`` takes a tenth of the time of the call.)

    :param context: the context.
    """

    def __init__(self, context: SSL.Context) -> None:
        super().__init__(context, None)
        self._readable = _UNKNOWN
        self._may_have_output = True
        # A record that has arrived in part: its header, if that is incomplete, and how many octets are still to come.
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
        """Note where the record ends whose beginning is the end of `buf`."""
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
            # OpenSSL may have found something else that it has to answer, such as a new key.
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
        """All octets that are to be sent to the network.

        Twisted asks only once for 32 KiB after each step.  The rest of a longer flight, with many names of client
        authorities, would stay here while the client waits for it.

        :param bufsiz: how many octets to take from OpenSSL at a time.
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

    def sendall(self, buf: Any, flags: int = 0) -> int:
        """Encrypt all octets; returns how many there were."""
        self._ask_openssl()
        return super().sendall(buf, flags)

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int | None = None) -> int:
        """Decrypt what has arrived into a buffer; returns how many octets that were."""
        self._ask_openssl()
        return super().recv_into(buffer, nbytes, flags)

    # pyOpenSSL has these as second names of its own methods.
    read = recv
    write = send

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
