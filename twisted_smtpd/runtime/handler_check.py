"""What is wrong with a handler, found when its server starts: a hook that is not called loses mail in silence."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from weakref import WeakSet

from twisted_smtpd import interfaces
from twisted_smtpd.interfaces import HookServer
from twisted_smtpd.runtime.awaiting import hook_names
from twisted_smtpd.runtime.lifecycle import ignored_methods
from twisted_smtpd.session import Envelope, Session

__all__ = ["check_handler", "deprecated_data_hook", "faults", "note_checked"]

# The hooks that the server calls, and handle_message, which the Message handlers call.
_HOOKS = frozenset(
    hook
    for name in interfaces.__all__
    if name.endswith("Handler")
    for hook in getattr(interfaces, name).names()
    if hook.startswith("handle_")
)
_OTHERS = frozenset({"handle_message"})
# The arguments that the server calls each hook with; handle_EHLO may take one less.
_ARGUMENTS = {
    hook: interface[hook].getSignatureInfo()["positional"]
    for name in interfaces.__all__
    if name.endswith("Handler") and name != "IEHLOHandler"
    for interface in (getattr(interfaces, name),)
    for hook in interface.names()
    if hook.startswith("handle_")
}
_LIFE_HINTS = {
    "start": "write it as start(self, server), or declare IStartable",
    "stop": "it needs a start(self, server) beside it, or declare IStoppable",
}
_DEPRECATED = "process_message"
# They are given by mistake: a handler's name, its arguments.
_NO_HANDLERS = (str, bytes, int, float, list, tuple, dict, set, frozenset)

_checked: WeakSet[type] = WeakSet()


def check_handler(handler: object) -> None:
    """Warn about a handler, once for each class: hooks that are not called, or all mail thrown away.

    :raises TypeError: if it can't be meant as a handler: a class in place of its instance, for example.
    """
    kind = type(handler)
    if isinstance(handler, type):
        _refuse_class(handler)
    elif isinstance(handler, _NO_HANDLERS) and not hook_names(handler):
        raise TypeError(f"a handler is an object with handle_* methods, not {handler!r:.80}")
    if kind is object or kind in _checked:
        return
    _checked.add(kind)
    if deprecated_data_hook(handler) is not None:
        text = f"handler {kind.__qualname__}: process_message() is deprecated, write handle_DATA()"
        warnings.warn(text, DeprecationWarning, stacklevel=2)
    for fault, sure in faults(handler):
        if sure:
            warnings.warn(f"handler {kind.__qualname__}{fault}", UserWarning, stacklevel=2)


def note_checked(handler: object) -> None:
    """What is wrong with this handler has been said."""
    _checked.add(type(handler))


def _refuse_class(handler: type) -> None:
    """Refuse a class in place of its instance, unless its hooks need none."""
    hooks = [inspect.getattr_static(handler, f"handle_{name}") for name in hook_names(handler)]
    if not hooks or any(inspect.isfunction(hook) for hook in hooks):
        raise TypeError(f"the handler is the class {handler.__qualname__}: give an instance, {handler.__qualname__}(…)")


def faults(handler: object) -> Iterator[tuple[str, bool]]:
    """What is legal in a handler, but rarely meant.

    :returns: a text for each, to follow the handler's name; and whether it can hardly be meant: a method ``handle_x``
        may well have another use.
    """
    if type(handler).__module__.startswith("twisted_smtpd."):
        return
    hooks = {f"handle_{hook}" for hook in hook_names(handler)}
    for hook in sorted(hooks - _HOOKS - _OTHERS):
        hint = _nearest(hook)
        yield f": no server calls {hook}{hint}", bool(hint)
    for hook in sorted(hooks & _ARGUMENTS.keys()):
        if not _can_be_called(getattr(handler, hook), _ARGUMENTS[hook], optional=hook == "handle_EHLO"):
            yield f": {hook} is called with ({', '.join(_ARGUMENTS[hook])}), which it does not take", True
    for method in ignored_methods(handler):
        yield f": {method}() is not called: {_LIFE_HINTS[method]}", False
    asked = hooks & _HOOKS or any(attribute.startswith("auth_") for attribute in dir(handler))
    of_ours = any(cls.__module__.startswith("twisted_smtpd.") for cls in type(handler).__mro__)
    if not (asked or of_ours or hasattr(type(handler), _DEPRECATED)):
        yield " has no hooks: ALL MAIL IS ACCEPTED AND THROWN AWAY", True


def _can_be_called(hook: Callable[..., Any], arguments: tuple[str, ...], optional: bool) -> bool:
    """Whether a hook takes these arguments.

    :param optional: whether the last of them may be missing.
    """
    try:
        signature = inspect.signature(hook)
    except (TypeError, ValueError):
        # Some callables can't say.
        return True
    for given in (arguments, arguments[:-1]) if optional else (arguments,):
        try:
            signature.bind(*given)
        except TypeError:
            continue
        return True
    return False


def _nearest(hook: str) -> str:
    """The hook that a misspelled name was meant for."""
    # Imported here: few names are misspelled.
    import difflib

    spelled = {known.lower(): known for known in _HOOKS}
    found = difflib.get_close_matches(hook.lower(), spelled, n=1, cutoff=0.8)
    return f": did you mean {spelled[found[0]]}?" if found else ""


def deprecated_data_hook(handler: object) -> Callable[[HookServer, Session, Envelope], Awaitable[Any]] | None:
    """What stands for ``handle_DATA`` in a handler that has ``process_message(peer, mailfrom, rcpttos, data)`` instead.

    That was the hook of the library's smtpd module, and is deprecated in aiosmtpd.

    :returns: a hook, or ``None`` where there is a newer one, or neither.
    """
    # Asked of the class: a Mock has every attribute that it is asked for.
    if not hasattr(type(handler), _DEPRECATED) or {"DATA", "DATA_STREAM"} & hook_names(handler):
        return None

    async def handle_DATA(server: HookServer, session: Session, envelope: Envelope) -> Any:
        process: Any = getattr(handler, _DEPRECATED)
        status = process(session.peer, envelope.mail_from, envelope.rcpt_tos, envelope.content)
        if hasattr(status, "__await__"):
            status = await status
        return "250 OK" if status is None else status

    return handle_DATA
