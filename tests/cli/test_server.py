"""Tests for :mod:`twisted_smtpd.cli.server`: the options that are rows of the table."""

from __future__ import annotations

from tests.support.command_line import CommandLine
from twisted_smtpd.cli.server import LIMITS, named_by_flag
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.handlers import Sink
from twisted_smtpd.options.reference import default_text, flag_text
from twisted_smtpd.options.table import DEFAULTS, TABLE


class LimitTests(CommandLine):
    def test_each_limit_is_an_option_of_the_server(self) -> None:
        for limit in LIMITS:
            self.assertIn(limit.keyword, DEFAULTS)
            default = DEFAULTS[limit.keyword]  # type: ignore[literal-required]
            self.assertTrue(default is None or limit.low <= default <= limit.high, limit)

    def test_no_limit_of_the_server_lacks_an_option(self) -> None:
        limits = {name for name, option in TABLE.items() if option.unit} - {"proxy_protocol_timeout"}
        self.assertEqual(limits - {limit.keyword for limit in LIMITS}, set())

    def test_bounds_are_inclusive_and_the_server_takes_them(self) -> None:
        for limit in LIMITS:
            for value in (limit.low, limit.high):
                options = self.parse(f"--{limit.option}={value}")
                self.assertEqual(options.server_options()[limit.keyword], value)
                SMTPFactory(Sink(), **options.server_options())

    def test_out_of_bounds_names_option_and_value(self) -> None:
        self.assertIn("--max-errors: '0' is not between 1 and 1,000,000", self.refused("--max-errors", "0"))
        self.assertIn("--timeout: '86401' is not between", self.refused("--timeout=86401"))
        self.assertIn("--grace: '3601' is not between", self.refused("--grace=3601"))

    def test_no_limit_on_lines_is_below_what_every_line_may_have(self) -> None:
        for text in ("1", "999"):
            self.assertIn("--line-length-limit: ", self.refused("--line-length-limit", text))
        for text, value in (("0", 0), ("1000", 1000)):
            options = self.parse("--line-length-limit", text)
            self.assertEqual(options.server_options()["line_length_limit"], value)

    def test_malformed_names_option_and_value(self) -> None:
        self.assertIn("--size: '10X' is not a size", self.refused("-s", "10X"))
        self.assertIn("--max-recipients: 'many' is not a whole number", self.refused("--max-recipients", "many"))

    def test_help_shows_the_server_s_defaults(self) -> None:
        text = " ".join(self.shown("--help").split())
        self.assertIn("any size. [default: 32M]", text)
        self.assertIn("silent. [default: 300]", text)
        self.assertIn("[default: no limit]", text)


class ServerOptionTests(CommandLine):
    def test_names_are_taken_apart(self) -> None:
        """Taken letter by letter, no name would be known."""
        for flag, names in (
            ("offer-extensions", ["RRVS", "DELIVERBY"]),
            ("disable-extensions", ["DSN", "CHUNKING"]),
            ("ignore-parameters", ["FOO", "BAR"]),
        ):
            options = self.parse(f"--{flag}={','.join(names)}").server_options()
            self.assertEqual(list(options[flag.replace("-", "_")]), names)  # type: ignore[literal-required]
            SMTPFactory(Sink(), **options)

    def test_defaults_are_the_server_s_own(self) -> None:
        for name, value in self.parse().server_options().items():
            self.assertEqual(value, DEFAULTS[name])  # type: ignore[literal-required]

    def test_each_reaches_the_server(self) -> None:
        words = ("--hostname=mx.example.com", "--ident=Mail", "--bare-newline=reject", "--no-smtputf8", "--decode-data")
        expected = {
            "hostname": "mx.example.com",
            "ident": "Mail",
            "bare_newline": "reject",
            "enable_SMTPUTF8": False,
            "decode_data": True,
            "enhanced_status_codes": False,
        }
        self.assertEqual(self.parse(*words, "--no-enhanced-status-codes").server_options(), expected)

    def test_aiosmtpd_s_smtputf8_is_accepted(self) -> None:
        self.assertIs(self.parse("-u").server_options()["enable_SMTPUTF8"], True)
        self.assertIn("contradict", self.refused("-u", "--no-smtputf8"))

    def test_nothing_is_smuggled_into_replies(self) -> None:
        for name in ("", "a b", "a\r\nb", "a\0b", "é", "x" * 256):
            self.assertIn("--hostname", self.refused(f"--hostname={name}"))
        for text in ("", "a\r\nb", "a\x1bb", "é", "x" * 401):
            self.assertIn("--ident", self.refused(f"--ident={text}"))

    def test_bare_newline_is_one_of_two(self) -> None:
        self.assertIn("--bare-newline: 'keep'", self.refused("--bare-newline", "keep"))

    def test_each_row_of_the_table_with_a_flag_is_in_the_help(self) -> None:
        text = " ".join(self.shown("--help").split())
        for option in TABLE.values():
            if option.flag:
                self.assertRegex(text, rf"--{option.flag}[= ]")
                self.assertIn(flag_text(option), text)
                if option.unit:
                    self.assertIn(f"{flag_text(option)} [default: {default_text(option)}]", text)

    def test_an_error_of_the_constructor_names_the_option(self) -> None:
        self.assertEqual(named_by_flag("data_size_limit must be"), "--size must be")
        self.assertEqual(named_by_flag("authenticator: no"), "authenticator: no")
        self.assertEqual(named_by_flag("(none)"), "(none)")
