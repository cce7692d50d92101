"""A front end and a consumer with a real RabbitMQ between them, which is killed in between."""

from __future__ import annotations

import atexit
import mailbox
import re
import smtplib
import subprocess
from typing import ClassVar

from tests.loopback.servers import LIMIT, MODULE, ServerCase
from tests.support.rabbitmq import Node, free_port

SENDER, RECIPIENT = "anne@example.com", "bart@example.com"


class BrokerTests(ServerCase):
    node: ClassVar[Node | None] = None

    def setUp(self) -> None:
        super().setUp()
        if BrokerTests.node is None:
            node = Node(0, self.folder, free_port())
            node.start()
            BrokerTests.node = node
            # trial knows no end of a class.
            atexit.register(node.end)
        self.node_of_all = BrokerTests.node
        # A queue of its own for each test.
        self.queue = re.sub(r"\W", "", self.id().rpartition(".")[2])
        self.environment["AMQP_URL"] = self.node_of_all.url

    def front(self, *words: str) -> tuple[subprocess.Popen[str], int]:
        return self.serve(MODULE, "-c", "amqp", "--", "--queue", self.queue, *words)

    def consumer(self, *words: str) -> subprocess.Popen[str]:
        options = ["--queue", self.queue, "--retry", "1", *(words or ("-c", "mailbox", "Maildir"))]
        consumer = self.start(MODULE, "consume", *options)
        self.read_until(consumer, " go to the handler ")
        return consumer

    def send_numbers(self, port: int, *numbers: int) -> list[int]:
        """The codes that a client hears for some messages."""
        codes = []
        for number in numbers:
            with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=LIMIT) as client:
                client.ehlo()
                client.mail(SENDER)
                client.rcpt(RECIPIENT)
                codes.append(client.data(f"Subject: {number}\r\n\r\nhello\r\n")[0])
        return codes

    def wait_for(self, consumer: subprocess.Popen[str], *numbers: int) -> None:
        """Wait until some messages have arrived."""
        wanted = set(map(str, numbers))
        while wanted - set(self.subjects()):
            self.read_until(consumer, " delivered ")

    def subjects(self) -> list[str]:
        folder = self.folder / "Maildir"
        return [one["Subject"] for one in mailbox.Maildir(folder, create=False)] if folder.is_dir() else []

    def test_messages_wait_for_a_consumer(self) -> None:
        _, port = self.front()
        self.assertEqual(self.send_numbers(port, 1, 2, 3), [250] * 3)
        self.wait_for(self.consumer(), 1, 2, 3)
        self.assertEqual(sorted(self.subjects()), ["1", "2", "3"])

    def test_a_consumer_that_is_killed_loses_nothing(self) -> None:
        (self.folder / "slow.py").write_text(
            "import asyncio\n\nclass Slow:\n    async def handle_DATA(self, server, session, envelope):\n"
            "        print('has it', flush=True)\n        await asyncio.sleep(600)\n"
        )
        _, port = self.front()
        slow = self.consumer("-c", "slow.Slow")
        self.assertEqual(self.send_numbers(port, 1), [250])
        self.read_until(slow, "has it")
        slow.kill()
        slow.wait(LIMIT)
        self.wait_for(self.consumer(), 1)

    def test_the_broker_is_killed_in_between(self) -> None:
        front, port = self.front("--timeout", "20")
        consumer = self.consumer()
        self.assertEqual(self.send_numbers(port, 1), [250])
        self.wait_for(consumer, 1)
        self.node_of_all.kill()
        self.read_until(front, "the connection to the broker at")
        self.assertEqual(self.send_numbers(port, 2), [451])
        self.node_of_all.start()
        self.read_until(consumer, "connected to the broker")
        self.assertEqual(self.send_numbers(port, 3), [250])
        self.wait_for(consumer, 3)
        self.assertEqual(set(self.subjects()) - {"2"}, {"1", "3"})

    def test_what_is_refused_for_now_comes_again(self) -> None:
        (self.folder / "twice.py").write_text(
            "class Twice:\n    tries = 0\n\n    async def handle_DATA(self, server, session, envelope):\n"
            "        self.tries += 1\n        return '451 later' if self.tries == 1 else '250 OK'\n"
        )
        _, port = self.front()
        consumer = self.consumer("-c", "twice.Twice")
        self.assertEqual(self.send_numbers(port, 1), [250])
        self.read_until(consumer, " deferred ")
        self.read_until(consumer, " delivered ")

    def test_a_large_message_goes_through_a_folder(self) -> None:
        claims = self.folder / "large"
        claims.mkdir()
        words = ("--claims", str(claims), "--max-body", "1000")
        _, port = self.front(*words)
        with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=LIMIT) as client:
            client.sendmail(SENDER, [RECIPIENT], f"Subject: 9\r\n\r\n{'x' * 900}\r\n{'y' * 900}\r\n")
        self.assertEqual(len(list(claims.iterdir())), 1)
        consumer = self.consumer(*words, "-c", "mailbox", "Maildir")
        self.wait_for(consumer, 9)
        self.end(consumer)
        self.assertEqual(list(claims.iterdir()), [])

    def test_a_signal_ends_a_consumer(self) -> None:
        consumer = self.consumer()
        self.end(consumer)
        self.assertEqual(consumer.returncode, 0)

    def test_what_can_not_be_used_is_one_line(self) -> None:
        self.environment["AMQP_URL"] = "amqp://u:s3cret@127.0.0.1:1/"
        status, out, err = self.run_out(MODULE, "consume", "-c", "sink")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("127.0.0.1:1", err.splitlines()[-1])
        self.assertNotIn("s3cret", err)
        del self.environment["AMQP_URL"]
        for words in (("-c", "sink"), ("amqp://localhost",), ("amqp://localhost", "-c", "nonesuch")):
            status, out, err = self.run_out(MODULE, "consume", *words)
            self.assertEqual((status, out, err.count("\n")), (64, "", 1), err)
