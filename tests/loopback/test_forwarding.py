"""Proxy and Webhook over real sockets, to real servers."""

from __future__ import annotations

import json
import os
import shutil
import smtplib
import ssl
import subprocess
from typing import Any
from unittest import skipUnless

from twisted.internet import endpoints, reactor
from twisted.internet import ssl as tls
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.support.fakes import Recorder
from tests.support.tls_helpers import Issued, issue
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.handlers import Proxy, Webhook
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.tls import connection_creator

CONTENT = b"Subject: hi\r\n\r\nhello\r\n.dot\r\n"
SINK = shutil.which("smtp-sink") or shutil.which("smtp-sink", path="/usr/sbin")
LIMIT = 30  # seconds, for a test that hangs


EHLO = b"250-next.example\r\n250-REQUIRETLS\r\n250 STARTTLS"


class StartTLSHost(LineReceiver):
    """Takes one message, inside TLS only."""

    def connectionMade(self) -> None:
        self.encrypted = self.in_content = False
        self.sendLine(b"220 next.example")

    def lineReceived(self, line: bytes) -> None:
        self.factory.lines.append((self.encrypted, line))
        if self.in_content:
            if line == b".":
                self.in_content = False
                self.sendLine(b"250 2.0.0 stored")
            return
        verb = line.split()[0]
        self.in_content = verb == b"DATA"
        answers = {b"DATA": b"354 go on", b"STARTTLS": b"220 go on", b"EHLO": EHLO}
        self.sendLine(answers.get(verb, b"250 ok"))
        if verb == b"STARTTLS":
            self.transport.startTLS(self.factory.creator)
            self.encrypted = True


class Received(Resource):
    isLeaf = True
    code = 200

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[dict[str, Any]] = []

    def render_POST(self, request: Any) -> bytes:
        self.bodies.append(json.load(request.content))
        request.setResponseCode(self.code)
        return b"thanks"


class ForwardingTests(TestCase):
    timeout = LIMIT

    def listen(self, factory: Any, description: str = "tcp:0:interface=127.0.0.1", creator: Any = None) -> Any:
        endpoint: Any = endpoints.serverFromString(reactor, description)
        if creator is not None:
            endpoint = endpoints.wrapClientTLS(creator, endpoint)
        port = self.successResultOf(endpoint.listen(factory))
        self.addCleanup(port.stopListening)
        return port

    def serve(self, handler: Any, **options: Any) -> int:
        factory = SMTPFactory(handler, hostname="mx.example", **options)
        port = self.listen(factory)
        self.addCleanup(factory.drain, 0)
        close = getattr(handler, "close", None)
        if close is not None:
            # What is still on its way out keeps the reactor unclean.
            self.addCleanup(lambda: deferLater(reactor, 0.05, lambda: None))  # type: ignore[arg-type]
            self.addCleanup(close)
        return int(port.getHost().port)

    def send(self, port: int, *recipients: str) -> Deferred[Any]:
        def talk() -> Any:
            with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as client:
                client.ehlo()
                replies = [client.mail("a@x.example")]
                replies += [client.rcpt(one) for one in recipients or ("b@y.example",)]
                if any(code == 250 for code, _ in replies[1:]):
                    replies.append(client.data(CONTENT))
                return [(code, text.decode()) for code, text in replies]

        return deferToThread(talk)

    def authority(self) -> tuple[Issued, Issued, Any]:
        authority = issue("The Authority", ca=True)
        trust = tls.trustRootFromCertificates([tls.Certificate.loadPEM(authority.pem)])
        return authority, issue("next.example", issuer=authority), trust

    def context(self, issued: Issued) -> Any:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(issued.pem + issued.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return connection_creator(context)

    @inlineCallbacks
    def test_several_messages_over_one_connection(self) -> Any:
        recorder = Recorder()
        proxy = Proxy("127.0.0.1", self.serve(recorder), reactor=reactor)
        port = self.serve(proxy)
        for _ in range(3):
            replies = yield self.send(port)
            self.assertEqual([code for code, _ in replies], [250, 250, 250])
        self.assertEqual(len(recorder.contents), 3)
        self.assertTrue(recorder.contents[0].endswith(CONTENT))
        self.assertTrue(recorder.contents[0].startswith(b"Received: from "))

    @inlineCallbacks
    def test_nobody_listens(self) -> Any:
        port = self.listen(Factory())
        number = port.getHost().port
        yield port.stopListening()
        replies = yield self.send(self.serve(Proxy("127.0.0.1", number, reactor=reactor)))
        self.assertEqual(replies[1], (451, "4.4.1 The next host can't be reached, try again later"))

    @inlineCallbacks
    def test_lmtp_over_a_unix_socket_by_its_description(self) -> Any:
        class Mailboxes:
            async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> list[str]:
                return ["550 5.2.1 off" if "off" in address else "250 2.0.0 stored" for address in envelope.rcpt_tos]

        path = os.path.relpath(self.mktemp())
        factory = SMTPFactory(Mailboxes(), protocol=LMTP, hostname="lmtp.example")
        self.listen(factory, f"unix:{path}")
        self.addCleanup(factory.drain, 0)
        port = self.serve(Proxy(f"unix:{path}", protocol="lmtp", reactor=reactor))
        replies = yield self.send(port, "b@y.example", "c@y.example")
        self.assertEqual([code for code, _ in replies], [250, 250, 452, 250])
        replies = yield self.send(port, "off@y.example")
        self.assertEqual(replies[-1], (550, "5.2.1 off"))

    @inlineCallbacks
    def test_nothing_but_starttls_is_said_in_clear(self) -> Any:
        _, issued, trust = self.authority()
        factory: Any = Factory.forProtocol(StartTLSHost)
        factory.creator, factory.lines = self.context(issued), []
        next_port = self.listen(factory).getHost().port
        options = tls.optionsForClientTLS("next.example", trustRoot=trust)
        proxy = Proxy("127.0.0.1", next_port, tls="starttls", tls_options=options, reactor=reactor)
        replies = yield self.send(self.serve(proxy))
        self.assertEqual(replies[-1], (250, "2.0.0 stored"))
        self.assertEqual([line for encrypted, line in factory.lines if not encrypted][1:], [b"STARTTLS"])
        self.assertIn((True, b"MAIL FROM:<a@x.example>"), factory.lines)
        self.assertIn("REQUIRETLS", proxy.next_host.extensions)

    @inlineCallbacks
    def test_require_tls_does_not_go_on_in_clear(self) -> Any:
        """RFC 8689 section 2: whatever the next host offers."""
        factory: Any = Factory.forProtocol(StartTLSHost)
        factory.lines = []
        proxy = Proxy("127.0.0.1", self.listen(factory).getHost().port, reactor=reactor)
        replies = yield self.send(self.serve(proxy))
        self.assertEqual(replies[-1], (250, "2.0.0 stored"))
        self.assertEqual(set(proxy.next_host.extensions), {"STARTTLS"})

    @inlineCallbacks
    def test_a_certificate_that_is_not_valid_for_the_name_gets_no_mail(self) -> Any:
        _, issued, trust = self.authority()
        for mode in ("starttls", "implicit"):
            for options in (
                {"tls_hostname": "next.example"},
                {"tls_options": tls.optionsForClientTLS("other.example", trustRoot=trust)},
            ):
                factory: Any = Factory.forProtocol(StartTLSHost)
                factory.creator, factory.lines = self.context(issued), []
                wrapped = factory
                if mode == "implicit":
                    from twisted.protocols.tls import TLSMemoryBIOFactory

                    wrapped = TLSMemoryBIOFactory(factory.creator, False, factory)
                number = self.listen(wrapped).getHost().port
                proxy = Proxy("127.0.0.1", number, tls=mode, reactor=reactor, **options)
                replies = yield self.send(self.serve(proxy))
                self.assertEqual(replies[1][0], 451)
                self.assertEqual([line for encrypted, line in factory.lines if line.startswith(b"MAIL")], [])

    @inlineCallbacks
    def test_implicit_tls(self) -> Any:
        from twisted.protocols.tls import TLSMemoryBIOFactory

        _, issued, trust = self.authority()
        recorder = Recorder()
        factory = SMTPFactory(recorder, hostname="next.example")
        self.addCleanup(factory.drain, 0)
        number = self.listen(TLSMemoryBIOFactory(self.context(issued), False, factory)).getHost().port
        options = tls.optionsForClientTLS("next.example", trustRoot=trust)
        proxy = Proxy("127.0.0.1", number, tls="implicit", tls_options=options, reactor=reactor)
        replies = yield self.send(self.serve(proxy))
        self.assertEqual(replies[-1][0], 250)
        self.assertEqual(len(recorder.contents), 1)
        self.assertIn("REQUIRETLS", proxy.next_host.extensions)

    @inlineCallbacks
    def sink(self, *options: str) -> Any:
        """A port where Postfix's smtp-sink listens."""
        port = self.listen(Factory())
        number = port.getHost().port
        yield port.stopListening()
        # Started by root, it wants to be told who to become.
        user = ("-u", "nobody") if os.getuid() == 0 else ()
        server = subprocess.Popen([SINK, *user, *options, f"127.0.0.1:{number}", "10"])  # type: ignore[list-item]
        self.addCleanup(server.wait, LIMIT)
        self.addCleanup(server.terminate)
        client = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", number, timeout=LIMIT)
        for _ in range(200):
            try:
                protocol = yield client.connect(Factory.forProtocol(LineReceiver))
            except Exception:
                yield deferLater(reactor, 0.02, lambda: None)  # type: ignore[arg-type]
            else:
                protocol.transport.abortConnection()
                return number
        raise AssertionError("smtp-sink does not listen")

    @skipUnless(SINK, "Postfix's smtp-sink is not installed")
    @inlineCallbacks
    def test_postfix_takes_what_is_forwarded(self) -> Any:
        for options, arguments, last in (
            ((), {}, 250),
            (("-L",), {"protocol": "lmtp"}, 250),
            (("-r", "RCPT"), {}, 451),
            (("-f", "."), {}, 500),
            (("-q", "DATA"), {}, 451),
            (("-e",), {}, 250),
        ):
            number = yield self.sink(*options)
            for verify in (True, False):
                proxy = Proxy("127.0.0.1", number, verify_recipients=verify, reactor=reactor, **arguments)
                replies = yield self.send(self.serve(proxy))
                code = replies[-1][0]
                if last == 250:
                    self.assertEqual(code, 250, replies)
                else:
                    self.assertEqual(code // 100, last // 100, (options, replies))

    @inlineCallbacks
    def test_a_web_application_gets_the_message(self) -> Any:
        resource = Received()
        site = Site(resource)
        number = self.listen(site).getHost().port
        webhook = Webhook(f"http://127.0.0.1:{number}/in?x=1", reactor=reactor)
        port = self.serve(webhook)
        self.addCleanup(lambda: Deferred.fromCoroutine(webhook.stop()))
        for code, expected in ((200, 250), (422, 554), (503, 451)):
            resource.code = code
            replies = yield self.send(port)
            self.assertEqual(replies[-1][0], expected)
        self.assertEqual(len(resource.bodies), 3)
        self.assertEqual(resource.bodies[0]["recipients"], [{"address": "b@y.example", "options": []}])
