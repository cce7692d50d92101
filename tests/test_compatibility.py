"""Attributes and values that programs written for aiosmtpd use."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import EHLO, Client, Recorder, codes, connect, hooks
from tests.support.proxy_headers import V1
from twisted_smtpd import handlers, smtp
from twisted_smtpd.controller import Controller, UnthreadedController
from twisted_smtpd.options.table import DEFAULTS
from twisted_smtpd.smtp import SMTP


class ServerTests(SynchronousTestCase):
    def test_ident_may_be_set_on_an_instance(self) -> None:
        """Mailman, heralding and sarlacc do: AttributeError."""

        class Mine(SMTP):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                self.__ident__ = "Mine 1.0"

        client = Client(Mine(Recorder(), hostname="mx.example"))
        self.assertEqual(client.read(), b"220 mx.example Mine 1.0\r\n")
        self.assertEqual(client.protocol.__ident__, "Mine 1.0")

    def test_ident_may_be_an_attribute_of_the_class(self) -> None:
        class Mine(SMTP):
            __ident__ = "Mine 1.0"

        self.assertEqual(Client(Mine(Recorder(), hostname="mx.example")).read(), b"220 mx.example Mine 1.0\r\n")
        self.assertEqual(Client(Mine(Recorder(), hostname="h.x", ident="z")).read(), b"220 h.x z\r\n")

    def test_the_module_has_what_aiosmtpds_has(self) -> None:
        self.assertEqual(smtp.__ident__, SMTP(Recorder()).__ident__)
        self.assertEqual(smtp.log, logging.getLogger("mail.log"))
        self.assertEqual(handlers.COMMASPACE, ", ")

    def test_before_a_client_there_is_no_session(self) -> None:
        server = SMTP(Recorder())
        self.assertEqual((server.session, server.envelope, server.loop, server.transport), (None, None, None, None))

    def test_an_empty_hostname_or_ident_is_none(self) -> None:
        server, usual = SMTP(Recorder(), hostname="", ident=""), SMTP(Recorder())
        self.assertEqual((server.hostname, server.ident), (usual.hostname, usual.ident))

    def test_the_longest_line_is_read_and_set_on_the_class(self) -> None:
        self.assertEqual(SMTP.line_length_limit, DEFAULTS["line_length_limit"])
        self.assertEqual(SMTP(Recorder(), line_length_limit=77).line_length_limit, 77)
        self.patch(SMTP, "line_length_limit", 50)
        self.assertEqual(SMTP(Recorder()).line_length_limit, 50)

        class Mine(SMTP):
            line_length_limit = 60

        self.assertEqual(Mine(Recorder()).line_length_limit, 60)

    def test_one_mechanism_may_be_excluded_by_its_name(self) -> None:
        def mechanisms(excluded: Any) -> list[str]:
            return sorted(
                SMTP(Recorder(), auth_callback=lambda *login: True, auth_exclude_mechanism=excluded).mechanisms
            )

        self.assertEqual(mechanisms("PLAIN"), ["LOGIN"])
        self.assertEqual(mechanisms("plain, LOGIN"), [])
        self.assertRaises(TypeError, mechanisms, b"PLAIN")

    def test_without_a_hook_every_proxy_is_dropped(self) -> None:
        """As in aiosmtpd; here it was an error at the start, before a test could set the hook."""
        client = connect(Recorder(), proxy_protocol_timeout=5)
        client.protocol.dataReceived(V1 + EHLO)
        self.assertTrue(client.aborted)
        client = connect(hooks(handle_PROXY=lambda *arguments: True), proxy_protocol_timeout=5)
        self.assertEqual(codes(client.send(V1 + EHLO)), [220, 250])


class ControllerTests(SynchronousTestCase):
    def test_a_port_may_be_a_string(self) -> None:
        controller = Controller(Recorder(), "127.0.0.1", "0")
        bindings = controller._bind()
        self.addCleanup(lambda: [binding.close() for binding in bindings])
        self.assertGreater(controller.port, 0)

    def test_the_loop_may_be_set_before_the_start(self) -> None:
        for kind in (Controller, UnthreadedController):
            loop = asyncio.new_event_loop()
            self.addCleanup(loop.close)
            controller = kind(Recorder())
            controller.loop = loop
            self.assertIs(controller.loop, loop)
            controller.server = object()  # type: ignore[assignment]
            self.assertRaises(RuntimeError, setattr, controller, "loop", None)
            controller.server = None
