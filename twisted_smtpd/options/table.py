"""Every option of the server, once; the limits are in :mod:`twisted_smtpd.options.limits`.

A row has the option's name, its type and an :class:`~twisted_smtpd.options.option.Option`.  From it come the default,
the checks, the connection's attribute, the command line's option and all texts about it.  A new option is a row, and
the line that acts on it.
"""

# Without `from __future__ import annotations`: it would make strings of the rows.

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, cast

from twisted.internet.interfaces import IReactorTime

from twisted_smtpd.options.limits import CALLS_OF_OTHERS, LimitOptions
from twisted_smtpd.options.networks import Network
from twisted_smtpd.options.option import (
    COUNT,
    SECONDS,
    Option,
    is_domain,
    is_host_name,
    is_text,
)

__all__ = [
    "DEFAULTS",
    "OPTIONS",
    "PROXY_TIMEOUT",
    "TABLE",
    "AuthCallbackType",
    "AuthenticatorType",
    "SMTPOptions",
    "assign_options",
    "call_limits",
    "check",
]

#: ``auth_callback(mechanism, login, password)``: whether it is the user's password.
AuthCallbackType = Callable[[str, bytes, bytes], Any]
#: ``authenticator(server, session, envelope, mechanism, auth_data)``: an :class:`AuthResult`, or an awaitable of one.
AuthenticatorType = Callable[[Any, Any, Any, str, Any], Any]

# The PROXY specification (section 4) asks for 3 seconds at least, so that a lost segment can be sent again.
PROXY_TIMEOUT = 5


class SMTPOptions(LimitOptions, total=False):
    """The keyword arguments of :class:`twisted_smtpd.smtp.SMTP`."""

    enable_SMTPUTF8: Annotated[
        bool,
        Option(
            True,
            "whether to offer SMTPUTF8 (RFC 6531)",
            flag="no-smtputf8",
            flag_help="don't offer SMTPUTF8 (RFC 6531): addresses and headers in ASCII only",
        ),
    ]
    decode_data: Annotated[
        bool,
        Option(
            False,
            "whether the handler gets the message as ``str``",
            "It is decoded from UTF-8 with ``surrogateescape``.",
            flag="decode-data",
            flag_help="give the handler the message as str instead of bytes",
        ),
    ]
    hostname: Annotated[
        str | None,
        Option(
            None,
            "the server's name in its greeting and replies",
            valid=is_host_name,
            wanted="a host name",
            unset="this machine's full name",
            flag="hostname",
            metavar="NAME",
        ),
    ]
    ident: Annotated[
        str | None,
        Option(
            None,
            "what follows the name in the greeting",
            valid=is_text,
            wanted="printable ASCII of at most 400 characters",
            unset="the software's name",
            flag="ident",
        ),
    ]
    bare_newline: Annotated[
        str,
        Option(
            "normalize",
            "what to do with a CR or LF alone: a LF ends a line, and a CR in a message becomes a blank (normalize), "
            "or refuse the command or message (reject)",
            choices=("normalize", "reject"),
            flag="bare-newline",
        ),
    ]
    default_domain: Annotated[
        str | None,
        Option(
            None,
            "the domain of an address that comes without one, such as ``<root>``",
            "Without it such addresses get 553, except ``<postmaster>``, which is left as it is.",
            valid=is_domain,
            wanted="a domain",
            unset="none",
            flag="default-domain",
            metavar="DOMAIN",
        ),
    ]
    enhanced_status_codes: Annotated[
        bool,
        Option(
            True,
            "whether replies have enhanced status codes (RFC 2034)",
            flag="no-enhanced-status-codes",
            flag_help="reply without enhanced status codes (RFC 2034)",
        ),
    ]
    ignore_parameters: Annotated[
        Iterable[str] | None,
        Option(
            None,
            "parameters of MAIL and RCPT to ignore where the server does not know them, such as X-TRACE,SOLICIT",
            "The handler does not see them.  Others that the server does not know get 555; but AUTH is ignored where "
            "it is not offered.",
            unset="none",
            flag="ignore-parameters",
            group="extensions",
            metavar="NAMES",
        ),
    ]
    offer_extensions: Annotated[
        Iterable[str] | Iterable[Any] | None,
        Option(
            None,
            "ESMTP extensions to offer because the handler honours them: DELIVERBY, FUTURERELEASE, MT-PRIORITY, RRVS, "
            "or one of another package as package.module.Name",
            "It takes :class:`~twisted_smtpd.extensions.Extension` objects as well.",
            unset="none",
            flag="offer-extensions",
            group="extensions",
            own=False,
        ),
    ]
    disable_extensions: Annotated[
        Iterable[str] | None,
        Option(
            None,
            "ESMTP extensions not to offer: BINARYMIME, CHUNKING, DSN, LIMITS, REQUIRETLS, or others that are optional",
            unset="none",
            flag="disable-extensions",
            group="extensions",
            own=False,
        ),
    ]
    trace: Annotated[
        bool,
        Option(
            False,
            "whether the log has the dialog with each client",
            "Passwords are left out, and of a message only its size is told.",
            flag="trace",
            short="d",
            flag_help="write the dialog with each client into the log, without passwords and content",
        ),
    ]
    tls_context: Annotated[
        Any,
        Option(
            None,
            "offers STARTTLS: an :class:`ssl.SSLContext` for servers, a :class:`~twisted_smtpd.tls.CertificateFiles`, "
            "or what else :func:`twisted_smtpd.tls.connection_creator` takes",
            flag="tlscert",
            metavar="FILE",
            repeats=True,
            path=True,
            flag_help="certificate and chain (PEM) for STARTTLS and --listen-tls; may be repeated, a --tlskey for each",
            group="tls",
        ),
    ]
    require_starttls: Annotated[
        bool,
        Option(
            False,
            "whether a client must start TLS before anything else",
            "Commands before that get 530.",
            flag="no-requiretls",
            flag_help="with --tlscert: take mail without TLS, too",
            group="tls",
        ),
    ]
    ssl_context: Annotated[
        Any,
        Option(
            None,
            "speaks TLS from the start (port 465): the same kinds of context as ``tls_context``",
            "A transport that has TLS already, from an ``ssl:`` endpoint for example, needs none.",
            flag="smtpscert",
            metavar="FILE",
            path=True,
            flag_help="certificate (PEM): the --listen places speak TLS from the start",
            group="tls",
        ),
    ]
    proxy_from: Annotated[
        Iterable[Network] | None,
        Option(
            None,
            'networks (``["10.0.0.0/8", "2001:db8::1", "unix"]``) whose connections must begin with a PROXY header',
            "It comes before TLS and says who the client is.  From other addresses a header is a bad command.",
            flag="proxy-from",
            metavar="NETWORK",
            repeats=True,
            flag_help='require a PROXY header from this network or address (or "unix"), and take none from others; '
            "may be repeated",
            group="proxies",
        ),
    ]
    proxy_protocol_timeout: Annotated[
        float | None,
        Option(
            None,
            "seconds the PROXY header may take",
            "Without ``proxy_from`` it makes every connection need a header, which ``handle_PROXY`` has to judge.",
            unit=SECONDS,
            low=0.1,
            high=600,
            unset=str(PROXY_TIMEOUT),
            flag="proxy-timeout",
            group="proxies",
        ),
    ]
    xclient_from: Annotated[
        Iterable[Network] | None,
        Option(
            None,
            "networks whose clients may use XCLIENT and XFORWARD",
            flag="xclient-from",
            metavar="NETWORK",
            repeats=True,
            flag_help='let this network or address (or "unix") use XCLIENT and XFORWARD; may be repeated',
            group="proxies",
        ),
    ]
    auth_required: Annotated[
        bool,
        Option(
            False,
            "whether a client must authenticate before it may send mail",
            "Commands before that get 530.",
            flag="auth-required",
            flag_help="take no mail before authentication",
            group="auth",
        ),
    ]
    auth_require_tls: Annotated[
        bool,
        Option(
            True,
            "whether AUTH needs TLS",
            "In clear it gets 538.",
            flag="auth-without-tls",
            flag_help="offer AUTH in clear as well: passwords can be read on their way",
            group="auth",
        ),
    ]
    auth_mechanisms: Annotated[
        str | Iterable[str] | None,
        Option(
            None,
            "the mechanisms to offer, such as PLAIN,SCRAM-SHA-256",
            "The handler's ``auth_*`` hooks and the authenticator have to be able to do them.",
            unset="all that can be done, except CRAM-MD5",
            flag="auth-mechanisms",
            metavar="NAMES",
            group="auth",
        ),
    ]
    auth_exclude_mechanism: Annotated[str | Iterable[str] | None, Option(None, "mechanisms not to offer")]
    auth_callback: Annotated[
        AuthCallbackType | None,
        Option(
            None,
            "called with mechanism, name and password (both bytes); lets a client in by returning ``True``, and by no "
            "other value",
        ),
    ]
    authenticator: Annotated[
        AuthenticatorType | None,
        Option(
            None,
            "used instead of ``auth_callback``; see :class:`twisted_smtpd.auth.IAuthenticator`",
            "Without either, and without ``auth_*`` hooks, there is no AUTH.",
        ),
    ]
    max_auth_failures: Annotated[
        int, Option(3, "wrong passwords after which a client is cut off", "It gets 421.", unit=COUNT, low=1, high=10**6)
    ]
    loop: Annotated[Any, Option(None, "accepted for programs that pass one; the reactor decides", own=False)]
    clock: Annotated[
        # A string, because an old zope.interface has no `|`.
        "IReactorTime | None", Option(None, "the provider of time", unset="the global reactor", own=False)
    ]


#: Each option by its keyword argument.
TABLE: dict[str, Option] = {
    name: row.__metadata__[0].named(name, row.__origin__) for name, row in SMTPOptions.__annotations__.items()
}

DEFAULTS = cast(SMTPOptions, {name: option.default for name, option in TABLE.items()})

#: The options that are attributes of a connection.
OPTIONS = tuple(name for name, option in TABLE.items() if option.own)

_CHECKED = tuple(option for option in TABLE.values() if option.unit or option.choices or option.valid or option.names)


def check(values: Mapping[str, Any]) -> None:
    """Check the values of all options.

    :param values: by keyword argument.
    :raises TypeError: one is of the wrong type.
    :raises ValueError: one is out of bounds.
    """
    for option in _CHECKED:
        option.check(values[option.name])


def call_limits(limit: int | Mapping[str, int] | None) -> dict[str, int] | None:
    """``command_call_limit`` as verb to number; the number of ``*`` is for the verbs that are not named."""
    if limit is None:
        return None
    return {"*": CALLS_OF_OTHERS, **limit} if isinstance(limit, Mapping) else {"*": limit}


def _make_assign_options() -> Callable[[Any, Sequence[Any]], None]:
    # One assignment of a tuple takes 0.3 us for 31 options, where setattr() in a loop takes 3.
    targets = "".join(f"connection.{name}, " for name in OPTIONS)
    namespace: dict[str, Any] = {"__name__": __name__}
    exec(f"def assign_options(connection, values):\n    {targets}= values\n", namespace)
    function: Callable[[Any, Sequence[Any]], None] = namespace["assign_options"]
    return function


#: ``assign_options(connection, values)`` sets all options of a connection; the values are in the order of ``OPTIONS``.
assign_options = _make_assign_options()
