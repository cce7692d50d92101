"""Webhook: what is posted, and what the HTTP status means for the message."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher, textFileLogObserver
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone, ResponseNeverReceived
from twisted.web.iweb import IAgent
from zope.interface import implementer

from tests.support.fakes import MESSAGE, Client, codes, last_line
from tests.support.memory_reactor import ResolvingReactor
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.handlers import Webhook
from twisted_smtpd.handlers.registry import HandlerError, make_handler
from twisted_smtpd.handlers.web import MAX_RESPONSE
from twisted_smtpd.handlers.webhook import status_of_response

URL = "https://app.example/hook?token=t0ken"


class Response:
    def __init__(self, code: int, ends: bool = True) -> None:
        self.code = code
        self.ends = ends
        self.transport = StringTransport()

    def deliverBody(self, protocol: Any) -> None:
        self.protocol = protocol
        protocol.makeConnection(self.transport)
        if self.ends:
            protocol.dataReceived(b"thanks")
            protocol.connectionLost(Failure(ResponseDone()))


@implementer(IAgent)
class AgentDouble:
    """Keeps what is requested."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.answers: list[Deferred[Any]] = []
        self.cancelled: list[Deferred[Any]] = []

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Deferred[Any]:
        sink = StringTransport()
        bodyProducer.startProducing(sink)
        assert bodyProducer.length == len(sink.value())
        self.requests.append((method, uri, headers, sink.value()))
        self.answers.append(Deferred(self.cancelled.append))
        return self.answers[-1]


class WebhookTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.agent = AgentDouble()
        self.log = io.StringIO()
        observer = textFileLogObserver(self.log)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def serve(self, **options: Any) -> SMTPFactory:
        webhook = Webhook(URL, agent=self.agent, reactor=self.clock, **options)
        return SMTPFactory(webhook, hostname="mx.example", clock=self.clock)

    def post(self, factory: SMTPFactory | None = None, message: bytes = MESSAGE) -> Client:
        client = Client((factory or self.serve()).buildProtocol(None))
        client.send(message)
        return client


class VerdictTests(WebhookTestCase):
    def test_nothing_is_answered_before_the_response(self) -> None:
        client = self.post()
        self.assertEqual(client.read(), b"")
        self.agent.answers[0].callback(Response(202))
        self.assertEqual(client.read(), b"250 2.0.0 OK\r\n")

    def test_the_http_status_decides(self) -> None:
        for code, expected in (
            *((code, 250) for code in (200, 201, 202, 204, 299)),
            *((code, 554) for code in (400, 402, 403, 406, 409, 410, 413, 415, 422, 451, 499)),
            *((code, 451) for code in (401, 404, 405, 407, 408, 421, 425, 429, 500, 502, 503, 504, 599)),
            *((code, 451) for code in (301, 302, 303, 307, 308, 304, 100, 999, 0)),
        ):
            self.assertEqual(status_of_response(code).code, expected, code)

    def test_an_application_that_can_not_be_reached_is_451(self) -> None:
        for error in (ConnectionRefusedError(), ResponseNeverReceived([Failure(ConnectionRefusedError("t0ken"))])):
            client = self.post()
            self.agent.answers[-1].errback(Failure(error))
            self.assertEqual(last_line(client.read()), "451 4.3.0 The message can't be handed on, try again later")
        self.assertIn("ResponseNeverReceived ConnectionRefusedError", self.log.getvalue())

    def test_an_application_that_does_not_answer_is_451_in_time(self) -> None:
        client = self.post(self.serve(timeout=10))
        self.clock.advance(11)
        self.assertEqual(codes(client.read()), [451])
        self.assertEqual(len(self.agent.cancelled), 1)

    def test_a_response_counts_though_its_body_does_not_end(self) -> None:
        for timeout in (2, 60):
            client = self.post(self.serve(timeout=timeout))
            response = Response(200, ends=False)
            self.agent.answers[-1].callback(response)
            self.clock.advance(5)
            self.assertEqual(codes(client.read()), [250])
            self.assertTrue(response.transport.disconnecting)

    def test_a_response_without_end_is_cut_off(self) -> None:
        self.post()
        response = Response(200, ends=False)
        self.agent.answers[0].callback(response)
        for _ in range(MAX_RESPONSE // 1024):
            response.protocol.dataReceived(b"x" * 1024)
        self.assertFalse(response.transport.disconnecting)
        response.protocol.dataReceived(b"x")
        self.assertTrue(response.transport.disconnecting)
        response.protocol.connectionLost(Failure(ResponseDone()))

    def test_no_more_requests_at_once_than_allowed(self) -> None:
        factory = self.serve(max_connections=2, timeout=10)
        clients = [self.post(factory) for _ in range(4)]
        self.assertEqual(len(self.agent.requests), 2)
        self.agent.answers[0].callback(Response(200))
        self.assertEqual(len(self.agent.requests), 3)
        self.clock.advance(11)
        self.assertEqual([codes(client.read()) for client in clients], [[250], [451], [451], [451]])
        before = len(self.agent.requests)
        for _ in range(3):
            self.post(factory)
        self.assertEqual(len(self.agent.requests) - before, 2)


class RequestTests(WebhookTestCase):
    def body(self, message: bytes = MESSAGE, **options: Any) -> dict[str, Any]:
        self.post(self.serve(**options), message)
        method, uri, _, body = self.agent.requests[-1]
        self.assertEqual((method, uri), (b"POST", URL.encode()))
        return json.loads(body)  # type: ignore[no-any-return]

    def test_the_envelope_and_the_message_are_posted(self) -> None:
        body = self.body(MESSAGE.replace(b"hello", b"hell\xff"))
        self.assertEqual(base64.b64decode(body.pop("message")), b"Subject: hi\r\n\r\nhell\xff\r\n")
        self.assertRegex(body.pop("session"), r"^[0-9a-f]+-[0-9a-f]+$")
        self.assertEqual(
            body,
            {
                "peer": "192.0.2.1",
                "helo": "client.example",
                "tls": False,
                "authenticated": False,
                "mail_from": "a@x.example",
                "mail_options": [],
                "recipients": [{"address": "b@y.example", "options": []}],
            },
        )
        (content_type,) = self.agent.requests[0][2].getRawHeaders("content-type")
        self.assertEqual(content_type, "application/json")

    def test_a_null_sender_is_empty(self) -> None:
        self.assertEqual(self.body(MESSAGE.replace(b"a@x.example", b""))["mail_from"], "<>")

    def test_more_headers(self) -> None:
        self.body(headers={"Authorization": "Bearer s3cret"})
        self.assertEqual(self.agent.requests[0][2].getRawHeaders("authorization"), ["Bearer s3cret"])

    def test_the_signature_covers_identity_time_and_body(self) -> None:
        key = b"0123456789abcdef"
        for secret in (key, key.decode(), "whsec_" + base64.b64encode(key).decode()):
            self.body(secret=secret)
            _, _, headers, body = self.agent.requests[-1]
            name, moment, signature = (
                headers.getRawHeaders(f"webhook-{field}")[0] for field in ("id", "timestamp", "signature")
            )
            digest = hmac.new(key, f"{name}.{moment}.".encode() + body, hashlib.sha256).digest()
            self.assertEqual(signature, "v1," + base64.b64encode(digest).decode())
        names = {request[2].getRawHeaders("webhook-id")[0] for request in self.agent.requests}
        self.assertEqual(len(names), 3)

    def test_secrets_are_neither_logged_nor_shown(self) -> None:
        factory = self.serve(secret="s3cret", headers={"Authorization": "Bearer s3cret"})
        self.assertEqual(repr(factory.handler), "<Webhook https://app.example>")
        for answer in (Response(200), Response(500), Failure(ConnectionRefusedError(URL))):
            self.post(factory)
            self.agent.answers[-1].callback(answer)
        self.assertIn("<Webhook https://app.example> says 200", self.log.getvalue())
        for secret in ("s3cret", "t0ken"):
            self.assertNotIn(secret, self.log.getvalue())

    def test_what_is_no_url_is_refused_without_repeating_it(self) -> None:
        for url in (
            "app.example",
            "ftp://app.example/",
            "http://",
            "http://anne:s3cret@app.example/",
            "http://x:y/s3cret",
        ):
            error = self.assertRaises(ValueError, Webhook, url)
            self.assertNotIn("s3cret", str(error))
        for wrong in ({"secret": ""}, {"secret": b""}, {"secret": "whsec_%"}, {"secret": "whsec_AAA!A"}):
            self.assertRaises(ValueError, Webhook, URL, **wrong)
        for wrong in ({"timeout": 0}, {"max_connections": 0}):
            self.assertRaises(ValueError, Webhook, URL, **wrong)


class AgentTests(SynchronousTestCase):
    def test_its_own_agent_follows_no_redirect_and_speaks_http(self) -> None:
        reactor = ResolvingReactor()
        factory = SMTPFactory(
            Webhook("http://127.0.0.1:8080/in", reactor=reactor), hostname="mx.example", clock=reactor
        )
        for response, expected in (
            (b"HTTP/1.1 204 No Content\r\n\r\n", 250),
            (b"HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.1:8080/\r\nContent-Length: 0\r\n\r\n", 451),
            (b"HTTP/1.1 422 No\r\nContent-Length: 2\r\n\r\nno", 554),
        ):
            client = Client(factory.buildProtocol(None))
            client.send(MESSAGE)
            host, port, http_factory, *_ = reactor.tcpClients.pop()
            self.assertEqual((host, port), ("127.0.0.1", 8080))
            http, transport = http_factory.buildProtocol(None), StringTransport()
            http.makeConnection(transport)
            self.assertTrue(transport.value().startswith(b"POST /in HTTP/1.1\r\n"))
            http.dataReceived(response)
            self.assertEqual(codes(client.read()), [expected])
            http.connectionLost(Failure(ConnectionRefusedError()))
            self.assertEqual(reactor.tcpClients, [])

    def test_stop_closes_its_kept_connections(self) -> None:
        reactor = ResolvingReactor()
        webhook = Webhook("http://127.0.0.1:8080/in", reactor=reactor)
        factory = SMTPFactory(webhook, hostname="mx.example", clock=reactor)
        self.successResultOf(factory.start_handler())
        client = Client(factory.buildProtocol(None))
        client.send(MESSAGE)
        http_factory = reactor.tcpClients.pop()[2]
        http, transport = http_factory.buildProtocol(None), StringTransport()
        http.makeConnection(transport)
        http.dataReceived(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.assertEqual(codes(client.read()), [250])
        self.assertFalse(transport.disconnecting)
        stopped = factory.stop_handler()
        self.assertTrue(transport.disconnecting)
        http.connectionLost(Failure(ConnectionDone()))
        self.successResultOf(stopped)

    def test_stop_leaves_an_agent_that_was_given_alone(self) -> None:
        webhook = Webhook("http://127.0.0.1:8080/in", agent=AgentDouble(), reactor=Clock())
        self.successResultOf(Deferred.fromCoroutine(webhook.stop()))


class CommandLineTests(SynchronousTestCase):
    def test_it_has_a_name(self) -> None:
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("s3cret\n")
        webhook = make_handler("webhook", [URL, f"--secret-file={path}"])
        self.assertEqual(webhook._secret, b"s3cret")
        self.assertIsInstance(make_handler("webhook", [URL]), Webhook)
        for wrong in ([], ["app.example"], [URL, "--secret-file=/nowhere"]):
            self.assertRaises(HandlerError, make_handler, "webhook", wrong)
