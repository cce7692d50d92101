"""The handler that forwards messages to another host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from twisted_smtpd.handlers.forwarding.arguments import proxy_arguments
from twisted_smtpd.handlers.forwarding.client import ClientError, ConnectionGone
from twisted_smtpd.handlers.forwarding.credentials import Credentials, SignIn, Token
from twisted_smtpd.handlers.forwarding.hosts import Route, host_of
from twisted_smtpd.handlers.forwarding.next_host import NextHost, metrics_of
from twisted_smtpd.handlers.forwarding.outgoing import Outgoing
from twisted_smtpd.handlers.forwarding.parameters import check_message, lines_to_offer, mail_command, rcpt_command
from twisted_smtpd.handlers.forwarding.transaction import (
    Transaction,
    by_recipient,
    none_served,
    our_answer,
    says_eight_bit,
    verdict,
)
from twisted_smtpd.handlers.received import received_header
from twisted_smtpd.interfaces import (
    HookServer,
    IDATAHandler,
    IMAILHandler,
    IMeasured,
    IRCPTHandler,
    IRSETHandler,
    IStoppable,
)
from twisted_smtpd.metrics.figures import Metric
from twisted_smtpd.runtime.awaiting import MISSING, Missing
from twisted_smtpd.runtime.computing import compute, is_large
from twisted_smtpd.runtime.connections import limited_address
from twisted_smtpd.runtime.histogram import Histogram
from twisted_smtpd.session import NULL_SENDER, Envelope, Session, within_brackets
from twisted_smtpd.wire.commands import parse_parameters
from twisted_smtpd.wire.escaping import quoted_text
from twisted_smtpd.wire.replies import Reply, SMTPReplyError
from twisted_smtpd.wire.sending import stuff_dots

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from twisted.internet.interfaces import IOpenSSLClientConnectionCreator

__all__ = ["Proxy"]

log = Logger()


@implementer(IMAILHandler, IRCPTHandler, IRSETHandler, IDATAHandler, IMeasured, IStoppable)
class Proxy:
    """Forwards each message to another host, and answers what that host answers.

    :param remote_hostname: the next host's name or address; or an endpoint, or the description of one
        (``"unix:/run/lmtp.sock"``), without ``remote_port``.
    :param remote_port: its port.
    :param fallbacks: hosts that are tried, in order, while that one can't be reached or does not serve us: pairs of
        name and port, or endpoints or their descriptions with ``None``.
    :param protocol: ``"smtp"`` or ``"lmtp"``, what it speaks.
    :param tls: ``"starttls"``, ``"implicit"``, or ``None`` for no TLS.  With either, nothing is sent but over TLS with
        a certificate that is valid for the next host's name.
    :param tls_options: a provider of ``IOpenSSLClientConnectionCreator`` to verify otherwise.
    :param tls_hostname: the name the certificate must have, if not the host's.
    :param tls_ca: a file with the authorities (PEM) that may have issued it, if not those of this machine.
    :param username: the user name to authenticate with, if any.
    :param password: the password; it is sent only over TLS.
    :param token: a :class:`~twisted_smtpd.handlers.forwarding.credentials.Token` of OAuth 2 instead of both.
    :param auth_without_tls: whether either may be sent in clear all the same.
    :param verify_recipients: whether the next host is asked about each recipient when our client names it.  If not, it
        hears of the message only when the whole of it has arrived.
    :param max_recipients: how many recipients a message may have that comes in by SMTP (452 beyond).  ``None`` is 1 if
        the next host speaks LMTP, since SMTP has no way to tell its answers apart, and else any number.
    :param timeout: seconds the next host may be silent, and a connection may take to be made or to become free.
    :param data_timeout: seconds it may take to accept the message; less than the server's ``hook_timeout``.
    :param max_connections: connections to it at the same time.
    :param max_connections_per_client: how many of them are for one client (an IPv4 address or IPv6 /64) at the same
        time; ``None`` for a quarter.  Clients on loopback addresses and Unix sockets are exempt.
    :param hold: seconds a client has one before its message begins.  Then further recipients hear 452, and when the
        message has arrived, the next host is asked anew.
    :param keep: seconds a connection is kept for the next message.
    :param max_hops: ``Received`` headers a message may have; one that has more runs in circles.
    :param reactor: the reactor, if not the global one.
    :raises ValueError: if the arguments contradict each other or are out of bounds.
    """

    #: For a queue: all recipients go to one host, and ``handle_DATA`` alone names them to it.
    one_next_host: ClassVar[bool] = True

    def __init__(
        self,
        remote_hostname: str | IStreamClientEndpoint,
        remote_port: int | None = None,
        *,
        fallbacks: Sequence[tuple[str | IStreamClientEndpoint, int | None]] = (),
        protocol: str = "smtp",
        tls: str | None = None,
        tls_options: IOpenSSLClientConnectionCreator | None = None,
        tls_hostname: str | None = None,
        tls_ca: str | Path | None = None,
        username: str | None = None,
        password: str | None = None,
        token: Token | None = None,
        auth_without_tls: bool = False,
        verify_recipients: bool = True,
        max_recipients: int | None = None,
        timeout: float = 60,
        data_timeout: float = 480,
        max_connections: int = 20,
        max_connections_per_client: int | None = None,
        hold: float = 60,
        keep: float = 30,
        max_hops: int = 50,
        reactor: Any = None,
    ) -> None:
        if protocol not in ("smtp", "lmtp"):
            raise ValueError(f'protocol is "smtp" or "lmtp", not {protocol!r}')
        if tls not in (None, "starttls", "implicit"):
            raise ValueError(f'tls is None, "starttls" or "implicit", not {tls!r}')
        if (username is None) != (password is None):
            raise ValueError("username and password go together")
        if token is not None and username is not None:
            raise ValueError("a token has its user name: without username and password")
        if (username is not None or token is not None) and tls is None and not auth_without_tls:
            raise ValueError("a password needs tls, or auth_without_tls=True to be sent in clear")
        if tls is None and (tls_options is not None or tls_ca is not None):
            raise ValueError('tls_options and tls_ca need tls, "starttls" or "implicit"')
        for name, value in (
            *(("timeout", timeout), ("data_timeout", data_timeout), ("hold", hold)),
            *(("max_connections", max_connections), ("max_connections_per_client", max_connections_per_client)),
        ):
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0, not {value!r}")
        self.remote_hostname = remote_hostname
        self.remote_port = remote_port
        self._lmtp = protocol == "lmtp"
        self._hosts = [
            host_of(*place, tls=tls, tls_options=tls_options, tls_hostname=tls_hostname, tls_ca=tls_ca)
            for place in ((remote_hostname, remote_port), *fallbacks)
        ]
        self._sign_in: SignIn | None = token
        if username is not None:
            self._sign_in = Credentials(username, password or "")
        self._verify_recipients = verify_recipients
        self._max_recipients = max_recipients
        self._timeout, self._data_timeout = timeout, data_timeout
        self._max_connections, self._keep = max_connections, keep
        self._per_client, self._hold = max_connections_per_client, hold
        self._max_hops = max_hops
        self._reactor = reactor
        self._next: NextHost | None = None
        self._took = Histogram()
        self._transactions: WeakKeyDictionary[Session, Transaction] = WeakKeyDictionary()

    def __repr__(self) -> str:
        port = "" if self.remote_port is None else f":{self.remote_port}"
        return f"<Proxy {self.remote_hostname}{port}>"

    @classmethod
    def from_cli(cls, parser: ArgumentParser, *args: str) -> Proxy:
        """The handler for the command line.

        :param parser: says what is wrong with the arguments.
        :param args: ``HOST:PORT`` or an endpoint description, then options.
        """
        first, options = proxy_arguments(parser, args)
        return cls(*first, **options)

    @property
    def max_connections(self) -> int:
        """Connections to the next host at the same time."""
        return self._max_connections

    @property
    def next_host_gives_notices(self) -> bool:
        """Whether the next host has DSN (RFC 3461), as far as it is known yet: then it tells of success itself."""
        return self._next is not None and "DSN" in (self._next.extensions or ())

    # -- the next host -------------------------------------------------------------------------------------------------

    @property
    def next_host(self) -> NextHost:
        """The next host's connections."""
        if self._next is None:
            if self._reactor is None:
                from twisted.internet import reactor

                self._reactor = reactor
            self._next = NextHost(
                [Route(host, self._reactor) for host in self._hosts],
                self._reactor,
                lmtp=self._lmtp,
                sign_in=self._sign_in,
                timeout=self._timeout,
                max_connections=self._max_connections,
                per_client=self._per_client,
                keep=self._keep,
            )
        return self._next

    def metrics(self) -> list[Metric]:
        """What is known of the next host, see :doc:`/metrics`."""
        return metrics_of(self._next, self._took)

    def close(self) -> None:
        """Close the connections that are not in use."""
        if self._next is not None:
            self._next.close()

    async def stop(self) -> None:
        """Close all connections; a message that waits for one is deferred (451)."""
        if self._next is not None:
            await self._next.end()

    # -- hooks ---------------------------------------------------------------------------------------------------------

    async def handle_EHLO(
        self, server: HookServer, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Offer only what the next host offered, too, when it was last asked."""
        self._end(session)
        session.host_name = hostname
        extensions = self.next_host.extensions
        return responses if extensions is None else lines_to_offer(responses, extensions)

    async def handle_MAIL(
        self, server: HookServer, session: Session, envelope: Envelope, address: str, mail_options: list[str]
    ) -> Missing:
        """Begin a message; the next host hears of it with the first recipient, since many clients never name one."""
        self._end(session)
        if self._verify_recipients:
            self._transactions[session] = Transaction(address, eight_bit=says_eight_bit(envelope))
        return MISSING

    async def handle_RCPT(
        self, server: HookServer, session: Session, envelope: Envelope, address: str, rcpt_options: list[str]
    ) -> Reply | Missing:
        """Ask the next host about a recipient, and before the first one about the sender.

        :returns: its answer.
        """
        limit = self._max_recipients or (1 if self._lmtp else None)
        if limit is not None and len(envelope.rcpt_tos) >= limit and not server.replies_to_each_recipient:
            return Reply(452, "4.5.3", (f"No more than {limit} per message, send another one",))
        transaction = self._transactions.get(session)
        if transaction is not None and transaction.overdue:
            return Reply(452, "4.5.3", ("Too slow: send the other recipients another message",))
        if not self._verify_recipients or transaction is None:
            # Another handler has answered MAIL: the next host is asked when the message has arrived.
            return MISSING
        if transaction.client is None and transaction.refusal is None:
            await self._ask_about_sender(server, session, transaction, envelope)
        if transaction.client is None:
            # It holds for each recipient.
            return transaction.refusal or MISSING
        client = transaction.client
        try:
            _, parameters = parse_parameters(" ".join(rcpt_options))
            reply = await client.ask(rcpt_command(address, parameters, client.extensions))
        except ClientError as error:
            return self._failed(session, error)
        if reply.code < 300:
            transaction.recipients.append(address)
            envelope.rcpt_tos.append(address)
            envelope.rcpt_options.extend(rcpt_options)
        return our_answer(reply)

    async def _ask_about_sender(
        self, server: HookServer, session: Session, transaction: Transaction, envelope: Envelope
    ) -> None:
        transaction.mail_from = envelope.mail_from or NULL_SENDER
        try:
            reply = await self._begin(server, session, transaction, envelope.mail_parameters)
        except ClientError as error:
            transaction.refusal = self._failed(session, error)
            return
        if reply.code < 300:
            self._hold_for(transaction, self._hold)
        else:
            transaction.refusal = our_answer(reply)
            self._give_back(transaction)

    async def handle_RSET(self, server: HookServer, session: Session, envelope: Envelope) -> str:
        """Forget the message, here and there."""
        self._end(session)
        return "250 OK"

    async def handle_DISCONNECT(
        self, server: HookServer, session: Session, envelope: Envelope, reason: Exception
    ) -> None:
        """Our client is gone and will send the message again, so cut it off unless its end was sent on already."""
        transaction = self._transactions.get(session)
        if transaction is None or not transaction.in_data:
            self._end(session)
            return
        transaction.abandoned = True
        client = transaction.client
        if client is not None and client.delivering:
            text = "{session.id}: {proxy} has been sent the message, but the client is gone and may send it again"
            log.warn(text, session=session, proxy=self)
        elif client is not None:
            client.abort(ClientError("our client is gone"))

    async def handle_DATA(self, server: HookServer, session: Session, envelope: Envelope) -> str | Reply | list[Reply]:
        """Send the message on.

        :returns: the next host's answer, or a list of its answers, one per recipient.
        """
        if not envelope.rcpt_tos:
            # Hooks that say 250 and append nothing have discarded each copy.
            return "250 OK"
        transaction = self._transactions.setdefault(session, Transaction(envelope.mail_from or NULL_SENDER))
        transaction.in_data = True
        try:
            message = await self._outgoing(server, session, envelope)
            if transaction.abandoned:
                raise ClientError("our client is gone")
            if message.hops > (hosts := self._max_hops):
                return Reply(554, "5.4.6", (f"Too many hops: the message has been through over {hosts} hosts",))
            since = self.next_host.seconds()
            answers = await self._forward(server, session, envelope, message)
            self._took.observe(self.next_host.seconds() - since)
        except ClientError as error:
            answer: Reply | list[Reply] = self._failed(session, error)
        else:
            answer = verdict(envelope, answers)
        finally:
            self._end(session)
        said = ", ".join(map(str, answer)) if isinstance(answer, list) else answer
        log.info("{session.id}: {proxy} says {answer}", session=session, proxy=self, answer=quoted_text(said))
        return answer

    async def _outgoing(self, server: HookServer, session: Session, envelope: Envelope) -> Outgoing:
        received, content = received_header(server, session, envelope), envelope.content_bytes
        if is_large(content):
            return await compute(Outgoing.prepare, received, content, envelope.binary)  # type: ignore[no-any-return]
        return Outgoing.prepare(received, content, envelope.binary)

    # -- forwarding ----------------------------------------------------------------------------------------------------

    def _failed(self, session: Session, error: ClientError) -> Reply:
        log.warn("{session.id}: {proxy}: {error}", session=session, proxy=self, error=quoted_text(error))
        return error.reply

    def _end(self, session: Session) -> None:
        """Forget the transaction in progress."""
        transaction = self._transactions.pop(session, None)
        if transaction is not None:
            self._give_back(transaction)

    def _give_back(self, transaction: Transaction) -> None:
        """The transaction has no connection any longer."""
        if transaction.hold is not None and transaction.hold.active():
            transaction.hold.cancel()
        client, transaction.client = transaction.client, None
        if client is not None:
            self.next_host.release(client)

    def _hold_for(self, transaction: Transaction, seconds: float) -> None:
        """Take the connection away if the message doesn't begin in time.

        So a client that names recipients forever, or whose session is replaced, keeps no connection from the others.
        """

        def over() -> None:
            client = transaction.client
            if transaction.in_data or client is None:
                return
            if client.busy:
                # It is the next host that takes its time; it has a limit of its own.
                self._hold_for(transaction, 1.0)
                return
            transaction.overdue = True
            self._give_back(transaction)

        transaction.hold = self._reactor.callLater(seconds, over)

    async def _begin(
        self,
        server: HookServer,
        session: Session,
        transaction: Transaction,
        parameters: Mapping[str, str | None],
        size: int | None = None,
    ) -> Reply:
        """Give the next host the sender.

        :returns: its reply; if it is a yes, the transaction has a connection.
        """
        # A queue has its own limits, and no client waits.
        peer = None if getattr(server, "from_queue", False) else session.peer
        holder = limited_address(peer[0]) if isinstance(peer, tuple) else None
        while True:
            client = await self.next_host.acquire(server.hostname, holder)
            reused = client.reused
            transaction.client = client
            try:
                command = mail_command(
                    within_brackets(transaction.mail_from), parameters, client.extensions, size, transaction.eight_bit
                )
                reply = await client.ask(command)
            except ConnectionGone:
                transaction.client = None
                # A kept connection may have timed out over there.  Nothing is lost by asking again.
                if reused:
                    continue
                raise
            except BaseException:
                transaction.client = None
                self.next_host.release(client)
                raise
            if reply.code == 421 and reused:
                transaction.client = None
                continue
            if transaction.abandoned:
                raise ClientError("our client is gone")
            client.in_transaction = reply.code < 300
            return reply

    async def _forward(
        self, server: HookServer, session: Session, envelope: Envelope, message: Outgoing
    ) -> Sequence[Reply]:
        """Send the message on.

        :returns: the next host's reply for all recipients, or one for each.
        """
        transaction = self._transactions.get(session)
        refused: dict[int, Reply] = {}
        eight_bit = says_eight_bit(envelope) or not message.plain
        if transaction is None or not transaction.still_holds(envelope, eight_bit):
            self._end(session)
            transaction = Transaction(envelope.mail_from or NULL_SENDER, eight_bit=eight_bit, in_data=True)
            self._transactions[session] = transaction
            reply = await self._begin(server, session, transaction, envelope.mail_parameters, message.size)
            if reply.code >= 300:
                return [our_answer(reply)]
            refused = await self._name_recipients(server, transaction, envelope)
            if refused and (len(refused) == len(envelope.rcpt_tos) or not server.replies_to_each_recipient):
                return none_served(envelope, refused)
        assert transaction is not None and transaction.client is not None
        if transaction.hold is not None and transaction.hold.active():
            transaction.hold.cancel()
        client = transaction.client
        refusal = check_message(message, envelope.smtp_utf8, client.extensions, envelope.binary)
        if refusal is not None:
            return [refusal]
        content, chunk = message.content, client.takes_chunks
        if not chunk:
            content = await compute(stuff_dots, content) if is_large(content) else stuff_dots(content)
            if transaction.abandoned:
                raise ClientError("our client is gone")
            reply = await client.ask("DATA")
            if reply.code != 354:
                # A yes is no answer to DATA: the message has not been sent.
                return [our_answer(reply) if reply.code >= 400 else ClientError(f"DATA: {reply}").reply]
        replies = len(envelope.rcpt_tos) - len(refused) if self._lmtp else 1
        given = await client.send_content(content, replies, self._data_timeout, chunk)
        return by_recipient(envelope, refused, [our_answer(one) for one in given], self._lmtp)

    async def _name_recipients(
        self, server: HookServer, transaction: Transaction, envelope: Envelope
    ) -> dict[int, Reply]:
        """Give the next host the recipients.

        :returns: which of them it refuses, and how.
        """
        client = transaction.client
        assert client is not None
        known = [recipient.address for recipient in envelope.recipients] == envelope.rcpt_tos
        relays_notices = getattr(server, "from_queue", False)
        refused: dict[int, Reply] = {}
        commands: dict[int, str] = {}
        for number, address in enumerate(envelope.rcpt_tos):
            # If a hook has put in other addresses, the parameters can't be assigned to them.
            parameters = envelope.recipients[number].parameters if known else {}
            try:
                commands[number] = rcpt_command(address, parameters, client.extensions, relays_notices)
            except SMTPReplyError as error:
                refused[number] = error.reply
        replies = await client.ask_all(list(commands.values()))
        for number, reply in zip(commands, replies, strict=True):
            if reply.code < 300:
                transaction.recipients.append(envelope.rcpt_tos[number])
            else:
                refused[number] = our_answer(reply)
        return refused
