"""A load client: what Postfix's smtp-source can't do (pipelining, TLS, AUTH, connections that stay idle).

It runs as a process of its own, ``python client.py PORT [options]``, prints how many seconds the load took, and exits
with status 77 if the server does not offer what the load needs.
"""

from __future__ import annotations

import argparse
import base64
import socket
import ssl
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from bodies import HEADER, KINDS, body

HOST = "127.0.0.1"
UNSUPPORTED = 77
TIMEOUT = 60.0
OPENERS = 50
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class NotOffered(Exception):
    """The server does not offer an extension that the load needs."""


class UnexpectedReply(Exception):
    """The server answered other than it should."""


class Connection:
    """One connection, greeted.

    :param options: the command line.
    :param context: for TLS; ``None`` for none.
    :param session: a TLS session to resume.
    :raises NotOffered: if EHLO's answer lacks what the load needs, or the session is not resumed.
    """

    def __init__(
        self, options: argparse.Namespace, context: ssl.SSLContext | None, session: ssl.SSLSession | None = None
    ) -> None:
        self.options = options
        self.socket = socket.create_connection((HOST, options.port), TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None and options.tls == "implicit":
            self.socket = self.secure(context, session)
        self.replies = self.socket.makefile("rb")
        self.expect(220)
        self.greet()
        if context is not None and options.tls == "starttls":
            self.need(b"STARTTLS")
            self.command(b"STARTTLS", 220)
            self.socket = self.secure(context, session)
            self.replies = self.socket.makefile("rb")
            self.greet()
        if options.auth:
            self.need(b"AUTH")
            self.command(b"AUTH PLAIN " + base64.b64encode(b"\0user\0secret"), 235)
        if options.pipelining:
            self.need(b"PIPELINING")

    def secure(self, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSocket:
        """Shake hands."""
        secured = context.wrap_socket(self.socket, session=session)
        if session is not None and not secured.session_reused:
            raise NotOffered("TLS sessions are not resumed")
        return secured

    def session(self) -> ssl.SSLSession | None:
        """What a later connection can resume.  With TLS 1.3 the server sends it with what it says next."""
        return self.socket.session if isinstance(self.socket, ssl.SSLSocket) else None

    def greet(self) -> None:
        """Say EHLO and note what is offered."""
        lines = self.command(b"EHLO client.example", 250)
        self.offered = {keyword for line in lines[1:] for keyword in line[4:].upper().split()[:1]}

    def need(self, keyword: bytes) -> None:
        """Refuse to go on without an extension."""
        if keyword not in self.offered:
            raise NotOffered(f"{keyword.decode()} is not offered")

    def expect(self, code: int) -> list[bytes]:
        """Read a reply, which must have this code."""
        lines = []
        while True:
            line = self.replies.readline()
            lines.append(line)
            if line[:3] != b"%d" % code:
                raise UnexpectedReply(f"{code} expected, got {line!r}")
            if line[3:4] != b"-":
                return lines

    def command(self, line: bytes, code: int) -> list[bytes]:
        """Send a command and wait for its reply."""
        self.socket.sendall(line + b"\r\n")
        return self.expect(code)

    def send(self, content: bytes, messages: int) -> None:
        """Send some messages.

        Pipelined, a message takes one round trip: its content and the next transaction's commands go out together
        (RFC 2920 section 3.1 lets a group end in DATA, and start with the end of the content before it).
        """
        commands = [(b"MAIL FROM:<a@bench.example>", 250)]
        commands += [(b"RCPT TO:<b%d@bench.example>" % i, 250) for i in range(self.options.recipients)]
        commands += [(b"DATA", 354)]
        if not self.options.pipelining:
            for _ in range(messages):
                for line, code in commands:
                    self.command(line, code)
                self.command(content + b".", 250)
            return
        group = b"".join(line + b"\r\n" for line, _ in commands)
        self.socket.sendall(group)
        for remaining in range(messages - 1, -1, -1):
            for _, code in commands:
                self.expect(code)
            self.socket.sendall(content + b".\r\n" + (group if remaining else b""))
            self.expect(250)

    def quit(self) -> None:
        """End the session politely."""
        self.command(b"QUIT", 221)
        self.socket.close()


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--messages", type=int, default=0)
    parser.add_argument("--size", type=int, default=1024, help="octets of the body")
    parser.add_argument("--body", choices=KINDS, default="lines")
    parser.add_argument("--connections", type=int, default=20, help="at the same time")
    parser.add_argument("--recipients", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="send all messages of a connection before ending it")
    parser.add_argument("--pipelining", action="store_true")
    parser.add_argument("--tls", choices=("none", "starttls", "implicit"), default="none")
    parser.add_argument("--resume", choices=tuple(VERSIONS), help="resume sessions, with this version of TLS")
    parser.add_argument("--auth", action="store_true")
    parser.add_argument("--idle", action="store_true", help="open the connections, and hold them until stdin ends")
    return parser.parse_args()


def tls_context(options: argparse.Namespace) -> ssl.SSLContext | None:
    """What the connections share for TLS: nothing is verified."""
    if options.tls == "none":
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if options.resume:
        context.minimum_version = context.maximum_version = VERSIONS[options.resume]
    return context


def idle(options: argparse.Namespace) -> None:
    """Open the connections, say so, and hold them."""
    context = tls_context(options)
    with ThreadPoolExecutor(OPENERS) as pool:  # a server may make each wait for its banner
        held = list(pool.map(lambda _: Connection(options, context), range(options.connections)))
    print(len(held), flush=True)
    sys.stdin.read()


def load(options: argparse.Namespace) -> float:
    """Send all messages over some connections at a time.

    :returns: how many seconds that took.
    :raises Exception: the first thing that went wrong on any connection.
    """
    context = tls_context(options)
    content = HEADER + body(options.body, options.size)
    errors: list[Exception] = []

    def work(messages: int) -> None:
        session = None
        try:
            for batch in [messages] if options.keep else [1] * messages:
                connection = Connection(options, context, session)
                connection.send(content, batch)
                if options.resume:
                    session = connection.session()
                connection.quit()
        except Exception as error:
            errors.append(error)

    workers = min(options.connections, options.messages)
    shares = [options.messages // workers + (i < options.messages % workers) for i in range(workers)]
    threads = [threading.Thread(target=work, args=(share,)) for share in shares]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return time.perf_counter() - start


def main() -> int:
    """Run the command line."""
    options = parse_arguments()
    try:
        if options.idle:
            idle(options)
        else:
            print(load(options))
    except NotOffered as error:
        print(error, file=sys.stderr)
        return UNSUPPORTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
