"""Recipients and senders by lists: files, patterns and web services."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet import threads
from twisted.internet.defer import Deferred, execute, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import EHLO, Client, connect, last_line
from twisted_smtpd.handlers import Chain, Recipients, Senders, Sink
from twisted_smtpd.handlers import address_lists as module
from twisted_smtpd.handlers.registry import HandlerError, make_handler
from twisted_smtpd.interfaces import IReloadable
from twisted_smtpd.testing import deliver

URL = "https://users.example/{address}?token=hunter2"


class ListedCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(threads, "deferToThread", execute)

    def client(self, handler: object) -> Client:
        client = connect(Chain(handler, Sink()))
        client.send(EHLO)
        return client

    def rcpt(self, handler: object, *addresses: str) -> list[int]:
        replies = deliver(Chain(handler, Sink()), "hello", mail_from="a@b.example", rcpt_tos=addresses)
        return [int(replies.rcpt[address][:3]) for address in addresses]

    def mail(self, handler: object, *addresses: str) -> list[int]:
        return [int(deliver(Chain(handler, Sink()), "hello", mail_from=address).mail[:3]) for address in addresses]


class FileTests(ListedCase):
    def file(self, text: str) -> Path:
        path = Path(self.mktemp())
        path.write_text(text, encoding="utf-8")
        return path

    def test_addresses_and_domains(self) -> None:
        path = self.file("# ours\n\nAnne@example.com\n@sub.example.com\nexample.org\n")
        wanted = ["anne@EXAMPLE.com", "x@sub.example.com", "y@Example.org", "postmaster"]
        self.assertEqual(self.rcpt(Recipients(f"file:{path}"), *wanted), [250] * 4)
        others = ["bart@example.com", "x@deep.sub.example.com", "anne@example.com.evil.example"]
        self.assertEqual(self.rcpt(Recipients(f"file:{path}"), *others), [550] * 3)

    def test_alone_it_lets_the_server_decide(self) -> None:
        path = self.file("example.com\n")
        replies = deliver(Recipients(f"file:{path}"), "hello", rcpt_tos=["x@example.com", "x@y.example"])
        self.assertEqual([reply[:3] for reply in replies.rcpt.values()], ["250", "550"])

    def test_senders_may_be_refused_and_bounces_always_pass(self) -> None:
        path = self.file("spam.example\n")
        listed = f"file:{path}"
        self.assertEqual(self.mail(Senders(listed, refuse=True), "a@spam.example", "a@b.example", ""), [550, 250, 250])
        self.assertEqual(self.mail(Senders(listed), "a@spam.example", "a@b.example", ""), [250, 550, 250])

    def test_a_delimiter(self) -> None:
        path = self.file("anne@example.com\n")
        handler = Recipients(f"file:{path}", delimiter="+")
        self.assertEqual(self.rcpt(handler, "anne+x@example.com", "anne@example.com"), [250, 250])

    def test_a_file_that_has_changed_is_read_again(self) -> None:
        path = self.file("example.com\n")
        handler = Recipients(f"file:{path}")
        self.patch(module, "LOOK_EVERY", 0)
        self.assertEqual(self.rcpt(handler, "x@example.net"), [550])
        path.write_text("example.com\nexample.net\n")
        self.assertEqual(self.rcpt(handler, "x@example.net"), [250])

    def test_a_file_that_can_not_be_read_any_more_changes_nothing(self) -> None:
        path = self.file("example.com\n")
        handler = Recipients(f"file:{path}")
        self.patch(module, "LOOK_EVERY", 0)
        for spoil in (lambda: path.write_text("a b\n"), lambda: path.write_bytes(b"\xff"), lambda: os.unlink(path)):
            spoil()
            self.assertEqual(self.rcpt(handler, "x@example.com", "x@example.net"), [250, 550])

    def test_a_hangup_has_it_read(self) -> None:
        path = self.file("example.com\n")
        handler = Chain(Recipients(f"file:{path}"), Sink())
        self.assertTrue(IReloadable.providedBy(handler))
        self.assertFalse(IReloadable.providedBy(Chain(Sink())))
        path.write_text("example.net\n")
        self.successResultOf(Deferred.fromCoroutine(handler.reload()))
        self.assertEqual(self.rcpt(handler, "x@example.net"), [250])

    def test_errors_are_one_line(self) -> None:
        for text, error in (("a b\n", "line 1: a line has one"), ("\na@\n", "line 2: there is no domain")):
            path = self.file(text)
            self.assertIn(error, str(self.assertRaises(HandlerError, make_handler, "recipients", [f"file:{path}"])))
        for words, error in (
            ([], "required"),
            (["/etc/list"], "a list is file:PATH"),
            (["file:/nonesuch"], "No such file"),
            (["regex:("], "regex: "),
            (["https://x.example/"], "no {address}"),
            (["https://u:hunter2@x.example/{address}"], "without user and password"),
            (["regex:a", "--delimiter", "ab"], "one character"),
            (["https://x.example/{address}", "--timeout=0"], "between 0 and 60"),
        ):
            text = str(self.assertRaises(HandlerError, make_handler, "recipients", words))
            self.assertIn(error, text)
            self.assertNotIn("hunter2", text)


class PatternTests(ListedCase):
    def test_it_matches_as_a_whole(self) -> None:
        handler = Recipients(r"regex:[a-z]+@example\.com")
        self.assertEqual(self.rcpt(handler, "anne@example.com", "ANNE@example.com"), [250, 250])
        self.assertEqual(self.rcpt(handler, "anne1@example.com", "a@example.comx"), [550, 550])

    def test_the_length_is_bounded(self) -> None:
        has = module.PatternList(".*").has
        self.assertTrue(self.successResultOf(Deferred.fromCoroutine(has("a" * 320))))
        self.assertFalse(self.successResultOf(Deferred.fromCoroutine(has("a" * 321))))

    def test_any_of_several_lists_will_do(self) -> None:
        self.assertEqual(self.rcpt(Recipients("regex:a@x.example", "regex:b@x.example"), "b@x.example"), [250])


class _Response:
    def __init__(self, code: int) -> None:
        self.code = code

    def deliverBody(self, protocol: Any) -> None:
        protocol.connectionLost(Failure(connectionDone.value))


class ServiceTests(ListedCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.asked: list[bytes] = []
        self.answers: list[Any] = []
        self.headers: Any = None

    def request(self, method: bytes, url: bytes, headers: Any, body: Any) -> Any:
        self.asked.append(url)
        self.headers = headers
        answer = self.answers.pop(0) if self.answers else 200
        return succeed(_Response(answer)) if isinstance(answer, int) else answer

    def handler(self, url: str = URL, **options: Any) -> Recipients:
        agent = SimpleNamespace(request=self.request)
        return Recipients(url, agent=agent, reactor=self.clock, **options)

    def test_its_status_decides(self) -> None:
        self.answers = [200, 204, 404, 410, 500, 302, 403, 400]
        addresses = [f"a{number}@x.example" for number in range(8)]
        self.assertEqual(self.rcpt(self.handler(), *addresses), [250, 250, 550, 550, 451, 451, 451, 451])

    def test_the_address_is_percent_encoded(self) -> None:
        self.rcpt(self.handler(), '"a/b?c&d#e"@x.example')
        self.assertEqual(self.asked, [b"https://users.example/a%2Fb%3Fc%26d%23e%40x.example?token=hunter2"])

    def test_no_answer_in_time_is_451(self) -> None:
        self.answers = [Deferred()]
        client = self.client(self.handler())
        client.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n")
        self.clock.advance(5)
        self.assertEqual(last_line(client.read())[:9], "451 4.4.3")

    def test_a_token(self) -> None:
        path = Path(self.mktemp())
        path.write_text("s3cret\n")
        handler = make_handler("recipients", [URL, "--token-file", str(path)])
        (service,) = handler._lists
        self.assertEqual(service._headers["authorization"], "Bearer s3cret")
        self.assertNotIn("hunter2", repr(handler))

    def test_answers_are_remembered_for_a_while(self) -> None:
        handler = self.handler(cache=10)
        self.answers = [404]
        self.assertEqual(self.rcpt(handler, "a@x.example", "a@x.example"), [550, 550])
        self.assertEqual(len(self.asked), 1)
        self.clock.advance(10)
        self.assertEqual(self.rcpt(handler, "a@x.example"), [250])
        self.patch(module, "MAX_ANSWERS", 2)
        self.rcpt(handler, *(f"{number}@x.example" for number in range(9)))
        self.assertEqual(len(handler._lists[0]._answers), 2)  # type: ignore[attr-defined]

    def test_a_question_that_is_asked_already_is_asked_once(self) -> None:
        answer: Deferred[Any] = Deferred()
        self.answers = [answer]
        handler = self.handler()
        first, second = self.client(handler), self.client(handler)
        for client in (first, second):
            client.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n")
        first.lose()
        answer.callback(_Response(404))
        self.assertEqual(last_line(second.read())[:3], "550")
        self.assertEqual(len(self.asked), 1)

    def test_a_service_that_is_down_is_left_alone(self) -> None:
        self.answers = [fail(ConnectionRefusedError()) for _ in range(5)]
        handler = self.handler()
        self.assertEqual(self.rcpt(handler, *(f"{number}@x.example" for number in range(8))), [451] * 8)
        self.assertEqual(len(self.asked), 5)
        self.clock.advance(30)
        waiting: Deferred[Any] = Deferred()
        self.answers = [waiting]
        client = self.client(handler)
        client.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n")
        # One finds out; the others do not wait for it.
        self.assertEqual(self.rcpt(handler, "z@x.example"), [451])
        waiting.callback(_Response(200))
        self.assertEqual(last_line(client.read())[:3], "250")
        self.assertEqual(self.rcpt(handler, "z@x.example"), [250])

    def test_the_number_of_questions_is_bounded(self) -> None:
        self.patch(module, "MAX_WAITING", 2)
        self.answers = [Deferred(), Deferred()]
        handler = self.handler()
        for number in range(2):
            self.client(handler).send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c%d@d.example>\r\n" % number)
        self.assertEqual(self.rcpt(handler, "z@x.example"), [451])
