"""What the API does in threads: attachments that are sent, sums of large messages, thumbnails."""

from __future__ import annotations

import json
import struct
import zlib
from base64 import b64encode
from email import message_from_bytes
from email.policy import default
from io import BytesIO
from typing import Any
from unittest import skipUnless

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers

from tests.support.inbox_api import check_answer, message
from tests.support.web import Answer
from twisted_smtpd.inbox.api import thumbnails
from twisted_smtpd.inbox.api.thumbnails import HEIGHT, ICON, WIDTH, thumbnail
from twisted_smtpd.inbox.settings import SiteSettings
from twisted_smtpd.inbox.site import make_site
from twisted_smtpd.store import MemoryStore

try:
    from PIL import Image
except ImportError:
    Image = None  # type: ignore[assignment]

with_pillow = skipUnless(Image is not None, "Pillow is not installed")


def picture(kind: str = "PNG", size: tuple[int, int] = (400, 300), mode: str = "RGB", color: Any = "red") -> bytes:
    """An image."""
    out = BytesIO()
    Image.new(mode, size, color).save(out, kind)
    return out.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of some octets that says that it has very many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 10_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def with_images(*images: tuple[str, bytes]) -> bytes:
    """A message with images."""
    parts = [
        f'--b\r\nContent-Type: {kind}\r\nContent-Disposition: attachment; filename="{number}"\r\n'
        f"Content-Transfer-Encoding: base64\r\n\r\n{b64encode(octets).decode()}\r\n"
        for number, (kind, octets) in enumerate(images)
    ]
    return f"Content-Type: multipart/mixed; boundary=b\r\n\r\n{''.join(parts)}--b--\r\n".encode()


class ThreadCase(TestCase):
    """A site on a port of the loopback interface."""

    async def start(self, store: Any = None, **settings: Any) -> None:
        self.store: Any = MemoryStore() if store is None else store
        site = make_site(SiteSettings(**{"trust_programs": True, **settings}), self.store, reactor)
        port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site)
        self.addCleanup(port.stopListening)
        self.pool = HTTPConnectionPool(reactor, persistent=False)
        self.base = f"http://127.0.0.1:{port.getHost().port}"

    async def ask(self, path: str, method: str = "GET", body: Any = None) -> Answer:
        octets = None if body is None else FileBodyProducer(BytesIO(json.dumps(body).encode()))
        headers = Headers({"Content-Type": ["application/json"]})
        agent = Agent(reactor, pool=self.pool)
        response: Any = await agent.request(method.encode(), (self.base + path).encode(), headers, octets)
        fields = {name.decode().lower(): values[0].decode() for name, values in response.headers.getAllRawHeaders()}
        answer = Answer(response.code, fields, await readBody(response))
        check_answer(method, path, answer)
        return answer


def test(function: Any) -> Any:
    """A test that is a coroutine."""

    def run(self: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(function(self))

    run.__name__, run.__doc__ = function.__name__, function.__doc__
    return run


class AttachmentTests(ThreadCase):
    @test
    async def test_attachments_that_are_sent(self) -> None:
        await self.start()
        body = {
            "From": {"Email": "anne@x.example"},
            "To": [{"Email": "bart@y.example"}],
            "Text": "see it",
            "HTML": '<img src="cid:logo">',
            "Attachments": [
                {"Filename": "ä b.txt", "Content": b64encode(b"text").decode()},
                {"Filename": "x.bin", "Content": "data:image/png;base64," + b64encode(b"\x00\xff").decode()},
                {"Filename": "l.png", "Content": "cG5n\r\n", "ContentType": "image/png; x=y", "ContentID": "logo"},
                {"Filename": "m.eml", "Content": "cG5n", "ContentType": "message/rfc822"},
            ],
        }
        answer = await self.ask("/api/v1/send", "POST", body)
        self.assertEqual((answer.status, json.loads(answer.body)), (200, {"ID": "1"}))
        one = json.loads((await self.ask("/api/v1/message/1")).body)
        self.assertEqual([part["FileName"] for part in one["Attachments"]], ["ä b.txt", "x.bin", "m.eml"])
        self.assertEqual([(p["ContentID"], p["ContentType"]) for p in one["Inline"]], [("logo", "image/png")])
        binary = one["Attachments"][1]["PartID"]
        self.assertEqual((await self.ask(f"/api/v1/message/1/part/{binary}")).body, b"\x00\xff")
        stored = self.store.get(1)
        assert stored is not None
        read: Any = message_from_bytes(stored.message.content, policy=default)
        self.assertEqual(next(p.get_content_type() for p in read.iter_attachments()), "text/plain")

    @test
    async def test_attachments_that_are_none(self) -> None:
        await self.start()
        good = {"Filename": "x", "Content": ""}
        for bad in (
            {"Content": "no base64!"},
            {"Content": "ä"},
            {"ContentType": "x"},
            {"ContentType": "text/html\r\nX: y"},
            {"Filename": "a\r\nb"},
            {"ContentID": "a\r\nb"},
        ):
            body = {
                "From": {"Email": "a@x.example"},
                "To": [{"Email": "b@y.example"}],
                "Attachments": [{**good, **bad}],
            }
            self.assertEqual((await self.ask("/api/v1/send", "POST", body)).status, 400, bad)

    @test
    async def test_a_large_message(self) -> None:
        await self.start()
        self.store.add(message(content=with_images(("application/pdf", b"x" * 300_000))))
        one = json.loads((await self.ask("/api/v1/message/latest")).body)
        self.assertEqual(one["Attachments"][0]["Size"], 300_000)
        self.assertEqual(len((await self.ask("/api/v1/message/1/part/1")).body), 300_000)


class ThumbnailTests(ThreadCase):
    @with_pillow
    @test
    async def test_an_image(self) -> None:
        await self.start()
        images = (("image/png", picture()), ("image/gif", picture("GIF", (3, 2))), ("text/plain", b"hello"))
        self.store.add(message(content=with_images(*images, ("image/svg+xml", b"<svg/>"))))
        found = [await self.ask(f"/api/v1/message/1/part/{part}/thumb") for part in (1, 2, 3, 4)]
        self.assertEqual({answer.headers["content-type"] for answer in found}, {"image/jpeg"})
        self.assertEqual([answer.body == ICON for answer in found], [False, False, True, True])
        for answer in found:
            self.assertEqual(Image.open(BytesIO(answer.body)).size, (WIDTH, HEIGHT))
        self.assertEqual((await self.ask("/api/v1/message/1/part/9/thumb")).status, 404)

    @with_pillow
    @test
    async def test_a_bomb_is_an_icon(self) -> None:
        await self.start()
        self.store.add(message(content=with_images(("image/png", bomb(100_000, 100_000)))))
        self.assertEqual((await self.ask("/api/v1/message/1/part/1/thumb")).body, ICON)

    @with_pillow
    def test_kinds_of_images(self) -> None:
        for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP"):
            with self.subTest(kind):
                self.assertEqual(Image.open(BytesIO(thumbnail(picture(kind)) or b"")).size, (WIDTH, HEIGHT))
        for kind in ("TIFF", "ICO", "PPM", "TGA"):
            self.assertIsNone(thumbnail(picture(kind)), kind)

    @with_pillow
    def test_transparent_images_are_on_white(self) -> None:
        small = Image.open(BytesIO(thumbnail(picture(mode="RGBA", color=(0, 0, 0, 0))) or b""))
        self.assertEqual(small.getpixel((90, 60)), (255, 255, 255))

    @with_pillow
    def test_what_is_no_image(self) -> None:
        whole = picture("PNG")
        for octets in (
            b"",
            b"x",
            whole[:50],
            whole[:20] + b"\xff" * 100,
            bomb(1, 0),
            bomb(5000, 5000),
            bomb(2**31 - 1, 9),
        ):
            self.assertIsNone(thumbnail(octets))

    @with_pillow
    def test_the_limit_is_on_pixels(self) -> None:
        self.patch(thumbnails, "MAX_PIXELS", 120_000)
        self.assertIsNotNone(thumbnail(picture(size=(400, 300))))
        self.assertIsNone(thumbnail(picture(size=(401, 300))))

    def test_without_pillow(self) -> None:
        import sys

        self.patch(sys, "modules", {**sys.modules, "PIL": None})
        self.assertIsNone(thumbnail(b"x"))

    def test_the_icon(self) -> None:
        self.assertTrue(ICON.startswith(b"\xff\xd8\xff"))
