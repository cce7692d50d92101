"""Messages as a test sees them: body, attachments, links, one-time codes; and what comes of broken ones."""

from __future__ import annotations

from email.message import EmailMessage

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.session import Recipient
from twisted_smtpd.store import MemoryStore, NewMessage, SessionFacts
from twisted_smtpd.store.finding import find_codes, find_links
from twisted_smtpd.testing.messages import ReceivedMessage
from twisted_smtpd.testing.transcript import MAX_LINES, Transcript


def received(content: bytes, mail_from: str = "anne@example.com") -> ReceivedMessage:
    new = NewMessage(content, mail_from, ("SIZE=1",), (Recipient("b@y.example", ["NOTIFY=NEVER"]),), SessionFacts("1"))
    return ReceivedMessage.of(MemoryStore().add(new), lambda: "the dialog")


class MessageTests(SynchronousTestCase):
    def test_a_message_of_several_parts(self) -> None:
        made = EmailMessage()
        made["Subject"] = "Grüße"
        made.set_content("Plain text\n")
        made.add_alternative("<p>See <a href='https://x.example/?a=1&amp;b=2'>here</a></p>", subtype="html")
        made.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="bill.pdf")
        message = received(made.as_bytes())
        self.assertEqual((message["Subject"], message.text), ("Grüße", "Plain text\n"))
        self.assertIn("<p>See", message.html)
        ((name, kind, content),) = [
            (part.get_filename(), part.get_content_type(), part.get_content()) for part in message.attachments
        ]
        self.assertEqual((name, kind, content), ("bill.pdf", "application/pdf", b"%PDF"))
        self.assertEqual(message.links(), ["https://x.example/?a=1&b=2"])
        self.assertEqual(message.links("y.example"), [])
        self.assertNotIsInstance(message.attachments[0], ReceivedMessage)

    def test_the_envelope_is_not_the_headers(self) -> None:
        message = received(b"To: c@z.example\r\n\r\n", mail_from="")
        envelope = message.envelope
        self.assertEqual((message.mail_from, envelope.null_sender, message.rcpt_tos), ("", True, ["b@y.example"]))
        self.assertEqual((envelope.mail_options, envelope.rcpt_options), (["SIZE=1"], ["NOTIFY=NEVER"]))
        self.assertEqual((message.dialog, envelope.content), ("the dialog", message.raw))

    def test_what_programs_get_wrong_can_be_looked_at_all_the_same(self) -> None:
        for content, text in (
            (b"", ""),
            (b"Content-Type: text/plain; charset=nonesuch\r\n\r\ncaf\xc3\xa9", "café"),
            (b"Content-Type: text/plain; charset=ascii\r\n\r\ncaf\xe9", "caf�"),
            (b"Content-Transfer-Encoding: base64\r\n\r\n!!!", ""),
            (b"Content-Type: multipart/mixed\r\n\r\nno parts", ""),
            (b"Content-Type: ;;;\r\nSubject: =?x?\r\n\r\nx", "x"),
            (b"\x00\xff\r\n\r\nx", None),
        ):
            message = received(content)
            if text is not None:
                self.assertEqual(message.text, text, content)
            self.assertEqual((message.attachments, message.links(), message.raw), ([], [], content))


class LinkTests(SynchronousTestCase):
    def test_links_in_a_text_end_before_the_punctuation(self) -> None:
        for text, link in (
            ("See https://x.example/a.", "https://x.example/a"),
            ("(https://x.example/a)", "https://x.example/a"),
            ("https://x.example/a_(b)?", "https://x.example/a_(b)"),
            ("<https://x.example/a?b=c&d=%20>", "https://x.example/a?b=c&d=%20"),
            ("*HTTPS://X.example/*", "HTTPS://X.example/"),
        ):
            self.assertEqual(find_links("", text), [link], text)

    def test_each_link_is_there_once_and_others_than_of_the_web_are_not(self) -> None:
        html = "<a href='mailto:a@b'>x</a><A HREF=' http://x.example/1 '>y</A><a href>z</a><a href='/local'>l</a>"
        self.assertEqual(
            find_links(html, "http://x.example/1 http://x.example/2"), [f"http://x.example/{n}" for n in "12"]
        )


class CodeTests(SynchronousTestCase):
    def test_codes(self) -> None:
        for text, expected in (
            ("Your code is 123456.", ["123456"]),
            ("123 456 is your code", ["123456"]),
            ("Code: 123-456", ["123456"]),
            ("Your code: 4711", ["4711"]),
            ("Use the token X7K-9QP to sign in", ["X7K-9QP"]),
            ("PIN A1B2C3", ["A1B2C3"]),
            ("Copyright 2024, order #123456, https://x.example/123456, +49-123-456789", []),
            ("In 2024 your code was 2025", ["2025"]),
            ("Call 555555 or use the code 987654 now", ["987654", "555555"]),
            ("1.2345 and 12345-ab and a12345", []),
        ):
            self.assertEqual(find_codes(text), expected, text)

    def test_codes_in_html_are_those_that_people_see(self) -> None:
        html = b"<style>p{margin:123456}</style><p>Your code:</p><b>654321</b><script>111111</script>"
        message = received(b"Content-Type: text/html\r\n\r\n" + html)
        self.assertEqual((message.codes(), message.codes(length=4)), (["654321"], []))


class HostileTests(SynchronousTestCase):
    """Seen: an error where a charset was no charset, and minutes for comments that don't end."""

    def test_charsets_that_are_none(self) -> None:
        for charset in (b"idna", b"undefined", b"rot13", b"zlib", b'"a\x00b"', b"nonesuch"):
            message = received(b"Content-Type: text/plain; charset=" + charset + b"\r\n\r\nhi\r\n")
            self.assertEqual(message.text, "hi\n", charset)

    def test_html_that_does_not_end(self) -> None:
        number = 20_000
        for part in ("<!--", "<!x", "<a ", "<a href='", '<a b="', "</", "<script>", "<![CDATA["):
            html = f"<a href='https://x.example/'>hi</a>{part * number}"
            self.assertEqual(find_links(html, ""), ["https://x.example/"], part)

    def test_links_of_punctuation(self) -> None:
        number = 100_000
        text = f"https://x.example/{'(' * number}{')' * number}{').' * number}"
        self.assertEqual(find_links("", text), [f"https://x.example/{'(' * number}{')' * number}"])

    def test_tags_in_scripts_are_text_of_the_script(self) -> None:
        script = "<script>'<title>' + '<a href=https://y.example/>'</script>"
        html = f"{script}<a href=https://x.example/?a&amp;b>code 123456</a>"
        message = received(b"Content-Type: text/html\r\n\r\n" + html.encode())
        self.assertEqual((message.links(), message.codes()), (["https://x.example/?a&b"], ["123456"]))


class TranscriptTests(SynchronousTestCase):
    def test_controls_are_shown_and_not_sent_to_the_terminal(self) -> None:
        transcript = Transcript()
        transcript.client("NOOP \x1b[31m\x00\x85")
        transcript.server(b"250-a\xff\r\n250 b\r\n")
        self.assertEqual(transcript.lines, (r"C: NOOP \x1b[31m\x00\x85", r"S: 250-a\xff", "S: 250 b"))

    def test_it_does_not_grow_without_end(self) -> None:
        transcript = Transcript()
        for _ in range(MAX_LINES + 3):
            transcript.client("x" * 10_000)
        self.assertEqual((len(transcript.lines), transcript.lines[-1]), (MAX_LINES + 1, "-- 3 more lines"))
        self.assertLess(len(str(transcript)), MAX_LINES * 600)
