"""A server name (SNI) that is not ASCII: one line in the log, and nothing on stderr."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

from OpenSSL import SSL

from tests.support import tls_dialog
from tests.support.tls_dialog import SecureTestCase
from twisted_smtpd.runtime import output

NAME = b"aaaa.example"
ODD = b"\xff\xe9aa.example"


class OddNameTests(SecureTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.printed: list[Any] = []
        self.patch(sys, "unraisablehook", self.printed.append)

    def hello(self) -> bytes:
        """The first flight of a client that asks for such a name."""
        connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        connection.set_tlsext_host_name(NAME)
        connection.set_connect_state()
        with self.assertRaises(SSL.WantReadError):
            connection.do_handshake()
        flight: bytes = connection.bio_read(2**16)
        self.assertIn(NAME, flight)
        return flight.replace(NAME, ODD)

    def test_it_is_one_line_in_the_log(self) -> None:
        for transports in ((tls_dialog.TLSTransport,), output.PLAIN_TRANSPORTS):
            self.patch(output, "PLAIN_TRANSPORTS", transports)
            self.log.clear()
            peer = self.connect(tls_context=self.files())
            peer.send(b"EHLO client.example\r\nSTARTTLS\r\n")
            peer.deliver(self.hello())
            self.assertTrue(peer.transport.disconnecting)
            peer.lose()
            reason = "the server name that the client asks for is not ascii"
            self.assertEqual(len(self.logged(f"TLS handshake failed: {reason}")), 1)
            self.assertEqual(len(self.logged("handshake failed")), 1)
        self.assertEqual(self.printed, [])

    def test_other_errors_are_left_to_the_hook_before(self) -> None:
        self.files().engine()
        factory = self.factory(tls_context=self.files())
        self.join(factory).starttls()
        self.assertFalse(sys.unraisablehook is self.printed.append)
        name_error = UnicodeDecodeError("ascii", ODD, 0, 1, "ordinal not in range(128)")
        for error in (ValueError(), name_error):
            sys.unraisablehook(
                SimpleNamespace(exc_type=type(error), exc_value=error, exc_traceback=None, err_msg=None, object=ODD)  # type: ignore[arg-type]
            )
        self.assertEqual([unraisable.exc_type for unraisable in self.printed], [ValueError, UnicodeDecodeError])
