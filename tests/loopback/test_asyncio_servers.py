"""``loop.create_server(lambda: SMTP(handler))``, the first paragraph of aiosmtpd's documentation."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.fakes import EHLO, Recorder, codes
from tests.support.tls_helpers import TLSTestCase
from twisted_smtpd.smtp import SMTP

MESSAGE = "Subject: hi\r\n\r\nhello\r\n"


class Server(SMTP):
    """Keeps why each of its connections ended."""

    ended: list[Any]

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.append(error)
        super().connection_lost(error)


class CreateServerTests(TLSTestCase):
    """Seen: it accepts connections and says nothing, for ever."""

    def serve(self, make: Callable[[], Any], talk: Callable[[int], Any], **options: Any) -> Any:
        async def main() -> Any:
            loop = asyncio.get_running_loop()
            errors: list[Any] = []
            loop.set_exception_handler(lambda loop, context: errors.append(context))
            server = await loop.create_server(make, "127.0.0.1", 0, **options)
            try:
                said = await asyncio.wait_for(asyncio.to_thread(talk, server.sockets[0].getsockname()[1]), 60)
                # The end of the connection may come some turns later.
                for _ in range(9):
                    await asyncio.sleep(0)
                return said, errors
            finally:
                server.close()

        return asyncio.run(main())

    def test_it_serves(self) -> None:
        def talk(port: int) -> None:
            for _ in range(2):
                with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
                    client.sendmail("a@x.example", ["b@y.example"], MESSAGE)

        handler = Recorder()
        _, errors = self.serve(lambda: SMTP(handler, hostname="mx.example"), talk)
        self.assertEqual([envelope.content for envelope in handler.envelopes], [MESSAGE.encode()] * 2)
        self.assertEqual(errors, [])

    def test_a_hook_runs_in_the_loop(self) -> None:
        class Waits(Recorder):
            async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
                await asyncio.sleep(0)
                assert session.loop is asyncio.get_running_loop()
                return await super().handle_DATA(server, session, envelope)

        def talk(port: int) -> None:
            with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
                client.sendmail("a@x.example", ["b@y.example"], MESSAGE)

        handler = Waits()
        self.serve(lambda: SMTP(handler, hostname="mx.example"), talk)
        self.assertEqual(handler.envelopes[0].content, MESSAGE.encode())

    def test_starttls_works(self) -> None:
        def talk(port: int) -> Any:
            with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
                client.starttls(context=ssl._create_unverified_context())
                return client.ehlo()[0]

        context = self.stdlib()
        said, errors = self.serve(lambda: SMTP(Recorder(), hostname="mx.example", tls_context=context), talk)
        self.assertEqual((said, errors), (250, []))

    def test_connection_lost_is_called_at_the_end_only(self) -> None:
        def talk(port: int) -> list[Any]:
            with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
                client.ehlo()
                return list(Server.ended)

        Server.ended = []
        said, _ = self.serve(lambda: Server(Recorder(), hostname="mx.example"), talk)
        self.assertEqual(said, [])
        self.assertEqual(Server.ended, [None])

    def test_limits_hold_over_all_connections(self) -> None:
        def talk(port: int) -> bytes:
            with (
                socket.create_connection(("127.0.0.1", port), 30) as one,
                socket.create_connection(("127.0.0.1", port), 30) as other,
            ):
                return one.recv(999)[:3] + other.recv(999)[:3]

        handler = Recorder()
        said, _ = self.serve(lambda: SMTP(handler, hostname="mx.example", max_connections=1), talk)
        self.assertEqual(said, b"220421")

    def test_tls_of_asyncio_is_an_error_that_names_the_way(self) -> None:
        def talk(port: int) -> None:
            with self.assertRaises((ssl.SSLError, OSError)):
                smtplib.SMTP_SSL("127.0.0.1", port, timeout=30, context=ssl._create_unverified_context())

        _, errors = self.serve(lambda: SMTP(Recorder(), hostname="mx.example"), talk, ssl=self.stdlib())
        self.assertTrue(any("ssl_context" in str(error.get("exception")) for error in errors), errors)

    def test_a_unix_socket(self) -> None:
        # A path of trial's own may be too long.
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = str(Path(folder.name, "socket"))

        def talk() -> bytes:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(30)
                client.connect(path)
                said = client.recv(999)
                client.sendall(EHLO)
                return said + client.recv(999)

        async def main() -> bytes:
            loop = asyncio.get_running_loop()
            server = await loop.create_unix_server(lambda: SMTP(Recorder(), hostname="mx.example"), path)
            try:
                return await asyncio.to_thread(talk)
            finally:
                server.close()

        self.assertEqual(codes(asyncio.run(main())), [220, 250])
