"""The options of the command line that are no keyword arguments of the server: where it listens, logs, certificates.

Their rows are like those of the server's table.  From both come the command line, the configuration file and the
environment variables.
"""

from __future__ import annotations

from twisted_smtpd.logs.setup import FORMATS, LEVELS
from twisted_smtpd.options.option import COUNT, SECONDS, Option
from twisted_smtpd.options.table import TABLE

__all__ = ["COMMAND", "FLAGS", "SETTINGS", "TLS_VERSIONS"]

#: The versions of TLS that ``--tls-minimum`` takes.
TLS_VERSIONS = ("1.0", "1.1", "1.2", "1.3")

_ROWS = (
    Option(
        "console",
        "the handler: a name (see --help-handlers) or a class, package.module.Class",
        flag="class",
        short="c",
        group="handler",
        key="handler",
        metavar="NAME",
    ),
    Option(
        None,
        "HOST:PORT, [IPv6]:PORT, PORT (of the loopback) or a Twisted endpoint description; may be repeated",
        unset="localhost:8025",
        flag="listen",
        short="l",
        group="listening",
        metavar="WHERE",
        repeats=True,
    ),
    Option(
        None,
        "as --listen, with TLS from the start (port 465); may be repeated",
        flag="listen-tls",
        group="listening",
        metavar="WHERE",
        repeats=True,
    ),
    Option(
        False,
        "the --listen places speak TLS from the start, with the certificate of --tlscert or --tls-self-signed",
        flag="implicit-tls",
        group="listening",
    ),
    Option(
        None,
        "read options from this file (TOML); the command line goes before it",
        flag="config",
        group="process",
        metavar="FILE",
        process=True,
        in_file=False,
    ),
    Option(
        False,
        "say whether the server would start, and exit",
        flag="check",
        group="process",
        process=True,
        in_file=False,
    ),
    Option(
        False,
        "print the options in force and where each comes from, and exit",
        flag="show-config",
        group="process",
        process=True,
        in_file=False,
    ),
    Option(
        10,
        "seconds that messages in progress get at shutdown",
        unit=SECONDS,
        high=3600,
        flag="grace",
        group="process",
        process=True,
    ),
    Option(
        1,
        "processes that share the ports; each has limits of its own",
        unit=COUNT,
        low=1,
        high=256,
        flag="workers",
        group="process",
        process=True,
    ),
    Option(
        None,
        "where to serve /metrics (Prometheus), /healthz and /readyz over HTTP, as for --listen",
        flag="metrics",
        group="process",
        metavar="WHERE",
        process=True,
    ),
    Option(
        "default",
        "the reactor: asyncio, epoll, poll, select or another that Twisted has",
        flag="reactor",
        group="process",
        metavar="NAME",
        process=True,
        command=True,
    ),
    Option(
        "text",
        "a line for people or a JSON object for each event",
        choices=FORMATS,
        flag="log-format",
        group="log",
        process=True,
        command=True,
    ),
    Option(
        "info",
        "log what is at least as grave as this",
        choices=LEVELS,
        flag="log-level",
        group="log",
        process=True,
        command=True,
    ),
    Option(
        None,
        "append the log to this file; - is the standard error",
        unset="-",
        flag="log-file",
        group="log",
        metavar="FILE",
        process=True,
        command=True,
    ),
    Option(
        False,
        "speak LMTP instead of SMTP: an answer for each recipient, to a mail server in front",
        flag="lmtp",
        group="protocol",
    ),
    Option(
        None,
        "the key, if --tlscert has no key; may be repeated",
        flag="tlskey",
        group="tls",
        metavar="FILE",
        repeats=True,
        path=True,
    ),
    Option(None, "the key, if --smtpscert has no key", flag="smtpskey", group="tls", metavar="FILE", path=True),
    Option(
        None,
        "ask clients for certificates of the authorities in this file (PEM)",
        flag="tls-client-ca",
        group="tls",
        metavar="FILE",
        path=True,
    ),
    Option(
        "1.2",
        "the oldest version of TLS; 1.0 and 1.1 can be broken, and are for old devices only",
        choices=TLS_VERSIONS,
        flag="tls-minimum",
        group="tls",
    ),
    Option(
        False,
        "offer TLS with a throw-away certificate",
        flag="tls-self-signed",
        group="tls",
    ),
    Option(
        None,
        "put the throw-away certificate here: clients that are given DIR/ca.pem trust it",
        flag="tls-write-to",
        group="tls",
        metavar="DIR",
        path=True,
    ),
    Option(False, "an RSA key for it, for clients that know no other", flag="tls-rsa", group="tls"),
    Option(
        None,
        "users and hashed passwords; twisted-smtpd-passwd writes such a file",
        flag="auth-file",
        group="auth",
        metavar="FILE",
        path=True,
    ),
    Option(
        None,
        "a checker of twisted.cred (see --help-auth); may be repeated",
        flag="auth",
        group="auth",
        metavar="KIND:ARGUMENT",
        repeats=True,
        secret=True,
    ),
    Option(
        False,
        "take any name and any password, in clear too: for trying things out only",
        flag="auth-any",
        group="auth",
    ),
    Option(
        None,
        "fail on purpose, to test clients: WHERE is a command, CONNECT, TLS, AUTH, CONTENT, MESSAGE or ANSWER; WHAT is "
        "a reply, drop, reset, stall, slow, split, garble or greylist; then a chance (:10%), :times=N, :after=N or "
        ":match=TEXT; may be repeated",
        flag="fail",
        group="failures",
        metavar="WHERE=WHAT",
        repeats=True,
    ),
    Option(
        0,
        "with the same seed, the same clients fail",
        unit=COUNT,
        high=2**31,
        flag="fail-seed",
        group="failures",
    ),
)

#: The options of the command line's own, by flag.
COMMAND = {option.flag: option for option in _ROWS}

#: All options that the command line has, by their names in a configuration file.
SETTINGS = {option.key: option for option in (*_ROWS, *(option for option in TABLE.values() if option.flag))}

#: Each flag of the command line with its option and, for one that is on or off, the value that it stands for.
FLAGS: dict[str, tuple[Option, bool | None]] = {
    **{option.flag: (option, not option.default if option.switch else None) for option in SETTINGS.values()},
    # It says what holds anyway.
    "smtputf8": (TABLE["enable_SMTPUTF8"], True),
    # With --tlscert the default is yes, with --tls-self-signed it is no.
    "no-requiretls": (TABLE["require_starttls"], False),
    "requiretls": (TABLE["require_starttls"], True),
}
