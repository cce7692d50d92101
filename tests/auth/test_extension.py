"""``AUTH=`` on MAIL, and other parameters that clients send unasked."""

from __future__ import annotations

from typing import Any

from tests.support.auth_helpers import REJECTED, RIGHT, WRONG, AuthCase, authenticator, dial
from tests.support.command_line import CommandLine
from tests.support.fakes import EHLO, Client, codes, connect, hooks
from twisted_smtpd.handlers import Chain, Sink
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.tap import makeService

# KMail, curl and Jakarta Mail say the first two.
MALFORMED = ("=joe", "=<joe>", "", "=", "=anne@", "=+ZZ", "=a+0D+0A@x.example", "=<>x")


class UntrustedSubmitterTests(AuthCase):
    """Seen: 501 for a client whose word isn't taken anyway, and 555 where AUTH isn't offered."""

    def test_what_a_client_says_that_has_not_signed_in_is_as_if_empty(self) -> None:
        for value in (*MALFORMED, "=<>", "=anne@x.example"):
            client = dial()
            said = client.send(f"MAIL FROM:<a@x.example> AUTH{value}\r\n".encode())
            self.assertEqual((codes(said), client.protocol.envelope.submitter), ([250], ""), value)

    def test_so_it_is_after_a_wrong_password(self) -> None:
        client = dial()
        self.assertEqual(client.send(b"AUTH PLAIN %b\r\n" % WRONG), REJECTED)
        self.assertEqual(codes(client.send(b"MAIL FROM:<a@x.example> AUTH=joe\r\n")), [250])
        self.assertEqual(client.protocol.envelope.submitter, "")

    def test_the_word_of_a_client_that_has_signed_in_has_to_be_a_mailbox(self) -> None:
        for value in MALFORMED:
            client = dial()
            client.send(b"AUTH PLAIN %b\r\n" % RIGHT)
            self.assertEqual(codes(client.send(f"MAIL FROM:<a@x.example> AUTH{value}\r\n".encode())), [501], value)

    def test_it_is_ignored_where_auth_is_not_offered(self) -> None:
        for protocol, greeting in ((None, EHLO), (LMTP, b"LHLO client.example\r\n")):
            for value in (*MALFORMED, "=<>"):
                client = connect(**({} if protocol is None else {"protocol": protocol}))
                client.send(greeting)
                said = client.send(f"MAIL FROM:<a@x.example> SIZE=9 AUTH{value}\r\n".encode())
                envelope = client.protocol.envelope
                self.assertEqual(codes(said), [250], value)
                self.assertEqual((envelope.mail_options, envelope.mail_parameters), (["SIZE=9"], {"SIZE": "9"}))
                self.assertIsNone(envelope.submitter)

    def test_not_on_rcpt(self) -> None:
        client = connect()
        said = client.send(EHLO + b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example> AUTH=<>\r\n")
        self.assertEqual(codes(said)[-1], 555)

    def test_nor_after_helo(self) -> None:
        said = connect().send(b"HELO x\r\nMAIL FROM:<a@x.example> AUTH=<>\r\n")
        self.assertEqual(codes(said), [250, 555])


class IgnoredTests(AuthCase):
    """``ignore_parameters``."""

    def session(self, sent: bytes, handler: Any = None, **options: Any) -> Client:
        client = connect(handler, ignore_parameters=["x-trace", "SOLICIT"], **options)
        self.said = codes(client.send(EHLO + sent))[1:]
        return client

    def test_they_are_taken_and_not_shown(self) -> None:
        seen: list[Any] = []

        def handle_MAIL(server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
            seen.append(options)
            envelope.mail_from = address
            envelope.mail_options.extend(options)
            return "250 OK"

        def handle_RCPT(server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
            seen.append(options)
            envelope.rcpt_tos.append(address)
            return "250 OK"

        for handler in (None, hooks(handle_MAIL=handle_MAIL, handle_RCPT=handle_RCPT)):
            client = self.session(
                b"MAIL FROM:<a@x.example> X-Trace=1 BODY=8BITMIME SOLICIT\r\nRCPT TO:<b@y.example> x-TRACE=2\r\n",
                handler,
            )
            envelope = client.protocol.envelope
            self.assertEqual(self.said, [250, 250])
            self.assertEqual(
                (envelope.mail_options, envelope.mail_parameters), (["BODY=8BITMIME"], {"BODY": "8BITMIME"})
            )
            self.assertEqual((envelope.recipients[0].options, envelope.recipients[0].parameters), ([], {}))
        self.assertEqual(seen, [["BODY=8BITMIME"], []])

    def test_others_are_refused(self) -> None:
        self.session(b"MAIL FROM:<a@x.example> X-TRACE=1 X-OTHER=1\r\nMAIL FROM:<a@x.example> X-TRACES=1\r\n")
        self.assertEqual(self.said, [555, 555])

    def test_they_have_to_be_well_formed_all_the_same(self) -> None:
        self.session(b"MAIL FROM:<a@x.example> X-TRACE=1 X-TRACE=2\r\nMAIL FROM:<a@x.example> X-TRACE==\x01\r\n")
        self.assertEqual(self.said, [501, 500])

    def test_what_the_server_knows_is_not_ignored(self) -> None:
        client = connect(ignore_parameters=["SIZE", "REQUIRETLS", "BODY"], data_size_limit=100)
        client.send(EHLO)
        for parameter, code in ((b"SIZE=101", 552), (b"REQUIRETLS", 555), (b"BODY=NONSENSE", 501)):
            self.assertEqual(codes(client.send(b"MAIL FROM:<a@x.example> %b\r\n" % parameter)), [code], parameter)
        client = dial(ignore_parameters=["AUTH"], authenticator=authenticator)
        client.send(b"AUTH PLAIN %b\r\n" % RIGHT)
        client.send(b"MAIL FROM:<a@x.example> AUTH=anne@x.example\r\n")
        self.assertEqual(client.protocol.envelope.submitter, "anne@x.example")

    def test_a_single_name_is_no_collection(self) -> None:
        for value in ("X-TRACE", b"X-TRACE"):
            error = self.assertRaises(TypeError, connect, ignore_parameters=value)
            self.assertIn("ignore_parameters is a collection of names", str(error))

    def test_in_a_chain_too(self) -> None:
        self.session(b"MAIL FROM:<a@x.example> X-TRACE=1\r\n", Chain(Sink()))
        self.assertEqual(self.said, [250])


class CommandLineTests(CommandLine):
    def test_names_have_commas_or_blanks_between_them(self) -> None:
        for text in ("X-TRACE,solicit", "X-TRACE solicit", " X-TRACE, solicit,"):
            values = makeService(self.parse(f"--ignore-parameters={text}")).factory.settings.values
            self.assertEqual(values["ignore_parameters"], ("X-TRACE", "solicit"))
        self.assertIsNone(makeService(self.parse()).factory.settings.values["ignore_parameters"])
