"""Which mechanisms a server has, computed once; and which of them a client may use now."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from twisted.logger import Logger

from twisted_smtpd.auth.results import MECHANISM_NAME
from twisted_smtpd.auth.view import AuthClient, Mechanism
from twisted_smtpd.protocol.settings import SharedSettings

__all__ = [
    "MAX_AUTH_LINE",
    "Mechanism",
    "any_credentials",
    "binding_of",
    "builtin",
    "mechanism_table",
    "needs_tls",
    "usable",
    "usable_names",
    "warn_of_no_tls",
]

log = Logger()

F = TypeVar("F", bound=Callable[..., Any])

#: RFC 4954 section 4: octets of a line of the exchange, CRLF included.
MAX_AUTH_LINE = 12288

PREFIX = "auth_"
#: Marks this package's own methods; the methods of a subclass that override them do not have it.
BUILTIN = "__auth_builtin__"
# They give the authenticator a password, or what a client has proved; any authenticator may be able to check it.
_OF_ANY = frozenset({"PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER", "EXTERNAL"})
_PLUS = "-PLUS"
# RFC 6151 section 2.4.  It also needs passwords in clear on the server.
_OFF_BY_DEFAULT = frozenset({"CRAM-MD5"})


def mechanism_table(
    cls: type[Any], handler: object, values: Mapping[str, Any], hooks: Collection[str]
) -> dict[str, Mechanism]:
    """The mechanisms of a server, by name, in the order of their names.

    :param cls: the protocol class; a subclass may have ``auth_*`` methods of its own.
    :param handler: its ``auth_*`` hooks go before them.
    :param values: the server's options.
    :param hooks: the handler's other hooks.
    :raises ValueError: if one is asked for that can't work.
    """
    wanted = _names(values["auth_mechanisms"])
    excluded = _names(values["auth_exclude_mechanism"]) or frozenset()
    found = {**_methods(cls, of_handler=False), **_methods(handler, of_handler=True)}
    workable, default = _builtin(cls, values, hooks)
    for name in [name for name, mechanism in found.items() if mechanism.builtin and name not in workable]:
        del found[name]
    if wanted is not None:
        missing = sorted(wanted - found.keys())
        if missing:
            raise ValueError(f"auth_mechanisms: nothing here can do {missing[0]}")
    else:
        wanted = frozenset(name for name, mechanism in found.items() if name in default or not mechanism.builtin)
    table = {name: found[name] for name in sorted(wanted - excluded)}
    _warn(values, table)
    return table


def builtin(method: F) -> F:
    """Mark a method of this package's own."""
    setattr(method, BUILTIN, True)
    return method


def _names(value: str | Iterable[str] | None) -> frozenset[str] | None:
    if value is None:
        return None
    if isinstance(value, str):
        # Taken letter by letter, a single name would exclude nothing.
        value = value.replace(",", " ").split()
    return frozenset(name.upper() for name in value)


def _methods(owner: Any, of_handler: bool) -> dict[str, Mechanism]:
    table = {}
    for attribute in dir(owner):
        if not attribute.startswith(PREFIX):
            continue
        method = getattr(owner, attribute)
        name = getattr(method, "__auth_mechanism_name__", attribute[len(PREFIX) :].replace("__", "-"))
        # A handler may well have an `auth_database`; a mechanism's name is in capitals.
        if callable(method) and MECHANISM_NAME.fullmatch(name) is not None:
            builtin = not of_handler and hasattr(method, BUILTIN)
            table[name] = Mechanism(name, attribute, of_handler, builtin)
    return table


def _builtin(cls: type[Any], values: Mapping[str, Any], hooks: Collection[str]) -> tuple[Collection[str], set[str]]:
    """The built-in mechanisms that can work, and those that are offered unless an option names others."""
    authenticator = values["authenticator"]
    if authenticator is None:
        # A handle_AUTH may call the built-in ones, and so may a class that overrides how a password is checked.
        overridden = not hasattr(cls._authenticate, BUILTIN)
        able = {"PLAIN", "LOGIN"} if values["auth_callback"] is not None or "AUTH" in hooks or overridden else set()
        return able, able
    scram: set[str] = set()
    if hasattr(authenticator, "scram_keys"):
        # Imported here and below: few servers have SCRAM.
        from twisted_smtpd.auth.scram import SCRAM_HASHES

        scram = {n for name in SCRAM_HASHES for n in (name, name + _PLUS)}
    declared = getattr(authenticator, "mechanisms", None)
    if declared is None:
        return _OF_ANY | scram, {"PLAIN", "LOGIN", *scram}
    able = {name.upper() for name in declared} & (_OF_ANY | scram)
    return able, able if any_credentials(authenticator) else able - _OFF_BY_DEFAULT


def _warn(values: Mapping[str, Any], table: Mapping[str, Mechanism]) -> None:
    if not values["auth_required"]:
        return
    if not table:
        log.warn("authentication is required, but there is no way to authenticate: no mail will be accepted")
    elif not values["auth_require_tls"]:
        log.warn("authentication is required, but not TLS: passwords may come in clear")


def warn_of_no_tls(settings: SharedSettings) -> None:
    """Warn if AUTH needs TLS, and there is none.

    :param settings: of a server none of whose endpoints is known to have TLS of its own.
    """
    names = " ".join(settings.mechanisms)
    if names and settings.values["auth_require_tls"] and not settings.security.can_have_tls:
        log.warn("AUTH {names} is offered with TLS only, and there is no TLS: no client can authenticate", names=names)


def any_credentials(authenticator: object) -> bool:
    """Whether an authenticator wants to be asked about empty names and passwords, too."""
    return getattr(authenticator, "any_credentials", False) is True


def needs_tls(server: AuthClient, mechanism: Mechanism) -> bool:
    """Whether a client has to start TLS before it may use a mechanism."""
    if server.session.tls:
        return False
    return server.auth_require_tls or (mechanism.builtin and mechanism.name.endswith(("EXTERNAL", _PLUS)))


def usable(server: AuthClient, mechanism: Mechanism) -> bool:
    """Whether a mechanism can work on this connection as it is."""
    if needs_tls(server, mechanism):
        return False
    if not mechanism.builtin:
        return True
    if mechanism.name == "EXTERNAL":
        return bool(getattr(server.session.ssl, "peer_verified", False))
    if mechanism.name.endswith(_PLUS):
        from twisted_smtpd.auth.scram import BINDINGS

        return any(binding_of(server, kind) is not None for kind in BINDINGS)
    return True


def usable_names(server: AuthClient) -> list[str]:
    """The names that EHLO lists."""
    if server.session.authenticated:
        return []
    return [name for name, mechanism in server.mechanisms.items() if usable(server, mechanism)]


def binding_of(server: AuthClient, kind: str) -> bytes | None:
    """Channel binding data of the client's connection (RFC 5056); none where a proxy has done the TLS."""
    # Imported here: a server without TLS does not need it.
    from twisted_smtpd.tls import channel_binding

    return channel_binding(server.transport, kind)
