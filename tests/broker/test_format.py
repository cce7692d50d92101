"""Tests for the form of messages in a broker, for the URLs of its nodes, and for large messages beside it."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.broker.addresses import place_of, read_urls
from twisted_smtpd.broker.claims import FolderClaims, claim_store
from twisted_smtpd.broker.format import FormatError, decode, pack
from twisted_smtpd.broker.topology import STEPS, Topology
from twisted_smtpd.queue.entries import NewMessage
from twisted_smtpd.session import Recipient

CONTENT = b"Subject: hi\r\n\r\nhello\n\x00\xff\r\n"
RECIPIENTS = [Recipient("b@y.example", ["NOTIFY=NEVER"], {"NOTIFY": "NEVER"}), Recipient("ü@y.example")]


def message(content: bytes = CONTENT) -> NewMessage:
    return NewMessage("a@x.example", RECIPIENTS, content, {"peer": ["192.0.2.1", 25], "utf8": True}, ["", ""])


class FormatTests(SynchronousTestCase):
    @given(st.binary(max_size=300))
    def test_what_is_put_in_comes_out(self, content: bytes) -> None:
        packed = pack(message(content), "A1", 12.5)
        self.assertEqual(decode(packed.encode()), packed)

    def test_other_languages_can_read_it(self) -> None:
        line, _, content = pack(message(), "A1", 12.5).encode().partition(b"\n")
        envelope = json.loads(line)
        self.assertEqual(content, CONTENT)
        self.assertEqual((envelope["version"], envelope["id"], envelope["sender"]), (1, "A1", "a@x.example"))
        self.assertEqual([one["address"] for one in envelope["recipients"]], ["b@y.example", "ü@y.example"])
        self.assertEqual((envelope["size"], envelope["crc32"]), (len(CONTENT), crc32(CONTENT)))
        self.assertTrue(line.isascii())

    @given(st.binary(max_size=200))
    def test_whatever_is_in_the_queue_is_a_message_or_an_error(self, body: bytes) -> None:
        with contextlib.suppress(FormatError):
            decode(body)

    def test_each_damage_is_an_error(self) -> None:
        good = json.loads(pack(message(), "A1", 12.5).encode().partition(b"\n")[0])
        for key in good:
            body = json.dumps({name: value for name, value in good.items() if name != key}).encode()
            self.assertRaises(FormatError, decode, body)
        for key in ("version", "arrived", "recipients", "size", "crc32", "attempts", "facts"):
            for value in (None, "x", [[]], 2 if key == "version" else {"a": 1} if key != "facts" else 1):
                self.assertRaises(FormatError, decode, json.dumps({**good, key: value}).encode() + b"\nx")
        self.assertRaises(FormatError, decode, json.dumps({**good, "recipients": []}).encode() + b"\nx")
        self.assertRaises(FormatError, decode, b"[" * 100_000)

    def test_for_some_of_its_recipients(self) -> None:
        packed = pack(message(), "A1", 12.5).left_to(RECIPIENTS[1:], attempts=3, warned=True, last_reply="451 later")
        again = decode(packed.encode())
        self.assertEqual([one.address for one in again.recipients], ["ü@y.example"])
        self.assertEqual(
            (again.attempts, again.warned, again.last_reply, again.content), (3, True, "451 later", CONTENT)
        )

    def test_no_message_is_shown_by_a_repr(self) -> None:
        self.assertNotIn("Subject", repr(pack(message(), "A1", 12.5)))


class TopologyTests(SynchronousTestCase):
    def test_the_nearest_wait(self) -> None:
        queues = Topology("post")
        for seconds, step in ((0, 10), (8, 10), (16, 20), (31, 40), (2900, 2560), (3600, 3600), (10**9, 3600)):
            self.assertEqual(queues.retry(seconds), f"post.retry.{step}")
        self.assertEqual(queues.dead, "post.dead")
        self.assertEqual(sorted(STEPS), list(STEPS))


class URLTests(SynchronousTestCase):
    def test_the_first_source_that_has_some(self) -> None:
        path = self.mktemp()
        Path(path).write_text("# nodes\namqp://u:p@one\n\namqps://u:p@two:5671/mail # the other\n")
        self.assertEqual(read_urls([], path, {}), ["amqp://u:p@one", "amqps://u:p@two:5671/mail"])
        environment = {"AMQP_URL": "amqp://three amqp://four"}
        self.assertEqual(read_urls([], None, environment), ["amqp://three", "amqp://four"])
        self.assertEqual(read_urls(["amqp://five"], None, environment), ["amqp://five"])
        self.assertRaises(OSError, read_urls, [], "/nonexistent", {})

    def test_what_is_none(self) -> None:
        error = self.assertRaises(ValueError, read_urls, [], None, {})
        self.assertIn("AMQP_URL", str(error))
        for url in ("localhost", "http://u:s3cret@h", "amqp://", "amqp://u:s3cret@h:x", "amqp://u:s3cret@[h"):
            error = self.assertRaises(ValueError, read_urls, [url], None, {})
            self.assertNotIn("s3cret", str(error))

    def test_no_password_is_shown(self) -> None:
        self.assertEqual(place_of("amqp://u:s3cret@node.example/mail"), "node.example:5672")
        self.assertEqual(place_of("amqps://u:s3cret@[::1]"), "[::1]:5671")


class FolderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.claims = FolderClaims(self.folder)

    def test_a_message_is_kept_until_it_is_deleted(self) -> None:
        claim = self.claims.put("A1", CONTENT)
        self.assertEqual(os.listdir(self.folder), ["A1"])
        self.assertEqual(self.claims.get(claim), CONTENT)
        self.claims.delete(claim)
        self.claims.delete(claim)
        self.assertRaises(OSError, self.claims.get, claim)

    def test_no_claim_leads_out_of_the_folder(self) -> None:
        for claim in ("file:../x", "file:/etc/passwd", "file:a/b", "file:", "x\0", "file:A1\n", "file:" + "A" * 65):
            for method in (self.claims.get, self.claims.delete):
                self.assertRaises(OSError, method, claim)

    def test_where(self) -> None:
        self.assertIsInstance(claim_store(str(self.folder)), FolderClaims)
        self.assertRaises(ValueError, claim_store, "/nonexistent/folder")
        for where in ("s3://", "s3:///prefix", "s3://bucket/?x=y"):
            self.assertRaises(ValueError, claim_store, where)
