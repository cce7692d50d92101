"""The examples about authentication do what they say."""

from __future__ import annotations

import hashlib
import runpy
from base64 import b64encode
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.internet.task import Clock

from tests.support.fakes import Client, codes
from tests.support.tls_dialog import SecureTestCase
from tests.support.tls_helpers import Client as TLSSettings

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "auth_tokens.py"
PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "authentication.rst"
MAIL = b"MAIL FROM:<%b@example.com>\r\n"


@skipUnless(EXAMPLE.is_file(), "the examples are not installed")
class TokenTests(SecureTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.example: dict[str, Any] = runpy.run_path(str(EXAMPLE), run_name="example")

    def client(self, said: bytes) -> tuple[list[int], Client]:
        factory = self.example["make_factory"](auth_require_tls=False, hostname="mx.example", clock=Clock())
        client = Client(factory.buildProtocol(None), "127.0.0.1")
        client.read()
        client.send(b"EHLO client.example\r\n")
        return codes(client.send(said)), client

    def test_tokens_as_passwords_and_as_bearer_tokens(self) -> None:
        for said, expected in (
            (b"AUTH PLAIN " + b64encode(b"\0anne\0open sesame"), [235]),
            (b"AUTH PLAIN " + b64encode(b"\0anne\0close sesame"), [535]),
            (b"AUTH PLAIN " + b64encode(b"\0bart\0open sesame"), [535]),
            (b"AUTH OAUTHBEARER " + b64encode(b"n,a=anne,\x01auth=Bearer nonsense\x01\x01"), [334]),
        ):
            self.assertEqual(self.client(said + b"\r\n")[0], expected)

    def test_users_write_as_themselves(self) -> None:
        sign_in = b"AUTH PLAIN " + b64encode(b"\0anne\0open sesame") + b"\r\n"
        self.assertEqual(self.client(MAIL % b"anne")[0], [530])
        self.assertEqual(self.client(sign_in + MAIL % b"bart" + MAIL % b"anne")[0], [235, 550, 250])

    def test_certificates(self) -> None:
        files = self.files(client_ca=self.write("ca.pem", self.authority.pem))
        factory = self.example["make_factory"](tls_context=files, hostname="mx.example", clock=self.clock)
        self.example["MACHINES"][hashlib.sha256(self.known.der).hexdigest()] = b"press"
        for identity, code in ((self.known, 235), (self.two, 535)):
            peer = self.join(factory)
            peer.starttls(TLSSettings(identity=identity))
            peer.send(b"EHLO client.example\r\n")
            self.assertEqual(codes(peer.send(b"AUTH EXTERNAL =\r\n")), [code])


@skipUnless(PAGE.is_file(), "the pages are not installed")
class PageTests(SecureTestCase):
    """The page's Python runs."""

    def test_each_block_of_code_is_python(self) -> None:
        blocks = PAGE.read_text().split(".. code-block:: python\n\n")[1:]
        self.assertTrue(blocks)
        namespace: dict[str, Any] = {}
        for block in blocks:
            lines = block.split("\n")
            end = next((i for i, text in enumerate(lines) if text and not text.startswith("    ")), len(lines))
            exec("\n".join(text[4:] for text in lines[:end]), namespace)
        factory = namespace["factory"]
        client = Client(factory.buildProtocol(None), "127.0.0.1")
        self.addCleanup(client.lose)
        client.read()
        client.protocol.session.tls = True
        client.send(b"EHLO client.example\r\n")
        said = client.send(b"AUTH PLAIN %b\r\n" % b64encode(b"\0anne\0secret"))
        self.assertEqual(codes(said), [235])
