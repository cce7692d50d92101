"""Every option of the server: its name, type, default and bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict

from twisted.internet.interfaces import IReactorTime

from twisted_smtpd.options.networks import Network

__all__ = ["DEFAULTS", "OPTIONS", "AuthCallbackType", "AuthenticatorType", "SMTPOptions", "call_limits", "check"]

#: ``auth_callback(mechanism, login, password)``: whether it is the user's password.
AuthCallbackType = Callable[[str, bytes, bytes], Any]
#: ``authenticator(server, session, envelope, mechanism, auth_data)``: an :class:`AuthResult`, or an awaitable of one.
AuthenticatorType = Callable[[Any, Any, Any, str, Any], Any]

MIB = 2**20


class SMTPOptions(TypedDict, total=False):
    """The keyword arguments of :class:`twisted_smtpd.smtp.SMTP`, which documents them."""

    data_size_limit: int | None
    enable_SMTPUTF8: bool
    decode_data: bool
    hostname: str | None
    ident: str | None
    timeout: float
    command_call_limit: int | Mapping[str, int] | None
    line_length_limit: int | None
    max_recipients: int
    session_timeout: float
    min_data_rate: float
    max_errors: int
    max_connections: int
    max_connections_per_address: int
    max_buffered: int
    hook_timeout: float
    bare_newline: str
    enhanced_status_codes: bool
    tls_context: Any
    require_starttls: bool
    ssl_context: Any
    proxy_from: Iterable[Network] | None
    proxy_protocol_timeout: float | None
    xclient_from: Iterable[Network] | None
    auth_required: bool
    auth_require_tls: bool
    auth_mechanisms: Iterable[str] | None
    auth_exclude_mechanism: Iterable[str] | None
    auth_callback: AuthCallbackType | None
    authenticator: AuthenticatorType | None
    max_auth_failures: int
    loop: Any
    clock: IReactorTime | None


DEFAULTS = SMTPOptions(
    data_size_limit=32 * MIB,
    enable_SMTPUTF8=True,
    decode_data=False,
    hostname=None,
    ident=None,
    timeout=300,
    command_call_limit=None,
    line_length_limit=2000,
    max_recipients=1000,
    session_timeout=3600,
    min_data_rate=100,
    max_errors=10,
    max_connections=1000,
    max_connections_per_address=50,
    max_buffered=512 * MIB,
    hook_timeout=540,
    bare_newline="normalize",
    enhanced_status_codes=True,
    tls_context=None,
    require_starttls=False,
    ssl_context=None,
    proxy_from=None,
    proxy_protocol_timeout=None,
    xclient_from=None,
    auth_required=False,
    auth_require_tls=True,
    auth_mechanisms=None,
    auth_exclude_mechanism=None,
    auth_callback=None,
    authenticator=None,
    max_auth_failures=3,
    loop=None,
    clock=None,
)

#: The options that are attributes of a connection.
OPTIONS = tuple(name for name in DEFAULTS if name not in ("loop", "clock"))

_ABOVE_ZERO = (
    "timeout",
    "session_timeout",
    "hook_timeout",
    "max_recipients",
    "max_errors",
    "max_connections",
    "proxy_protocol_timeout",
    "max_auth_failures",
)
_ZERO_OR_MORE = ("min_data_rate", "max_buffered", "data_size_limit", "line_length_limit", "max_connections_per_address")


def check(values: Mapping[str, Any]) -> None:
    for name in (*_ABOVE_ZERO, *_ZERO_OR_MORE):
        value = values[name]
        optional = DEFAULTS[name] is None or name in ("data_size_limit", "line_length_limit")  # type: ignore[literal-required]
        if value is None and optional:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} is a number, not {value!r}")
        if value < 0 or (value == 0 and name in _ABOVE_ZERO):
            raise ValueError(f"{name} must be {'above 0' if name in _ABOVE_ZERO else '0 or more'}, not {value!r}")
    if values["bare_newline"] not in ("normalize", "reject"):
        raise ValueError(f'bare_newline is "normalize" or "reject", not {values["bare_newline"]!r}')


def call_limits(limit: int | Mapping[str, int] | None) -> dict[str, int] | None:
    """``command_call_limit`` as verb to count; ``*`` is for those that are not named, 20 by default."""
    if limit is None:
        return None
    if isinstance(limit, Mapping):
        if not all(isinstance(count, int) for count in limit.values()):
            raise TypeError("each value of command_call_limit is an int")
        return {"*": 20, **limit}
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"command_call_limit is an int or a dict of verb to int, not {limit!r}")
    return {"*": limit}
