"""The limits on what a client may do, once: the rows of the table of options that are numbers.

See :mod:`twisted_smtpd.options.table`.  A new limit is a row here, and the line that enforces it.
"""

# Without `from __future__ import annotations`: it would make strings of the rows.

from collections.abc import Mapping
from typing import Annotated, TypedDict

from twisted_smtpd.options.option import COUNT, OCTETS, OCTETS_PER_SECOND, SECONDS, Option

__all__ = ["CALLS_OF_OTHERS", "DAY", "MIB", "LimitOptions"]

MIB = 2**20
DAY = 86400

#: How often a client may send a command that a command_call_limit mapping does not name.
CALLS_OF_OTHERS = 20


class LimitOptions(TypedDict, total=False):
    """Those keyword arguments of :class:`twisted_smtpd.smtp.SMTP` that are limits."""

    data_size_limit: Annotated[
        int | None,
        Option(
            32 * MIB,
            "octets a message may have",
            unit=OCTETS,
            high=2**40,
            zero="any size",
            flag="size",
            short="s",
        ),
    ]
    timeout: Annotated[
        float,
        Option(
            300,
            "seconds a client may stay silent",
            "They begin with its last whole line, in a message with its last octet.",
            unit=SECONDS,
            low=0.1,
            high=DAY,
        ),
    ]
    command_call_limit: Annotated[
        int | Mapping[str, int] | None,
        Option(
            None,
            "how often a client may send each command in one session",
            f'A mapping of verb to number has a number for each; that of ``"*"`` ({CALLS_OF_OTHERS} unless given) is '
            "for the verbs it does not name.",
            unit=COUNT,
            low=1,
            high=10**9,
            per_verb=True,
            unset="no limit",
        ),
    ]
    line_length_limit: Annotated[
        int | None,
        # RFC 5321 section 4.5.3.1.6 grants every line 1000 octets.  The constructor takes less for tests of handlers.
        Option(
            2000,
            "octets a line of a message may have, CRLF included",
            "``Debugging``, ``Mailbox`` and ``Sink`` take any length unless it is given.",
            unit=OCTETS,
            low=1,
            high=2**30,
            zero="any length",
            cli_low=1000,
        ),
    ]
    header_size_limit: Annotated[
        int,
        Option(
            512 * 2**10,
            "octets the header of a message may have",
            "A message with more gets 552.",
            unit=OCTETS,
            low=1000,
            high=2**30,
            zero="any size",
        ),
    ]
    header_line_limit: Annotated[
        int,
        Option(
            3000,
            "lines the header of a message may have",
            "A message with more gets 552.  What parses it takes its time for each line, not for each octet.",
            unit=COUNT,
            low=10,
            high=10**7,
            zero="any number",
        ),
    ]
    max_recipients: Annotated[
        int, Option(1000, "recipients a message may have", "More get 452.", unit=COUNT, low=1, high=10**6)
    ]
    session_timeout: Annotated[
        float, Option(3600, "seconds a connection may last", unit=SECONDS, low=0.1, high=30 * DAY)
    ]
    handshake_timeout: Annotated[
        float,
        Option(
            60,
            "seconds a TLS handshake may take",
            "The connection is dropped then, without a reply.",
            unit=SECONDS,
            low=0.1,
            high=DAY,
            own=False,
        ),
    ]
    min_data_rate: Annotated[
        float,
        Option(
            100,
            "octets a second at which a message must arrive",
            "The rate is taken over 60 seconds.",
            unit=OCTETS_PER_SECOND,
            high=2**30,
            zero="any rate",
        ),
    ]
    max_errors: Annotated[
        int, Option(10, "errors after which a client is cut off", "It gets 421.", unit=COUNT, low=1, high=10**6)
    ]
    max_refusals: Annotated[
        int,
        Option(
            100,
            "refusals by the handler after which a client is cut off",
            "They count until a message is accepted: of senders, recipients, messages, VRFY, EXPN and ETRN.  The "
            "client gets 421; while some of its recipients are accepted, the further ones get 452 instead.",
            unit=COUNT,
            high=10**6,
            zero="any number",
        ),
    ]
    max_idle_commands: Annotated[
        int,
        Option(
            100,
            "commands that achieve nothing after which a client is cut off",
            "They count until a message is accepted: NOOP, RSET, HELP, VRFY, EXPN, ETRN, HELO, EHLO, LHLO and empty "
            "chunks.  The client gets 421.",
            unit=COUNT,
            high=10**6,
            zero="any number",
        ),
    ]
    max_connections: Annotated[
        int,
        Option(
            1000,
            "connections the server has at the same time",
            "More get 421.",
            unit=COUNT,
            low=1,
            high=10**6,
            shared=True,
        ),
    ]
    max_connections_per_address: Annotated[
        int,
        Option(
            50,
            "connections from one IPv4 address or IPv6 /64 at the same time",
            "More get 421.  Loopback addresses and Unix sockets are exempt.",
            unit=COUNT,
            high=10**6,
            zero="any number",
            shared=True,
        ),
    ]
    connection_rate: Annotated[
        int,
        Option(
            0,
            "connections a minute from one IPv4 address or IPv6 /64",
            "More get 421.  Loopback addresses and Unix sockets are exempt, as from the next two.",
            unit=COUNT,
            high=10**6,
            zero="any number",
            own=False,
            shared=True,
        ),
    ]
    message_rate: Annotated[
        int,
        Option(
            0,
            "messages a minute (MAIL) from one IPv4 address or IPv6 /64",
            "More get 450.",
            unit=COUNT,
            high=10**6,
            zero="any number",
            own=False,
            shared=True,
        ),
    ]
    recipient_rate: Annotated[
        int,
        Option(
            0,
            "recipients a minute (RCPT) from one IPv4 address or IPv6 /64",
            "More get 450.",
            unit=COUNT,
            high=10**6,
            zero="any number",
            own=False,
            shared=True,
        ),
    ]
    max_buffered: Annotated[
        int,
        Option(
            512 * MIB,
            "octets of messages in progress that the server keeps in memory, over all connections",
            "A message beyond that gets 452.  A large one counts three times while the handler has it, for its copies.",
            unit=OCTETS,
            high=2**44,
            zero="any number",
            shared=True,
        ),
    ]
    max_buffered_per_address: Annotated[
        int | None,
        Option(
            None,
            "octets of that for one IPv4 address or IPv6 /64",
            "A message beyond that gets 452.  Loopback addresses and Unix sockets are exempt.",
            unit=OCTETS,
            high=2**44,
            zero="any number",
            unset="a quarter",
            shared=True,
        ),
    ]
    hook_timeout: Annotated[
        float,
        Option(540, "seconds a hook of the handler may take", "It gets 451 then.", unit=SECONDS, low=0.1, high=DAY),
    ]
