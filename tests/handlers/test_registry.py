"""The handlers' names on the command line, and what they are given there."""

from __future__ import annotations

import importlib
import sys
import textwrap
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from twisted.logger import formatEvent, globalLogPublisher
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd.handlers import Debugging, Mailbox, Sink, registry
from twisted_smtpd.handlers.registry import HandlerError, HandlerPlugin, handler_names, make_handler
from twisted_smtpd.interfaces import IHandlerPlugin


class FromCliTests(SynchronousTestCase):
    def setUp(self) -> None:
        class Parser(ArgumentParser):
            def error(self, message: str) -> Any:
                raise HandlerError(message)

        self.parser = Parser()

    def test_debugging_takes_stdout_or_stderr(self) -> None:
        self.assertIs(Debugging.from_cli(self.parser).stream, sys.stdout)
        self.assertIs(Debugging.from_cli(self.parser, "stdout").stream, sys.stdout)
        self.assertIs(Debugging.from_cli(self.parser, "stderr").stream, sys.stderr)
        self.assertRaises(HandlerError, Debugging.from_cli, self.parser, "nowhere")
        self.assertRaises(HandlerError, Debugging.from_cli, self.parser, "stdout", "stderr")

    def test_sink_takes_nothing(self) -> None:
        self.assertIsInstance(Sink.from_cli(self.parser), Sink)
        self.assertRaises(HandlerError, Sink.from_cli, self.parser, "x")

    def test_mailbox_takes_one_folder(self) -> None:
        folder = self.mktemp()
        self.assertEqual(Mailbox.from_cli(self.parser, folder).mail_dir, folder)
        for arguments in ((), ("",), (folder, folder)):
            self.assertRaises(HandlerError, Mailbox.from_cli, self.parser, *arguments)

    def test_sink_leaves_everything_to_the_server(self) -> None:
        self.assertEqual([name for name in dir(Sink()) if name.startswith(("handle_", "auth_"))], [])


class RegistryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        self.patch(sys, "path", [str(self.folder), *sys.path])
        self.patch(registry, "find_plugins", self.plugins)
        self.registered: list[HandlerPlugin] = []
        before = set(sys.modules)
        self.addCleanup(lambda: [sys.modules.pop(name) for name in set(sys.modules) - before])

    def plugins(self, interface: Any) -> list[HandlerPlugin]:
        self.assertIs(interface, IHandlerPlugin)
        return self.registered

    def module(self, name: str, text: str) -> None:
        (self.folder / f"{name}.py").write_text(textwrap.dedent(text))
        # Python remembers what was in the folder for as long as its time stamp stays.
        importlib.invalidate_caches()

    def fails(self, name: str, *arguments: str) -> str:
        error = self.assertRaises(HandlerError, make_handler, name, arguments)
        self.assertNotIn("\n", str(error))
        return str(error)

    def test_the_built_in_names(self) -> None:
        self.assertEqual(
            [name for name, _ in handler_names()],
            [
                "amqp",
                "chain",
                "console",
                "debugging",
                "inbox",
                "limits",
                "mailbox",
                "proxy",
                "queue",
                "recipients",
                "senders",
                "sink",
                "webhook",
            ],
        )
        self.assertTrue(all(summary and "\n" not in summary for _, summary in handler_names()))
        self.assertIsInstance(make_handler("debugging", ["stderr"]), Debugging)
        self.assertIsInstance(make_handler("sink", []), Sink)
        self.assertIsInstance(make_handler("mailbox", [self.mktemp()]), Mailbox)

    def test_aiosmtpd_spelling_of_the_built_in_ones(self) -> None:
        self.assertIsInstance(make_handler("twisted_smtpd.handlers.Debugging", ["stdout"]), Debugging)

    def test_a_plugin_gives_a_name_to_a_path_or_a_class(self) -> None:
        self.registered = [
            HandlerPlugin("drop", "drops it", "twisted_smtpd.handlers:Sink"),
            HandlerPlugin("lose", "loses it", Sink),
            HandlerPlugin("broken", "is broken", "nowhere"),
        ]
        self.assertTrue(IPlugin.providedBy(self.registered[0]))
        self.assertEqual(handler_names()[13:], [("drop", "drops it"), ("lose", "loses it"), ("broken", "is broken")])
        self.assertIsInstance(make_handler("drop", []), Sink)
        self.assertIsInstance(make_handler("lose", []), Sink)
        self.assertIn("'nowhere' is no path to a class", self.fails("broken"))

    def test_a_plugin_can_not_take_a_built_in_name(self) -> None:
        self.registered = [HandlerPlugin("mailbox", "steals it", Sink)]
        self.assertIsInstance(make_handler("mailbox", [self.mktemp()]), Mailbox)
        self.assertEqual(len(handler_names()), 13)

    def test_a_class_in_a_folder_on_the_path(self) -> None:
        self.module("own_a", "class Handler:\n    class Inner:\n        pass\n")
        self.assertEqual(type(make_handler("own_a.Handler", [])).__name__, "Handler")
        self.assertEqual(type(make_handler("own_a:Handler.Inner", [])).__name__, "Inner")

    def test_from_cli_gets_the_parser_and_the_arguments(self) -> None:
        self.module(
            "own_b",
            """
            class Handler:
                @classmethod
                def from_cli(cls, parser, *args):
                    parser.add_argument("--number", type=int)
                    self = cls()
                    self.options = parser.parse_args(args)
                    return self
            """,
        )
        self.assertEqual(make_handler("own_b.Handler", ["--number", "7"]).options.number, 7)
        self.assertIn("invalid int value: 'x'", self.fails("own_b.Handler", "--number", "x"))

    def test_an_unknown_name_lists_the_known_ones(self) -> None:
        self.registered = [HandlerPlugin("drop", "drops it", Sink)]
        text = self.fails("printer")
        self.assertIn("'printer'", text)
        names = ", ".join(name for name, _ in handler_names())
        self.assertTrue(names.endswith(", webhook, drop"), names)
        self.assertIn(names, text)

    def test_a_malformed_path_is_called_so(self) -> None:
        for name in ("", ".", "a.", ".a", "a..b", ":", "a:", ":a", "a b.c", "a:b:c", "../a.py", "a.b-c", "é\n.x y"):
            text = self.fails(name)
            self.assertTrue("is no path to a class" in text or "there is no handler" in text, text)

    def test_a_missing_module_says_what_to_do(self) -> None:
        text = self.fails("nowhere_at_all.module.Handler")
        self.assertIn("there is no module nowhere_at_all:", text)
        self.assertIn("start in the folder", text)

    def test_a_missing_class_says_where_it_was_looked_for(self) -> None:
        self.module("own_c", "")
        self.assertIn(f"there is no Handler in {self.folder / 'own_c.py'}", self.fails("own_c.Handler"))

    def test_an_import_that_fails_says_why_and_where(self) -> None:
        self.module("own_d", "import nowhere_at_all\n")
        self.assertRegex(
            self.fails("own_d.Handler"), r"ModuleNotFoundError: .*'nowhere_at_all'.* \(.*own_d.py, line 1\)"
        )
        self.module("own_e", "\n1 / 0\n")
        self.assertRegex(self.fails("own_e.Handler"), r"ZeroDivisionError: .* \(.*own_e.py, line 2\)")
        self.module("own_f", "\n\nclass Handler\n")
        self.assertRegex(self.fails("own_f.Handler"), r"SyntaxError: .*own_f.py, line 3")
        self.module("own_g", "raise SystemExit(3)\n")
        self.assertRegex(self.fails("own_g.Handler"), r"SystemExit: 3 \(.*own_g.py, line 1\)")

    def test_an_interrupt_while_importing_is_one(self) -> None:
        self.module("own_h", "raise KeyboardInterrupt\n")
        self.assertRaises(KeyboardInterrupt, make_handler, "own_h.Handler", [])

    def test_what_is_no_class_is_refused(self) -> None:
        self.module("own_i", "handler = object()\n")
        self.assertIn("not a class but object", self.fails("own_i.handler"))
        self.assertIn("not a class but module", self.fails("os.path"))
        self.assertIn("not a class but builtin_function", self.fails("os.getcwd"))
        self.module("own_n", "def handler():\n    return object()\n")
        self.assertIn("not a class but function", self.fails("own_n.handler"))

    def warnings(self, name: str) -> list[str]:
        """What the log says when a handler is made."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        make_handler(name, [])
        return [formatEvent(event) for event in events]

    def test_a_misspelled_hook_is_warned_of(self) -> None:
        self.module(
            "own_o",
            """
            class Handler:
                def handle_data(self, server, session, envelope):
                    return "250 OK"

                def handle_RPCT(self, server, session, envelope, address, options):
                    return "550 no"

            class Right:
                def handle_DATA(self, server, session, envelope):
                    return "250 OK"

                def handle_exception(self, error):
                    return "451 later"
            """,
        )
        said = self.warnings("own_o.Handler")
        self.assertIn("handler own_o.Handler: no server calls handle_data: did you mean handle_DATA?", said)
        self.assertIn("handler own_o.Handler: no server calls handle_RPCT: did you mean handle_RCPT?", said)
        self.assertEqual(self.warnings("own_o.Right"), [])

    def test_a_start_or_a_stop_that_is_not_called_is_warned_of(self) -> None:
        self.module(
            "own_life",
            """
            class Base:
                def handle_NOOP(self, server, session, envelope, arg):
                    return "250 OK"

            class Wrong(Base):
                def start(self):
                    pass

                def stop(self):
                    pass

            class Right(Base):
                def start(self, server):
                    pass

                def stop(self):
                    pass
            """,
        )
        self.assertEqual(
            self.warnings("own_life.Wrong"),
            [
                "handler own_life.Wrong: start() is not called: write it as start(self, server), or declare IStartable",
                "handler own_life.Wrong: stop() is not called: "
                "it needs a start(self, server) beside it, or declare IStoppable",
            ],
        )
        self.assertEqual(self.warnings("own_life.Right"), [])

    def test_a_handler_that_throws_all_mail_away_is_warned_of(self) -> None:
        self.module(
            "own_p",
            """
            from twisted_smtpd.handlers import Message, Sink

            class Handler:
                pass

            class Silent(Sink):
                pass

            class Reader(Message):
                def handle_message(self, message):
                    return None

            class Door:
                def auth_PLAIN(self, server, args):
                    return None
            """,
        )
        self.assertIn("ALL MAIL IS ACCEPTED AND THROWN AWAY", " ".join(self.warnings("own_p.Handler")))
        for name in ("own_p.Silent", "own_p.Reader", "own_p.Door", "sink"):
            self.assertEqual(self.warnings(name), [], name)

    def test_a_base_class_is_refused(self) -> None:
        for name in ("Message", "AsyncMessage"):
            self.assertIn("a subclass of it that has handle_message", self.fails(f"twisted_smtpd.handlers.{name}"))

    def test_arguments_without_from_cli_are_refused(self) -> None:
        self.module("own_j", "class Handler:\n    pass\n\n\nclass Needy:\n    def __init__(self, x):\n        pass\n")
        self.assertIn("takes no arguments (it has no from_cli), not 'a b'", self.fails("own_j.Handler", "a", "b"))
        text = self.fails("own_j.Needy")
        self.assertIn("'x'", text)
        self.assertIn("classmethod from_cli", text)

    def test_a_wrong_number_of_arguments_is_told_from_a_defect(self) -> None:
        self.module(
            "own_k",
            """
            class Handler:
                @classmethod
                def from_cli(cls, parser, folder):
                    return cls() + 1
            """,
        )
        self.assertIn("from_cli(parser, folder)", self.fails("own_k.Handler"))
        self.assertIn("too many positional arguments", self.fails("own_k.Handler", "a", "b"))
        self.assertRaises(TypeError, make_handler, "own_k.Handler", ["a"])

    def test_a_class_without_a_signature_is_just_called(self) -> None:
        self.assertEqual(make_handler("builtins.dict", []), {})

    def test_what_from_cli_complains_of_is_one_line(self) -> None:
        self.assertEqual(self.fails("sink", "x"), "handler sink: it takes no arguments")
        missing = str(self.folder / "not" / "there")
        self.assertIn("does not exist: ", self.fails("mailbox", missing))
        self.module(
            "own_l",
            """
            class Handler:
                @classmethod
                def from_cli(cls, parser, what):
                    raise {"value": ValueError("bad\\nvalue"), "os": OSError("bare")}[what]
            """,
        )
        self.assertEqual(self.fails("own_l.Handler", "value"), "handler own_l.Handler: bad value")
        self.assertEqual(self.fails("own_l.Handler", "os"), "handler own_l.Handler: bare")

    def test_a_from_cli_that_forgets_return_makes_no_server_that_drops_all_mail(self) -> None:
        self.module("own_m", "class Handler:\n    @classmethod\n    def from_cli(cls, parser):\n        cls()\n")
        self.assertIn("did it forget `return`", self.fails("own_m.Handler"))
