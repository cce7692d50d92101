"""The table of states, walked over the wire: each verb in each state hears what its cell says, and nothing else."""

from __future__ import annotations

import base64
from typing import Any

from tests.support.fakes import Client, connect
from tests.support.tls_dialog import Peer, SecureTestCase
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.protocol.states import NEXT, TABLE, VERBS, Refusal, State, for_lmtp, state_of, verdict
from twisted_smtpd.smtp import SMTP

SIGN_IN = base64.b64encode(b"\0anne\0secret")
LINES = {
    "HELO": b"HELO client.example",
    "EHLO": b"EHLO client.example",
    "LHLO": b"LHLO client.example",
    "STARTTLS": b"STARTTLS",
    "AUTH": b"AUTH PLAIN " + SIGN_IN,
    "XCLIENT": b"XCLIENT NAME=other.example",
    "XFORWARD": b"XFORWARD NAME=other.example",
    "MAIL": b"MAIL FROM:<anne@example.com>",
    "RCPT": b"RCPT TO:<bart@example.com>",
    "DATA": b"DATA",
    "BDAT": b"BDAT 3\r\nx",
    "RSET": b"RSET",
    "NOOP": b"NOOP",
    "VRFY": b"VRFY <bart@example.com>",
    "EXPN": b"EXPN staff",
    "ETRN": b"ETRN example.com",
    "HELP": b"HELP",
    "QUIT": b"QUIT",
}
# How each state is reached from NEW; the greeting is EHLO or LHLO.
MAIL = b"MAIL FROM:<anne@example.com>\r\n"
REFUSED = b"RCPT TO:<no@example.com>\r\n"
ACCEPTED = b"RCPT TO:<b@example.com>\r\n"
WAYS = {
    State.UNWELCOME: None,
    State.CLEAR: b"%b",
    State.NEW: b"",
    State.STRANGER: b"%b",
    State.READY: b"%b",
    State.SENDER: b"%b" + MAIL,
    State.REFUSED: b"%b" + MAIL + REFUSED,
    State.RECIPIENT: b"%b" + MAIL + REFUSED + ACCEPTED,
    State.CHUNKS: b"%b" + MAIL + REFUSED + ACCEPTED + b"BDAT 1\r\na",
}


class Handler:
    """Refuses one recipient, and every client where it is told to.

    :param unwelcoming: whether it is told to.
    """

    def __init__(self, unwelcoming: bool = False) -> None:
        if unwelcoming:
            self.handle_CONNECT = lambda *arguments: "554 5.7.1 Go away"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if address.startswith("no@"):
            return "550 5.1.1 Unknown"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    def handle_STARTTLS(self, *arguments: Any) -> bool:
        return False

    def handle_ETRN(self, *arguments: Any) -> str:
        return "250 Queuing started"


class StatesTests(SecureTestCase):
    """Every cell of the table, each on a connection of its own."""

    def client(self, state: State, protocol: type[SMTP]) -> Client | Peer:
        """A client in a state, on a server that offers everything."""
        options: dict[str, Any] = {
            "tls_context": self.files(),
            "require_starttls": state in (State.CLEAR, State.WEAK),
            "auth_callback": lambda mechanism, login, password: password == b"secret",
            "auth_required": state is State.STRANGER,
            "auth_require_tls": False,
            "xclient_from": ["192.0.2.1"],
            "protocol": protocol,
        }
        hello = b"LHLO client.example\r\n" if protocol is LMTP else b"EHLO client.example\r\n"
        if state is State.WEAK:
            options["hostname"] = "mx.example"
            peer = self.connect(Handler(), **options)
            peer.send(hello)
            peer.send(b"STARTTLS\r\n")
            peer.handshake()
            return peer
        client = connect(Handler(unwelcoming=state is State.UNWELCOME), **options)
        way = WAYS[state]
        if way:
            client.send(way % hello)
        client.read()
        return client

    def walk(self, protocol: type[SMTP], table: Any, absent: set[str]) -> None:
        cells = [(verb, verdict(state, verb, table)) for state in State for verb in VERBS]
        refusals = {self.line(refusal, verb) for verb, refusal in cells if refusal is not None}
        for state in State:
            for verb in set(VERBS) - absent:
                client = self.client(state, protocol)
                self.assertIs(state_of(client.protocol), state)
                said = client.send(LINES[verb] + b"\r\n")
                refusal = verdict(state, verb, table)
                if refusal is not None:
                    self.assertEqual(said, self.line(refusal, verb), (state, verb))
                    self.assertIs(state_of(client.protocol), state)
                else:
                    self.assertNotIn(said, refusals, (state, verb))
                    self.assertNotIn(b"not recognized", said, (state, verb))

    @staticmethod
    def line(refusal: Refusal, verb: str) -> bytes:
        # RFC 2034 section 4: no enhanced code in the reply to HELO and EHLO.
        enhanced = "" if verb in ("HELO", "EHLO", "LHLO") else f"{refusal.enhanced} "
        return f"{refusal.code} {enhanced}{refusal.text}\r\n".encode()

    def test_every_cell_of_smtp(self) -> None:
        self.walk(SMTP, TABLE, {"LHLO"})

    def test_every_cell_of_lmtp(self) -> None:
        self.walk(LMTP, for_lmtp(TABLE), {"HELO", "EHLO"})

    def test_the_verbs_of_the_table_are_those_of_the_protocol(self) -> None:
        verbs = {name[5:] for cls in (SMTP, LMTP) for name in dir(cls) if name.startswith("smtp_")}
        self.assertEqual(set(VERBS), verbs)
        named = {verb for verdicts in TABLE.values() for verb in verdicts} - {"*"}
        self.assertLessEqual(named, verbs)

    def test_a_verb_of_a_subclass_needs_no_row(self) -> None:
        class Mine(SMTP):
            async def smtp_PING(self, arg: str | None) -> None:
                await self.push("250 pong")

        for state in set(State) - {State.UNWELCOME, State.CLEAR, State.WEAK}:
            self.assertEqual(self.client(state, Mine).send(b"PING\r\n"), b"250 2.0.0 pong\r\n", state)
        for state in (State.UNWELCOME, State.CLEAR, State.WEAK):
            self.assertNotIn(b"pong", self.client(state, Mine).send(b"PING\r\n"), state)

    def test_each_arrow_of_the_diagram_can_be_gone(self) -> None:
        """From a state, its command leads where the arrow says."""
        hello, auth = LINES["EHLO"], LINES["AUTH"]
        steps = {
            (State.NEW, State.READY): hello,
            (State.STRANGER, State.READY): auth,
            (State.READY, State.SENDER): LINES["MAIL"],
            (State.SENDER, State.RECIPIENT): LINES["RCPT"],
            (State.SENDER, State.REFUSED): REFUSED.strip(),
            (State.REFUSED, State.RECIPIENT): LINES["RCPT"],
            (State.RECIPIENT, State.READY): b"DATA\r\nhello\r\n.",
            (State.RECIPIENT, State.CHUNKS): b"BDAT 2\r\n",
            (State.CHUNKS, State.READY): b"BDAT 2 LAST\r\n",
        }
        arrows = {(start, end) for start, _, end in NEXT}
        self.assertLessEqual(steps.keys(), arrows)
        for (start, end), lines in steps.items():
            client = self.client(start, SMTP)
            client.send(lines + b"\r\n")
            self.assertIs(state_of(client.protocol), end, (start, lines))
        for state in (State.SENDER, State.REFUSED, State.RECIPIENT, State.CHUNKS):
            for command in (b"RSET", hello):
                client = self.client(state, SMTP)
                client.send(command + b"\r\n")
                self.assertIs(state_of(client.protocol), State.READY)

    def test_starttls_comes_after_helo_where_tls_is_required_too(self) -> None:
        client = connect(tls_context=self.files(), require_starttls=True)
        self.assertEqual(client.send(b"STARTTLS\r\n"), b"503 5.5.1 Send HELO first\r\n")
        self.assertEqual(client.send(b"STARTTLS now\r\n"), b"503 5.5.1 Send HELO first\r\n")


class HooksAndStatesTests(SecureTestCase):
    """Hooks change session and envelope themselves; the state is found anew after each."""

    def test_a_hook_that_signs_its_client_in(self) -> None:
        class Trusting:
            def handle_EHLO(self, server: Any, session: Any, envelope: Any, hostname: str) -> str:
                session.host_name, session.authenticated = hostname, True
                return "250 HELP"

        client = connect(Trusting(), auth_required=True)
        client.send(b"EHLO client.example\r\n")
        self.assertIs(state_of(client.protocol), State.READY)
        self.assertEqual(client.send(LINES["MAIL"] + b"\r\n"), b"250 2.1.0 OK\r\n")

    def test_a_hook_that_ends_the_transaction(self) -> None:
        class Forgetful:
            def handle_NOOP(self, server: Any, session: Any, envelope: Any, arg: str | None) -> str:
                envelope.mail_from = None
                return "250 OK"

        client = connect(Forgetful())
        client.send(b"EHLO client.example\r\n" + MAIL)
        self.assertEqual(client.send(MAIL), b"503 5.5.1 Nested MAIL command\r\n")
        client.send(b"NOOP\r\n")
        self.assertEqual(client.send(MAIL), b"250 2.1.0 OK\r\n")

    def test_a_hook_that_demands_authentication_of_one_client(self) -> None:
        class Suspicious:
            def handle_CONNECT(self, server: Any, session: Any, envelope: Any) -> str:
                server.auth_required = True
                return "220 hello"

        client = connect(Suspicious(), auth_callback=lambda *arguments: True, auth_require_tls=False)
        client.send(b"EHLO client.example\r\n")
        self.assertEqual(client.send(MAIL), b"530 5.7.0 Authentication required\r\n")
        client.send(LINES["AUTH"] + b"\r\n")
        self.assertEqual(client.send(MAIL), b"250 2.1.0 OK\r\n")

    def test_no_auth_in_the_transaction_in_which_a_hook_demands_it(self) -> None:
        """RFC 4954 section 4."""

        class Suspicious:
            def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
                server.auth_required = True
                return "530 5.7.0 Not without authentication"

        client = connect(Suspicious(), auth_callback=lambda *arguments: True, auth_require_tls=False)
        client.send(b"EHLO client.example\r\n" + MAIL + ACCEPTED)
        self.assertEqual(client.send(LINES["AUTH"] + b"\r\n"), b"503 5.5.1 No AUTH within a mail transaction\r\n")
        client.send(b"RSET\r\n" + LINES["AUTH"] + b"\r\n")
        self.assertEqual(client.send(MAIL), b"250 2.1.0 OK\r\n")

    def test_an_override_that_lets_a_client_pass(self) -> None:
        """As programs written for aiosmtpd do for clients of their own network."""

        class Lenient(SMTP):
            async def check_helo_needed(self, helo: str = "HELO") -> bool:
                return False

            async def check_auth_needed(self, command: str) -> bool:
                return False

        client = connect(protocol=Lenient, auth_required=True)
        self.assertEqual(client.send(MAIL + ACCEPTED), b"250 2.1.0 OK\r\n250 2.1.5 OK\r\n")
        self.assertEqual(client.send(MAIL), b"503 5.5.1 Nested MAIL command\r\n")
        self.assertTrue(client.send(b"DATA\r\nhello\r\n.\r\n").endswith(b"250 2.0.0 OK\r\n"))

    def test_an_override_that_has_refused_by_itself(self) -> None:
        """aiosmtpd's way: push a refusal, and return true."""

        class Strict(SMTP):
            async def check_auth_needed(self, command: str) -> bool:
                await self.push(f"530 5.7.0 No {command} for you")
                return True

        client = connect(protocol=Strict)
        client.send(b"EHLO client.example\r\n")
        self.assertEqual(client.send(MAIL), b"530 5.7.0 No MAIL for you\r\n")
