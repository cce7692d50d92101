"""ESMTP extensions: which are offered, what their parameters become, and extensions of another package."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any, ClassVar
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import ENVELOPE, Client, Recorder, answering, codes, connect, hooks
from twisted_smtpd.extensions import EXTENSIONS, Extension, FutureRelease
from twisted_smtpd.extensions import ON_REQUEST as EXTENSIONS_ON_REQUEST
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.wire.parameter_values import OriginalRecipient

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "extensions.rst"
ON_REQUEST = ["DELIVERBY", "FUTURERELEASE", "mt-priority", "RRVS"]


def offered(client: Client) -> set[str]:
    """The keywords in the EHLO response."""
    lines = client.send(b"EHLO client.example\r\n").decode().splitlines()
    return {line[4:].split()[0] for line in lines[1:]}


class OfferTests(SynchronousTestCase):
    def test_what_is_offered_unasked(self) -> None:
        expected = {"SIZE", "8BITMIME", "SMTPUTF8", "PIPELINING", "ENHANCEDSTATUSCODES", "HELP"}
        on = expected | {"CHUNKING", "BINARYMIME", "DSN", "LIMITS"}
        self.assertEqual(offered(connect()), on)
        self.assertEqual(offered(connect(disable_extensions=["dsn", "Limits", "CHUNKING"])), expected)
        self.assertEqual(offered(connect(disable_extensions=["BINARYMIME"])), on - {"BINARYMIME"})

    def test_what_is_offered_on_request(self) -> None:
        before = offered(connect())
        self.assertEqual(offered(connect(offer_extensions=ON_REQUEST)) - before, {n.upper() for n in ON_REQUEST})

        class Handler(Recorder):
            option_defaults: ClassVar[dict[str, Any]] = {"offer_extensions": ("MT-PRIORITY",)}

        self.assertEqual(offered(connect(Handler())) - before, {"MT-PRIORITY"})
        asked = hooks(handle_ETRN=answering("250 OK"), handle_EXPN=answering("250 OK"))
        self.assertEqual(offered(connect(asked)) - before, {"ETRN", "EXPN"})

    def test_names_that_mean_nothing(self) -> None:
        for options in ({"offer_extensions": ["FOO"]}, {"disable_extensions": ["PIPELINING"]}):
            self.assertRaises(ValueError, connect, **options)
        for names in ("DSN", b"DSN"):
            self.assertRaises(TypeError, connect, disable_extensions=names)
        self.assertRaises(TypeError, connect, offer_extensions=[42])

    def test_limits_are_the_real_ones(self) -> None:
        """RFC 9422."""
        for options, line in (
            ({}, b"250-LIMITS RCPTMAX=1000\r\n"),
            ({"max_recipients": 3, "command_call_limit": {"MAIL": 7}}, b"250-LIMITS MAILMAX=7 RCPTMAX=3\r\n"),
        ):
            self.assertIn(line, connect(**options).send(b"EHLO x\r\n"))
        # RFC 9422 has six digits at most.
        self.assertNotIn("LIMITS", offered(connect(max_recipients=1_000_000)))

    def test_growth_of_the_line(self) -> None:
        client = connect()
        client.send(b"EHLO x\r\nMAIL FROM:<a@x.example> RET=FULL ENVID=" + b"e" * 100 + b"\r\n")
        line = b"RCPT TO:<b@y.example> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;" + b"o" * 493 + b"\r\n"
        self.assertEqual(codes(client.send(line)), [250])


class ParameterTests(SynchronousTestCase):
    def begin(self, mail: str = "", rcpt: str = "", **options: Any) -> Client:
        client = connect(Recorder(), **options)
        client.send(b"EHLO x\r\n")
        self.said = client.send(f"MAIL FROM:<a@x.example> {mail}\r\nRCPT TO:<b@y.example> {rcpt}\r\n".encode())
        return client

    def test_dsn(self) -> None:
        """RFC 3461: as sent, and typed."""
        client = self.begin("RET=hdrs ENVID=QQ+2B1", "NOTIFY=success,Delay ORCPT=rfc822;Bob+2B@y.example")
        self.assertEqual(codes(self.said), [250, 250])
        envelope = client.protocol.envelope
        (recipient,) = envelope.recipients
        self.assertEqual((envelope.ret, envelope.envelope_id), ("HDRS", "QQ+1"))
        self.assertEqual(recipient.notify, {"SUCCESS", "DELAY"})
        self.assertEqual(recipient.original_recipient, OriginalRecipient("rfc822", "Bob+@y.example"))
        self.assertEqual(recipient.options, ["NOTIFY=success,Delay", "ORCPT=rfc822;Bob+2B@y.example"])

    def test_without_parameters_all_is_none(self) -> None:
        envelope = self.begin().protocol.envelope
        (recipient,) = envelope.recipients
        typed = [envelope.ret, envelope.envelope_id, envelope.priority, envelope.deliver_by, envelope.hold_for]
        typed += [envelope.hold_until, recipient.notify, recipient.original_recipient, recipient.valid_since]
        self.assertEqual(typed, [None] * 9)
        self.assertFalse(envelope.binary or envelope.require_tls)

    def test_dsn_is_checked(self) -> None:
        for mail, rcpt, expected in (
            ("RET=ALL", "", [501, 503]),
            ("RET=FULL RET=FULL", "", [501, 503]),
            ("ENVID=+0A", "", [501, 503]),
            ("", "NOTIFY=NEVER,DELAY", [250, 501]),
            ("", "NOTIFY=NEVER NOTIFY=NEVER", [250, 501]),
            ("", "ORCPT=b@y.example", [250, 501]),
            ("", "RET=FULL", [250, 555]),
            ("NOTIFY=NEVER", "", [555, 503]),
            ("", "ORCPT=utf-8;\u00fc@y.example", [250, 501]),
            ("SMTPUTF8", "ORCPT=utf-8;\u00fc@y.example", [250, 250]),
        ):
            self.begin(mail, rcpt)
            self.assertEqual(codes(self.said), expected, (mail, rcpt))

    def test_a_client_that_has_not_been_offered_dsn(self) -> None:
        """It hears what Postfix would say."""
        self.begin("", "NOTIFY=NEVER", disable_extensions=["DSN"])
        self.assertEqual(self.said, b"250 2.1.0 OK\r\n501 5.7.1 DSN support is disabled\r\n")
        self.begin("RET=FULL", "", disable_extensions=["DSN"], ignore_parameters=["RET"])
        self.assertEqual(codes(self.said), [250, 250])

    def test_the_others(self) -> None:
        options = {"offer_extensions": ON_REQUEST}
        client = self.begin("MT-PRIORITY=-3 BY=120;R HOLDFOR=60", "RRVS=2020-01-01T00:00:00Z;C", **options)
        self.assertEqual(codes(self.said), [250, 250])
        envelope = client.protocol.envelope
        self.assertEqual((envelope.priority, envelope.hold_for), (-3, 60))
        assert envelope.deliver_by is not None
        self.assertEqual((envelope.deliver_by.seconds, envelope.deliver_by.mode), (120, "R"))
        valid_since = envelope.recipients[0].valid_since
        assert valid_since is not None
        self.assertEqual((valid_since.since.year, valid_since.action), (2020, "C"))
        self.begin("MT-PRIORITY=1")
        self.assertEqual(codes(self.said), [555, 503])

    def test_future_release_has_an_end(self) -> None:
        """RFC 4865."""
        options = {"offer_extensions": [FutureRelease(100)]}
        for mail, expected in (
            ("HOLDFOR=100", 250),
            ("HOLDFOR=101", 501),
            ("HOLDUNTIL=2000-01-01T00:00:00Z", 250),
            ("HOLDUNTIL=9999-01-01T00:00:00Z", 501),
            ("HOLDFOR=1 HOLDUNTIL=2000-01-01T00:00:00Z", 501),
        ):
            self.begin(mail, **options)
            self.assertEqual(codes(self.said)[0], expected, mail)
        self.assertRegex(
            connect(**options).send(b"EHLO x\r\n"), rb"250-FUTURERELEASE 100 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\r\n"
        )


class QuestionTests(SynchronousTestCase):
    """VRFY, EXPN and ETRN."""

    def test_expn_and_etrn_are_hooks(self) -> None:
        seen: list[str] = []

        def hook(server: Any, session: Any, envelope: Any, name: str) -> str:
            seen.append(name)
            return "250-one <a@x.example>\n250 two <b@x.example>"

        client = connect(hooks(handle_EXPN=hook, handle_ETRN=hook))
        client.send(b"EHLO x\r\n")
        self.assertEqual(
            codes(client.send(b"EXPN staff\r\nETRN @example.com\r\nEXPN\r\nETRN\r\n")), [250, 250, 501, 501]
        )
        self.assertEqual(seen, ["staff", "@example.com"])

    def test_without_hooks(self) -> None:
        self.assertEqual(codes(connect().send(b"EHLO x\r\nEXPN staff\r\nETRN example.com\r\n")), [250, 502, 500])

    def test_utf8_only_where_the_command_asks_for_it(self) -> None:
        """RFC 6531 section 3.7.4.2."""
        client = connect(hooks(handle_VRFY=answering("250 J\u00f6rg"), handle_EXPN=answering("250 J\u00f6rg")))
        client.send(b"EHLO x\r\n")
        for verb in (b"VRFY", b"EXPN"):
            self.assertEqual(client.send(verb + b" joe\r\n"), b"250 2.0.0 J?rg\r\n")
            self.assertEqual(client.send(verb + b" joe SMTPUTF8\r\n"), "250 2.0.0 J\u00f6rg\r\n".encode())
            self.assertEqual(client.send(verb + b" joe\r\n"), b"250 2.0.0 J?rg\r\n")
            self.assertEqual(codes(client.send(verb + " j\u00f6rg\r\n".encode())), [553])
            self.assertEqual(codes(client.send(verb + " j\u00f6rg SMTPUTF8\r\n".encode())), [250])


class Tag(Extension):
    """Adds a parameter, for the tests below."""

    name = "XTAG"
    mail_parameters: ClassVar[Any] = {"XTAG": lambda server, value: None}

    def keyword(self, server: Any) -> str:
        return "XTAG"


a_tag = Tag()


class OwnTests(SynchronousTestCase):
    def test_an_extension_by_its_path(self) -> None:
        for path in ("Tag", "a_tag"):
            client = connect(Recorder(), offer_extensions=[f"{__name__}.{path}", "RRVS"])
            self.assertIn("XTAG", offered(client))
            self.assertEqual(codes(client.send(b"MAIL FROM:<a@x.example> XTAG=1\r\n")), [250])

    def test_a_path_that_leads_nowhere(self) -> None:
        for path in ("no.such.Module", f"{__name__}.Nothing", ".Tag", "Tag."):
            self.assertRaisesRegex(ValueError, "^offer_extensions", connect, offer_extensions=[path])
        self.assertRaises(TypeError, connect, offer_extensions=[f"{__name__}.PAGE"])

    def test_an_extension_of_another_package(self) -> None:
        class Ping(Extension):
            name = "XPING"
            optional = True

            def keyword(self, server: Any) -> str:
                return "XPING"

            async def ping(self, argument: str | None) -> None:
                connection: Any = self
                await connection.push(f"250 pong {argument}")

            commands: ClassVar[Any] = {"XPING": ping}
            mail_parameters: ClassVar[Any] = {"XTAG": lambda server, value: None}

        for client in (
            connect(Recorder(), offer_extensions=[Ping()]),
            connect(Recorder(), type("Mine", (SMTP,), {"extensions": (*EXTENSIONS, Ping())})),
        ):
            self.assertIn("XPING", offered(client))
            self.assertEqual(client.send(b"XPING x\r\n"), b"250 2.0.0 pong x\r\n")
            self.assertEqual(codes(client.send(b"MAIL FROM:<a@x.example> XTAG=1\r\n")), [250])
        client = connect(Recorder(), offer_extensions=[Ping()], disable_extensions=["xping"])
        self.assertNotIn("XPING", offered(client))
        said = client.send(b"XPING x\r\nMAIL FROM:<a@x.example> XTAG=1\r\n")
        self.assertEqual(codes(said), [500, 555])

    @skipUnless(PAGE.is_file(), "the documentation is not installed")
    def test_the_table_on_the_page_has_every_extension(self) -> None:
        rows = re.findall(
            r"^   \* - (\S.*)\n     - (.*)\n     - (.*)$", PAGE.read_text().partition("Other servers")[0], re.M
        )
        offered = {name: where for names, _, where in rows for name in names.split(", ")}
        known = {extension.name: extension for extension in (*EXTENSIONS, *EXTENSIONS_ON_REQUEST.values())}
        self.assertEqual(set(offered) - {"keyword"}, set(known))
        unasked = connect().send(b"EHLO x\r\n").decode()
        for name, where in offered.items():
            if where in ("yes", "no"):
                self.assertEqual(f"-{name}" in unasked, where == "yes", name)

    @skipUnless(PAGE.is_file(), "the documentation is not installed")
    def test_the_example_on_the_page(self) -> None:
        failed, tried = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
        self.assertEqual(failed, 0)
        self.assertGreater(tried, 5)

    def test_lmtp_has_them_too(self) -> None:
        client = connect(Recorder(), LMTP)
        said = client.send(ENVELOPE.replace(b"EHLO", b"LHLO"))
        for keyword in (b"CHUNKING", b"BINARYMIME", b"DSN", b"LIMITS RCPTMAX=1000"):
            self.assertIn(b"250-" + keyword + b"\r\n", said)
