"""Requests to the API of an inbox in memory; each answer is held against the OpenAPI document."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator, FormatChecker
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.web import Answer, Browser, read
from twisted_smtpd.inbox.api.openapi import document
from twisted_smtpd.inbox.api.table import ROUTES
from twisted_smtpd.inbox.settings import SiteSettings
from twisted_smtpd.inbox.site import make_site
from twisted_smtpd.session import Recipient
from twisted_smtpd.store import MemoryStore, NewMessage, SessionFacts

__all__ = ["APITestCase", "check_answer", "message"]

PLAIN = "From: Anne <anne@x.example>\nTo: Bart <bart@y.example>\nSubject: {subject}\n\n{text}\n"


def message(
    subject: str = "Hello",
    text: str = "hello",
    *,
    content: str | bytes | None = None,
    recipients: tuple[str, ...] = ("bart@y.example",),
    session: str = "s1",
    user: str | None = None,
    **options: Any,
) -> NewMessage:
    """A message for a store."""
    if content is None:
        content = PLAIN.format(subject=subject, text=text)
    octets = content.replace("\n", "\r\n").encode() if isinstance(content, str) else content
    facts = SessionFacts(session, user=user)
    return NewMessage(octets, "bounces@x.example", (), tuple(map(Recipient, recipients)), facts, **options)


@cache
def _document() -> dict[str, Any]:
    return _closed(json.loads(json.dumps(document(ROUTES, "1"))))  # type: ignore[no-any-return]


def _closed(value: Any) -> Any:
    """The same, but objects have no properties that the document does not name."""
    if isinstance(value, list):
        return [_closed(item) for item in value]
    if not isinstance(value, dict):
        return value
    closed = {key: _closed(item) for key, item in value.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed["additionalProperties"] = False
    return closed


def check_answer(method: str, path: str, answer: Answer) -> None:
    """Hold an answer against the document.

    :raises AssertionError: it is not as the document says.
    """
    if (answer.status in (404, 405) and b"such path" in answer.body) or answer.status == 405:
        return
    operation = _operation(method, urlsplit(path).path)
    responses = operation["responses"]
    assert str(answer.status) in responses, f"{method} {path}: {answer.status} is not documented"
    content = responses[str(answer.status)]["content"]
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in content or "*/*" in content, f"{method} {path}: {kind} is not documented"
    if kind == "application/json" and method != "HEAD" and "*/*" not in content:
        schema = {**content[kind]["schema"], "components": _document()["components"]}
        Draft202012Validator(schema, format_checker=FormatChecker()).validate(json.loads(answer.body))


def _operation(method: str, path: str) -> Any:
    for template, operations in _document()["paths"].items():
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template))
        verb = {"HEAD": "get"}.get(method, method.lower())
        if re.fullmatch(pattern, path) and verb in operations:
            return operations[verb]
    raise AssertionError(f"{method} {path} is not documented")


class APITestCase(SynchronousTestCase):
    """A store in memory and a site over it.

    :ivar store: the store.
    :ivar clock: the time.
    :ivar browser: asks the site.
    """

    def setUp(self) -> None:
        self.start()

    def start(self, **settings: Any) -> None:
        self.clock = Clock()
        self.store = MemoryStore(seconds=self.clock.seconds)
        self.serve(**settings)

    def serve(self, trust_programs: bool = True, **settings: Any) -> None:
        """Make the site; unlike it, most tests may send and set failures without a token."""
        options = SiteSettings(trust_programs=trust_programs, **settings)
        self.site: Any = make_site(options, self.store, self.clock)
        self.api = self.site.inbox.api
        self.browser = Browser(self.site, self.clock)

    def add(self, *arguments: Any, **options: Any) -> int:
        """Store a message; its number."""
        return self.store.add(message(*arguments, **options)).id

    def ask(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
        """Ask the site, and check the answer against the document."""
        octets = b""
        if body is not None:
            octets = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers.setdefault("Content_Type", "application/json")
        answer = self.browser.ask(path, method, octets, **headers)
        check_answer(method, path, answer)
        return answer

    def begin(self, path: str, method: str = "GET", *, read: bool = True, **headers: str) -> Any:
        """Ask, and leave the connection open.

        :param read: whether the client reads what it is sent; else it stops after the first octets.
        :returns: its transport.
        """
        channel, transport = self.browser.connect()
        if not read:
            write = transport.write

            def written(data: bytes) -> None:
                write(data)
                if transport.producer is not None:
                    transport.producer.pauseProducing()

            transport.write = written
        lines = [
            f"{method} {path} HTTP/1.1",
            *(f"{name}: {v}" for name, v in {**self.browser.headers, **headers}.items()),
        ]
        channel.dataReceived("\r\n".join((*lines, "", "")).encode())
        return transport

    def answered(self, transport: Any, path: str) -> Answer:
        """What has been answered, checked."""
        answer = read(transport.value())
        check_answer("GET", path, answer)
        return answer

    def get(self, path: str, **headers: str) -> Any:
        """What is answered in JSON."""
        answer = self.ask(path, **headers)
        self.assertEqual(answer.status, 200, answer.body)
        return json.loads(answer.body)

    def do(self, method: str, path: str, body: Any = None, **headers: str) -> None:
        """Ask for something that is answered with "ok"."""
        answer = self.ask(path, method, body, **headers)
        self.assertEqual((answer.status, answer.body), (200, b"ok"))

    def refused(self, status: int, path: str, method: str = "GET", body: Any = None, **headers: str) -> str:
        """The line that says why something is refused."""
        answer = self.ask(path, method, body, **headers)
        self.assertEqual(answer.status, status, answer.body)
        text: str = json.loads(answer.body)["Error"]
        self.assertNotIn("\n", text)
        return text
