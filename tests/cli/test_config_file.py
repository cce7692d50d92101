"""Tests for :mod:`twisted_smtpd.cli.config_file`, and for several listeners in one process."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

from tests.support.command_line import CommandLine
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.options.command import SETTINGS
from twisted_smtpd.service import ServersService
from twisted_smtpd.tap import makeService

TWO = """
max_connections = 500
max_errors = 5

[[listener]]
listen = ["127.0.0.1:25", "127.0.0.2:25"]
handler = ["sink"]
size = "1M"

[[listener]]
listen = ["unix:/run/lmtp"]
lmtp = true
max_errors = 7
"""


class ConfigurationCase(CommandLine):
    def setUp(self) -> None:
        self.file = Path(self.mktemp())

    def write(self, text: str) -> str:
        self.file.write_text(text, encoding="utf-8")
        return f"--config={self.file}"

    def says(self, text: str) -> str:
        """The line that a wrong file gets, without the name of the file."""
        line = self.refused(self.write(text))
        name = os.path.basename(self.file)
        self.assertIn(name, line)
        return line.partition(name)[2]


class FileTests(ConfigurationCase):
    def test_each_option_can_stand_in_it(self) -> None:
        options = self.parse(self.write('max_errors = 5\nsize = "3M"\ntimeout = 0.5\nlisten = ["127.0.0.1:1"]\n'))
        self.assertEqual((options["max-errors"], options["size"], options["timeout"]), (5, 3 * 2**20, 0.5))
        self.assertEqual([listener.name for listener in options.listeners], ["127.0.0.1:1"])

    def test_a_truth_value_is_named_for_what_it_is(self) -> None:
        text = "enhanced_status_codes = false\nenable_smtputf8 = true\ndecode_data = true\n"
        values = self.parse(self.write(text)).server_options()
        self.assertEqual(values, {"enhanced_status_codes": False, "enable_SMTPUTF8": True, "decode_data": True})

    def test_the_handler_is_a_list_with_its_arguments(self) -> None:
        folder = self.mktemp()
        options = self.parse(self.write(f'handler = ["mailbox", "{folder}"]\n'))
        self.assertEqual(options.handler.mail_dir, folder)  # type: ignore[attr-defined]

    def test_the_command_line_goes_before_the_environment_and_both_before_the_file(self) -> None:
        config = self.write("max_errors = 1\nmax_recipients = 1\ntimeout = 1\n")
        self.patch(os, "environ", {"TWISTED_SMTPD_MAX_RECIPIENTS": "2", "TWISTED_SMTPD_TIMEOUT": "2"})
        options = self.parse(config, "--timeout=3")
        self.assertEqual((options["max-errors"], options["max-recipients"], options["timeout"]), (1, 2, 3))

    def test_a_flag_that_turns_a_truth_value_back_wins(self) -> None:
        options = self.parse(self.write("enable_smtputf8 = false\n"), "--smtputf8")
        self.assertIs(options.server_options()["enable_SMTPUTF8"], True)

    def test_an_unknown_key_is_one_line_with_file_line_and_a_hint(self) -> None:
        self.assertTrue(self.says("\n\nmax_erors = 3\n").startswith(", line 3: max_erors is no option"))
        for text, hint in (
            ("max_erors = 3", "did you mean max_errors?"),
            ("data_size_limit = 3", "it is called size"),
            ("no_smtputf8 = true", "write enable_smtputf8 = false"),
            ("class = 'sink'", "write handler"),
        ):
            self.assertIn(hint, self.says(text))
        self.assertIn("line 4: zzz", self.says("[[listener]]\nlisten='127.0.0.1:1'\n#\nzzz = 1\n"))

    def test_a_value_that_can_not_be_is_one_line_with_file_and_line(self) -> None:
        for text, error in (
            ("max_errors = 0", ", line 1: max_errors: '0' is not between"),
            ("max_errors = true", ", line 1: max_errors is a number, not true"),
            ("max_errors = 2020-01-01", ", line 1: max_errors is a number, not 2020-01-01"),
            ('"a\\u001b[2Jb" = 1', "a\\x1b[2Jb is no option"),
            ("lmtp = 1", ", line 1: lmtp is true or false, not 1"),
            ("listen = [1]", ", line 1: listen is a text or a list of texts, not a list"),
            ("handler = []", ", line 1: handler is a text or a list"),
            ("\nhandler = 'nonesuch'", ", line 2: handler: there is no handler"),
            ("tlscert = '/nonesuch'", ", line 1: tlscert: /nonesuch"),
            ("listen_tls = '127.0.0.1:1'", ", line 1: listen_tls needs tlscert, smtpscert or tls_self_signed"),
            ("a = ", ", line 1: invalid value"),
            ("a = 1\na = 2", ", line 2: "),
            ("x = [" * 5000, ""),
            ("listener = 3", ": a listener is written as [[listener]]"),
            ("[listener]\nlisten = '127.0.0.1:1'", "a listener is written as [[listener]]"),
            ("[[listener]]\nlisten='127.0.0.1:1'\nworkers = 2", ", line 3: workers is for the whole process"),
            ("[[listener]]\nmax_errors = 2", "has no listen"),
            ("listen = '127.0.0.1:1'\n[[listener]]\nlisten = '127.0.0.1:2'", "has places of its own"),
        ):
            self.assertIn(error, self.says(text), text)

    def test_files_that_are_none(self) -> None:
        self.assertIn("No such file", self.refused("--config=/nonesuch/x.toml"))
        self.assertIn("Is a directory", self.refused("--config=/"))
        pipe = f"{self.file}.fifo"
        os.mkfifo(pipe)
        self.assertIn("it is a pipe that nothing is written to", self.refused(f"--config={pipe}"))
        self.file.write_bytes(b"ident = 'a'\n\xff")
        self.assertIn(", line 2: it is not UTF-8", self.refused(f"--config={self.file}"))
        self.file.write_bytes(b"#" * (2**20 + 1))
        self.assertIn("larger than", self.refused(f"--config={self.file}"))

    def test_a_text_of_several_lines_has_no_keys(self) -> None:
        self.assertIn(", line 5: max_erors", self.says('ident = """\\\nmax_erors = 1\n"""\n\nmax_erors = 1\n'))

    def test_arguments_without_their_handler_are_refused(self) -> None:
        self.assertIn("name it with -c", self.refused(self.write("handler = ['sink']\n"), "x"))

    def test_a_value_may_be_in_a_file_of_its_own(self) -> None:
        secret = Path(self.mktemp())
        secret.write_text("here.example\n")
        options = self.parse(self.write(f'hostname_file = "{secret}"\n'))
        self.assertEqual(options["hostname"], "here.example")
        self.assertIn("contradict", self.says(f'hostname_file = "{secret}"\nhostname = "x"\n'))
        self.assertIn("No such file", self.says('hostname_file = "/nonesuch"\n'))
        # That is the password file, and no file with an --auth.
        self.assertEqual(SETTINGS["auth_file"].key, "auth_file")

    def test_a_path_may_be_a_credential_of_systemd(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "users").write_text("anne:$2b$12$" + "a" * 53 + "\n")
        (folder / "users").chmod(0o600)
        self.patch(os, "environ", {"CREDENTIALS_DIRECTORY": str(folder)})
        options = self.parse(self.write('auth_file = "credential:users"\n'))
        self.assertEqual(options.authenticator.path, folder / "users")
        self.assertIn("no name of a credential", self.says('auth_file = "credential:../users"\n'))
        self.patch(os, "environ", {})
        self.assertIn("$CREDENTIALS_DIRECTORY", self.says('auth_file = "credential:users"\n'))


class ListenerTests(ConfigurationCase):
    def service(self, text: str, *words: str) -> Any:
        return makeService(self.parse(self.write(text), *words))

    def test_each_listener_has_a_policy_of_its_own(self) -> None:
        service = self.service(TWO)
        self.assertIsInstance(service, ServersService)
        first, second = service.servers
        self.assertEqual([listener.name for listener in first.listeners], ["127.0.0.1:25", "127.0.0.2:25"])
        self.assertEqual([listener.name for listener in second.listeners], ["unix:/run/lmtp"])
        values = [server.factory.settings.values for server in service.servers]
        self.assertEqual([value["data_size_limit"] for value in values], [2**20, 32 * 2**20])
        self.assertEqual([value["max_errors"] for value in values], [5, 7])
        self.assertIs(second.factory.protocol, LMTP)
        self.assertEqual([type(server.factory.handler).__name__ for server in service.servers], ["Sink", "Console"])

    def test_a_limit_at_the_top_holds_for_all_listeners_together(self) -> None:
        first, second = self.service(TWO).servers
        self.assertIs(first.factory.connections, second.factory.connections)
        first, second = self.service(TWO + "max_connections = 9\n").servers
        self.assertIsNot(first.factory.connections, second.factory.connections)
        self.assertEqual(second.factory.settings.values["max_connections"], 9)

    def test_max_connections_counts_clients_of_all_listeners(self) -> None:
        service = self.service(TWO.replace("500", "1"))
        said = []
        for server in service.servers:
            protocol = server.factory.buildProtocol(None)
            refusal = server.factory.connections.admit(protocol, None, server.factory.settings.values)
            said.append(refusal and refusal[:3])
        self.assertEqual(said, [None, "421"])

    def test_a_handler_at_the_top_is_shared(self) -> None:
        text = 'handler = ["sink"]\n[[listener]]\nlisten = "127.0.0.1:1"\n[[listener]]\nlisten = "127.0.0.1:2"\n'
        first, second = self.service(text).servers
        self.assertIs(first.factory.handler, second.factory.handler)
        first, second = self.service(text + 'handler = ["sink"]\n').servers
        self.assertIsNot(first.factory.handler, second.factory.handler)

    def test_all_listen_and_all_are_stopped(self) -> None:
        service = self.service(TWO)
        service.startService()
        reactor = service.servers[0].reactor
        self.assertEqual([server[0] for server in reactor.tcpServers], [25, 25])
        self.assertEqual(len(reactor.unixServers), 1)
        self.successResultOf(service.stopService())

    def test_places_are_not_for_all(self) -> None:
        self.assertIn("--listen: each [[listener]] has places", self.refused(self.write(TWO), "-l", "127.0.0.1:1"))
        one = '[[listener]]\nlisten = "127.0.0.1:1"\n'
        options = self.parse(self.write(one), "-l", "127.0.0.1:9")
        self.assertEqual([listener.name for listener in options.listeners], ["127.0.0.1:9"])

    def test_the_command_line_holds_for_all(self) -> None:
        for server in self.service(TWO, "--max-errors=3", "-c", "sink").servers:
            self.assertEqual(server.factory.settings.values["max_errors"], 3)

    def test_a_change_that_needs_a_restart_is_said(self) -> None:
        options = self.parse(self.write(TWO))
        options.reload()
        self.write(TWO.replace("500", "9").replace("max_errors = 7", "max_errors = 8"))
        options.reload()
        self.write("max_erors = 1")
        options.reload()
        events = [event for event in self.events if "restart" in event["log_format"] or "error" in event["log_format"]]
        self.assertEqual(len(events), 2, events)
        self.assertEqual(events[0]["what"], "max_connections, max_errors of listener 2")
        self.assertIn("max_erors", events[1]["error"])

    def patch_events(self) -> None:
        from twisted.logger import globalLogPublisher

        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def setUp(self) -> None:
        super().setUp()
        self.patch_events()


class DryTests(ConfigurationCase):
    def dry(self, *words: str) -> str:
        return self.printed(lambda: makeService(self.parse(*words)))

    def printed(self, call: Any) -> str:
        stdout = io.StringIO()
        self.patch(sys, "stdout", stdout)
        self.assertEqual(self.assertRaises(SystemExit, call).code, 0)
        return stdout.getvalue()

    def test_check_says_what_would_start_and_starts_nothing(self) -> None:
        text = self.dry(self.write(TWO), "--check")
        self.assertIn("would start: sink on 127.0.0.1:25 and 127.0.0.2:25; console on unix:/run/lmtp", text)

    def faults(self, text: str, *words: str) -> list[str]:
        """The lines of --check about a file that is wrong, without what all of them have."""
        stderr = io.StringIO()
        self.patch(sys, "stderr", stderr)
        path = self.write(text)
        call = self.assertRaises(SystemExit, lambda: makeService(self.parse(path, "--check", *words)))
        self.assertEqual(call.code, 64)
        lines = stderr.getvalue().splitlines()
        for line in lines:
            self.assertTrue(line.startswith("twist smtpd: ") and line.endswith(" (see twist smtpd --help)"), line)
        return [line[13:-25].replace(str(self.file), "FILE") for line in lines]

    def test_check_names_all_that_is_wrong(self) -> None:
        self.patch(os, "environ", {"TWISTED_SMTPD_MAX_ERROR": "9", "TWISTED_SMTPD_TIMEOUT": "soon"})
        wrong = (
            TWO.replace("max_errors = 5", 'max_erors = 5\nlmtp = 3\nhandler = ["mailbx"]')
            .replace('"1M"', '"1X"')
            .replace(
                "max_errors = 7", 'max_errors = "many"\nworkers = 2\nauth_file = "/nonesuch"\nauth_required = true'
            )
        )
        faults = self.faults(wrong, "--max-recipients=x")
        for fault, (begin, end) in zip(
            faults,
            (
                ("the environment variable TWISTED_SMTPD_MAX_ERROR is no option", "TWISTED_SMTPD_MAX_ERRORS?"),
                ("FILE, line 3: max_erors is no option", "did you mean max_errors?"),
                ("FILE, line 4: lmtp is true or false", "not 3"),
                ("FILE, line 16: workers is for the whole process", "the first [[listener]]"),
                ("FILE, line 10: size: '1X' is not", "1G"),
                ("TWISTED_SMTPD_TIMEOUT: 'soon' is not", "0.5"),
                ("--max-recipients: 'x' is not", "number"),
                ("FILE, line 15: max_errors: 'many' is not", "number"),
                ("FILE, line 17: auth_file: /nonesuch", "directory"),
                ("FILE, line 5: handler: there is no handler 'mailbx'", "mailbox?"),
            ),
            strict=True,
        ):
            self.assertIn(begin, fault)
            self.assertTrue(fault.endswith(end), fault)

    def test_check_goes_on_where_a_server_can_not_be_made(self) -> None:
        text = "\n".join(
            f'[[listener]]\nlisten = ["127.0.0.1:{port}"]\n{line}'
            for port, line in ((1, "auth_required = true"), (2, "timeout = 5"), (25, "lmtp = true"))
        )
        faults = self.faults(text)
        self.assertEqual([fault.split(":")[0] for fault in faults], ["FILE, line 3", "FILE, line 9"], faults)

    def test_check_says_nothing_of_what_only_follows(self) -> None:
        for line in ("implicit_tls = true", 'tls_client_ca = "/nonesuch"'):
            (fault,) = self.faults(f'listen = ["127.0.0.1:1"]\ntlscert = "/nonesuch"\n{line}\n')
            self.assertIn("line 2: tlscert", fault)

    def test_check_ends_in_a_bounded_time(self) -> None:
        faults = self.faults("".join(f"nonesuch{number} = 1\n" for number in range(1000)))
        self.assertEqual((len(faults), faults[-1]), (101, "there are more errors"))

    def test_what_is_in_force_and_from_where(self) -> None:
        self.patch(os, "environ", {"TWISTED_SMTPD_TIMEOUT": "9"})
        text = self.dry(self.write(TWO), "--show-config", "--hostname=mx.example")
        lines = {line.partition(" =")[0]: line for line in text.splitlines() if " = " in line}
        self.assertIn(", line 2", lines["max_connections"])
        self.assertTrue(lines["timeout"].endswith("# TWISTED_SMTPD_TIMEOUT"))
        self.assertTrue(lines["hostname"].endswith("# the command line"))
        self.assertIn("# session_timeout: 3600", text)
        self.assertEqual(text.count("[[listener]]"), 2)

    def test_it_is_a_configuration_again(self) -> None:
        text = self.dry(self.write(TWO), "--show-config")
        self.file = Path(self.mktemp())
        self.assertEqual(len(self.parse(self.write(text)).servers), 2)

    def test_no_secret_is_shown(self) -> None:
        secret = "hunter2-hunter2"
        file = Path(self.mktemp())
        file.write_text(f'webhook "https://hooks.example/{secret}"\n')
        for text in (
            f'auth = "memory:anne:{secret}"',
            f'handler_file = "{file}"',
            f'handler = ["webhook", "https://hooks.example/{secret}?token={secret}"]',
        ):
            shown = self.dry(self.write(f"{text}\n"), "--show-config")
            self.assertNotIn(secret, shown, text)
            self.assertIn("***", shown)
        for text in (
            f'handler = ["proxy", "mx:25", "--pasword", "{secret}"]',
            f'handler = ["proxy", "mx:25", "--token={secret}"]',
            f'auth = "nonesuch:{secret}"',
            f'auth = "file:/{secret}"\nauth_any = true',
            f'handler = ["webhook", "https://user:{secret}@hooks.example/"]',
            f'auth = "memory:{secret}"',
        ):
            self.assertNotIn(secret, self.refused(self.write(f"{text}\n")), text)
