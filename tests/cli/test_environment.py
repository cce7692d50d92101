"""Tests for :mod:`twisted_smtpd.cli.environment`."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.command_line import CommandLine
from twisted_smtpd.cli.environment import from_environment
from twisted_smtpd.options.command import SETTINGS


class EnvironmentTests(CommandLine):
    def given(self, **variables: str) -> None:
        self.patch(os, "environ", {f"TWISTED_SMTPD_{name}": text for name, text in variables.items()})

    def test_each_option_has_a_variable(self) -> None:
        for key, option in SETTINGS.items():
            text = "true" if option.switch else "1"
            if option.in_file or key == "config":
                self.assertEqual(list(from_environment({f"TWISTED_SMTPD_{key.upper()}": text})), [key])

    def test_values(self) -> None:
        self.given(
            MAX_ERRORS="5", LISTEN="127.0.0.1:1 [::1]:2", LMTP="yes", ENABLE_SMTPUTF8="0", IDENT="", HANDLER="sink"
        )
        options = self.parse()
        self.assertEqual((options["max-errors"], options["lmtp"], options["ident"]), (5, 1, None))
        self.assertEqual([listener.name for listener in options.listeners], ["127.0.0.1:1", "[::1]:2"])
        self.assertIs(options.server_options()["enable_SMTPUTF8"], False)

    def test_a_handler_has_words_as_in_a_shell(self) -> None:
        folder = f"{self.mktemp()} of mine"
        self.given(HANDLER=f"mailbox '{folder}'")
        self.assertEqual(self.parse().handler.mail_dir, folder)  # type: ignore[attr-defined]

    def test_a_configuration_file(self) -> None:
        file = Path(self.mktemp())
        file.write_text("max_errors = 4\n")
        self.given(CONFIG=str(file))
        self.assertEqual(self.parse()["max-errors"], 4)

    def test_a_value_in_a_file(self) -> None:
        file = Path(self.mktemp())
        file.write_text("sink\n")
        self.given(HANDLER_FILE=str(file))
        self.assertEqual(type(self.parse().handler).__name__, "Sink")

    def test_what_kubernetes_injects_is_passed_over(self) -> None:
        self.given(
            PORT="tcp://10.0.0.1:25",
            PORT_25_TCP="tcp://10.0.0.1:25",
            PORT_25_TCP_ADDR="10.0.0.1",
            SERVICE_HOST="10.0.0.1",
            SERVICE_PORT="25",
            SERVICE_PORT_SMTP="25",
            MX_PORT="tcp://10.0.0.1:25",
            MX_SERVICE_HOST="10.0.0.1",
        )
        self.parse()

    def test_errors_name_the_variable(self) -> None:
        for name, text, error in (
            ("MAX_ERORS", "1", "TWISTED_SMTPD_MAX_ERORS is no option: did you mean TWISTED_SMTPD_MAX_ERRORS?"),
            ("NO_SMTPUTF8", "1", "write TWISTED_SMTPD_ENABLE_SMTPUTF8=false"),
            ("PORT", "25", "TWISTED_SMTPD_PORT is no option"),
            ("CHECK", "1", "TWISTED_SMTPD_CHECK is no option"),
            ("MAX_ERRORS", "x", "TWISTED_SMTPD_MAX_ERRORS: 'x' is not a whole number"),
            ("LMTP", "perhaps", "TWISTED_SMTPD_LMTP is true or false, not 'perhaps'"),
            ("LISTEN", "'", "TWISTED_SMTPD_LISTEN: a quotation mark"),
            ("HANDLER", "nonesuch", "TWISTED_SMTPD_HANDLER: there is no handler"),
            ("HANDLER_FILE", "/nonesuch", "TWISTED_SMTPD_HANDLER_FILE: /nonesuch: No such file"),
        ):
            self.given(**{name: text})
            self.assertIn(error, self.refused(), name)
