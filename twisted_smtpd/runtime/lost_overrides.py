"""Methods that a class written for aiosmtpd overrides, but that this server does not call: it warns of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MappingProxyType
from weakref import WeakSet

__all__ = ["OF_CONTROLLERS", "OF_SERVERS", "warn_of_lost_overrides"]

_STREAMS = "there are no asyncio streams; override lineReceived() or dataReceived()"
_ADDRESSES = "addresses and parameters are judged in handle_MAIL and handle_RCPT"
_TIMES = "the options timeout and session_timeout are the limits"
_BIND = "bind and give up privileges before start(), or use twistd with --uid"

#: What aiosmtpd's SMTP has, and what to do instead.
OF_SERVERS: Mapping[str, str] = MappingProxyType(
    {
        "_cb_client_connected": _STREAMS,
        "_client_connected_cb": _STREAMS,
        "_handle_client": _STREAMS,
        "_getaddr": _ADDRESSES,
        "_getparams": _ADDRESSES,
        "_strip_command_keyword": _ADDRESSES,
        "_reset_timeout": _TIMES,
        "_timeout_cb": _TIMES,
        "connection_made": "only loop.create_server() calls it; override connectionMade()",
        "data_received": "override dataReceived()",
        "eof_received": "override readConnectionLost()",
        "pause_writing": "push() waits while the client does not read",
        "resume_writing": "push() waits while the client does not read",
    }
)
#: What aiosmtpd's controllers have.
OF_CONTROLLERS: Mapping[str, str] = MappingProxyType(
    {
        "_cleanup": "override stop() or close()",
        "_create_server": _BIND,
        "_factory_invoker": "override factory()",
        "_run": _BIND,
        "_trigger_server": "start() opens no connection to the server",
        "server_coro": _BIND,
    }
)

_checked: WeakSet[type] = WeakSet()


def warn_of_lost_overrides(cls: type, names: Mapping[str, str]) -> None:
    """Warn about methods that nothing calls, once for each class.

    :param names: the methods, and what to do instead.
    """
    if cls in _checked:
        return
    _checked.add(cls)
    for name, instead in names.items():
        if any(name in vars(base) for base in cls.__mro__ if not base.__module__.startswith("twisted_smtpd.")):
            text = f"{cls.__qualname__}.{name}() is never called here, as aiosmtpd does: {instead}"
            warnings.warn(text, UserWarning, stacklevel=3)
