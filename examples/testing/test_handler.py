"""A handler's test: no socket, no thread, and a clock that the test turns.  Run it with pytest."""

from twisted_smtpd.testing import deliver, talk


class Handler:
    """What is to be tested."""

    def __init__(self):
        self.subjects = []

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if not address.endswith("@example.com"):
            return "550 5.7.1 Not one of us"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.subjects.append(envelope.content.partition(b"\r\n")[0].decode())
        return "250 Kept"


def test_a_message():
    handler = Handler()
    replies = deliver(handler, "Subject: Hello\n\nHello\n", rcpt_tos=["bart@example.com", "carl@elsewhere.example"])
    assert replies.rcpt == {
        "bart@example.com": "250 2.1.5 OK",
        "carl@elsewhere.example": "550 5.7.1 Not one of us",
    }
    assert replies.data == ("250 2.0.0 Kept",)
    assert handler.subjects == ["Subject: Hello"]


def test_a_dialog():
    # A str is lines, each of which arrives by itself; bytes are one segment.
    dialog = talk(Handler(), ["HELO client.example", b"MAIL FROM:<anne@example.com>\r\nRCPT TO:<x@y.exa", b"mple>\r\n"])
    assert dialog.splitlines()[-3:] == [
        "S: 250 2.1.0 OK",
        "C: mple>",
        "S: 550 5.7.1 Not one of us",
    ]
