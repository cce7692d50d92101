"""The arguments of ``-c proxy`` on the command line and in a configuration file."""

from __future__ import annotations

import shlex
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.threads import deferToThread

from twisted_smtpd.handlers.forwarding.credentials import CredentialsError, Token, command_output, first_line
from twisted_smtpd.handlers.forwarding.hosts import parse_place

if TYPE_CHECKING:
    from argparse import ArgumentParser

__all__ = ["proxy_arguments"]


def _add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "where",
        nargs="+",
        metavar="HOST:PORT",
        help="the next host; more are tried in order; or an endpoint (unix:/path)",
    )
    add("--lmtp", action="store_true", help="the next host speaks LMTP")
    add("--tls", choices=("starttls", "implicit"), help="encrypt, and verify the certificate")
    add("--tls-ca", metavar="FILE", help="the authorities that may have issued it (PEM)")
    add("--tls-hostname", metavar="NAME", help="the name in it, if not HOST")
    add("--username", metavar="NAME", help="sign in as this user")
    add("--password-file", metavar="FILE", help="a file with the password in its first line")
    add("--oauth-token-file", metavar="FILE", help="a file with a token of OAuth 2, read at each sign-in")
    add("--oauth-token-command", metavar="COMMAND", help="a command that prints the token; no shell runs it")
    add("--auth-without-tls", action="store_true", help="send the password in clear if need be")
    add("--after-data", action="store_true", help="ask about recipients after the message only")
    add("--max-recipients", type=int, metavar="N", help="recipients a message may have")
    for name, help in (
        ("timeout", "the next host may be silent so long"),
        ("data-timeout", "and so long before it accepts the message"),
        ("hold", "a client may keep a connection before its message begins"),
        ("keep", "a connection is kept for the next message"),
    ):
        add(f"--{name}", type=float, metavar="SECONDS", help=help)
    for name, help in (
        ("max-connections", "connections at the same time"),
        ("max-connections-per-client", "of these for one client"),
        ("max-hops", "hosts that a message may have been through"),
    ):
        add(f"--{name}", type=int, metavar="N", help=help)


# They go to the constructor under their own names, if they are given.
_PASSED_ON = (
    *("max_recipients", "timeout", "data_timeout", "hold", "keep"),
    *("max_connections", "max_connections_per_client", "max_hops"),
)


def proxy_arguments(parser: ArgumentParser, words: tuple[str, ...]) -> tuple[tuple[str, int | None], dict[str, Any]]:
    """What the words say, as arguments of :class:`~twisted_smtpd.handlers.proxy.Proxy`.

    :param parser: says what is wrong with them.
    :param words: ``HOST:PORT`` or an endpoint description, perhaps others, and options.
    :returns: the first host, and the keyword arguments.
    """
    _add_arguments(parser)
    options = parser.parse_args(list(words))
    try:
        first, *others = [parse_place(place) for place in options.where]
        password = None if options.password_file is None else first_line(options.password_file)
    except (ValueError, CredentialsError) as error:
        parser.error(str(error))
    token = _token(parser, options)
    if options.username is None and (password is not None or token is not None):
        parser.error("a password or a token needs --username")
    if password is not None and token is not None:
        parser.error("--password-file or a token, not both")
    given = {name: getattr(options, name) for name in _PASSED_ON if getattr(options, name) is not None}
    return first, {
        "fallbacks": others,
        "protocol": "lmtp" if options.lmtp else "smtp",
        "tls": options.tls,
        "tls_ca": options.tls_ca,
        "tls_hostname": options.tls_hostname,
        "username": options.username if token is None else None,
        "password": password,
        "token": token,
        "auth_without_tls": options.auth_without_tls,
        "verify_recipients": not options.after_data,
        **given,
    }


def _token(parser: ArgumentParser, options: Any) -> Token | None:
    path, command = options.oauth_token_file, options.oauth_token_command
    if path is not None and command is not None:
        parser.error("--oauth-token-file or --oauth-token-command, not both")
    if path is not None:
        try:
            # Read now for its errors, and again at each sign-in: a token is valid for an hour or so.
            first_line(path)
        except CredentialsError as error:
            parser.error(str(error))
        return Token(options.username or "", partial(first_line, path))
    if command is not None:
        if not (words := shlex.split(command)):
            parser.error("--oauth-token-command: no command")
        return Token(options.username or "", partial(deferToThread, command_output, words))
    return None
