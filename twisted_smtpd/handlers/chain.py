"""Several handlers, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger
from zope.interface import alsoProvides, implementer

from twisted_smtpd.interfaces import (
    HookServer,
    IMeasured,
    IOffersProtocol,
    IOffersServices,
    IPreceded,
    IReloadable,
    IStartable,
    IStoppable,
)
from twisted_smtpd.metrics.figures import Metric
from twisted_smtpd.runtime.awaiting import MISSING, hook_names, settle, takes_responses
from twisted_smtpd.runtime.handler_check import check_handler, deprecated_data_hook
from twisted_smtpd.runtime.judging import permits
from twisted_smtpd.runtime.lifecycle import HandlerUse, ServerInfo, offered_services, reloadables
from twisted_smtpd.session import Envelope, Session
from twisted_smtpd.wire.replies import Reply, SMTPReplyError, whole_statuses

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from twisted.application.service import IService

__all__ = ["PASS", "Chain"]

log = Logger()

#: What a hook returns to leave the decision to the next handler of its chain, or to the server after the last one.
PASS = MISSING

# All handlers are called, since each may have something to clean up.
_HEARD_BY_ALL = frozenset({"RSET", "QUIT"})
# They return true or false, and no status.
_CONSENTS = frozenset({"STARTTLS", "PROXY"})


@implementer(IStartable, IStoppable, IOffersServices)
class Chain:
    """Asks handlers in turn; each may decide, or leave it to the next by returning :data:`PASS`.

    A handler without the hook passes on, too.  If all do, the server does what it does without the hook.

    * ``handle_DATA``: each handler gets the message, until one refuses it.  The answer is the refusal, or else the last
      answer that was not :data:`PASS`.
    * ``handle_EHLO``: each gets the lines that the one before has left, those with the fifth argument first.
    * ``handle_RSET``, ``handle_QUIT``, ``handle_DISCONNECT``: each is called; the first that decides is the answer.
    * ``handle_STARTTLS``, ``handle_PROXY``: all have to agree; after a no (false, a status other than 2yz, an error),
      the others are not asked.
    * ``auth_MECHANISM``: the first handler that has it does it, alone.
    * All other hooks: after the first that decides, yes or no, the others are not asked.
    * ``start``: the handlers are started in order.  If one fails, those before it are stopped again.
    * ``stop``: they are stopped in reverse order.  An error is logged, and the others are stopped all the same.
    * ``services``: the services of all.
    * ``protocol``: that of the first handler that declares :class:`~twisted_smtpd.interfaces.IOffersProtocol`.
    * ``metrics``: those of all handlers that declare :class:`~twisted_smtpd.interfaces.IMeasured`.
    * ``reload``: all handlers that declare :class:`~twisted_smtpd.interfaces.IReloadable` read their files again.

    What a ``handle_MAIL`` or ``handle_RCPT`` that passes on has put into the envelope is taken out again.  An error in
    a hook ends the chain.

    :param handlers: the handlers, those that refuse before those that store.
    :raises ValueError: without handlers, or if one reads the message as a stream and another one wants it as well.
    """

    def __init__(self, *handlers: object) -> None:
        if not handlers:
            raise ValueError("a chain has at least one handler")
        self.handlers = handlers
        for number, handler in enumerate(handlers):
            check_handler(handler)
            if IPreceded.providedBy(handler):
                handler.preceded_by(handlers[:number])
        self.option_defaults = _common_defaults(handlers)
        self._started: list[HandlerUse] = []
        if any(reloadables(handler) for handler in handlers):
            alsoProvides(self, IReloadable)
        for interface in (IMeasured, IOffersProtocol):
            if any(interface.providedBy(handler) for handler in handlers):
                alsoProvides(self, interface)
        # The hooks of the chain's own that stand for its handlers' hooks of the moment.
        self._made: dict[str, Any] = {}
        self.renew_hooks()

    def renew_hooks(self) -> None:
        """Have the hooks that the handlers have now: one may have been set on a handler while the server runs.

        :raises ValueError: if one handler reads the message as a stream and another one wants it as well.
        """
        handlers = self.handlers
        for handler in handlers:
            if isinstance(handler, Chain):
                handler.renew_hooks()
        names = {name for handler in handlers for name in hook_names(handler)}
        takers = [handler for handler in handlers if {"DATA", "DATA_STREAM"} & hook_names(handler)]
        if older := [handler for handler in handlers if deprecated_data_hook(handler) is not None]:
            names.add("DATA")
            takers += older
        if "DATA_STREAM" in names and len(takers) > 1:
            raise ValueError("a message that one handler reads as a stream can't be given to another one")
        # On the instance: a hook that exists but decides nothing would still be called for each command.
        made = {f"handle_{name}": self._hook(name) for name in names}
        for handler in reversed(handlers):
            made.update((name, getattr(handler, name)) for name in dir(handler) if name.startswith("auth_"))
        own = vars(self)
        for name, hook in self._made.items():
            if own.get(name) is hook:
                delattr(self, name)
        for name, hook in made.items():
            # One that was set on the chain itself stays.
            if name not in own:
                setattr(self, name, hook)
        self._made = made

    def __repr__(self) -> str:
        return f"<Chain {' + '.join(type(handler).__name__ for handler in self.handlers)}>"

    @classmethod
    def from_cli(cls, parser: ArgumentParser, *args: str) -> Chain:
        """The handler for the command line.

        :param parser: says what is wrong with the arguments.
        :param args: handlers as ``-c`` takes them, each followed by its arguments, with a ``+`` between them.  What
            follows a ``queue`` is the queue's.
        """
        # Not at the top: the registry's plugins may be chains.
        from twisted_smtpd.handlers.registry import make_handler, takes_the_rest

        groups: list[list[str]] = [[]]
        for word in args:
            if word == "+" and not (groups[-1] and takes_the_rest(groups[-1][0])):
                groups.append([])
            else:
                groups[-1].append(word)
        if not all(groups):
            parser.error("it takes handlers with a + between them: debugging stderr + mailbox FOLDER")
        return cls(*(make_handler(name, arguments) for name, *arguments in groups))

    async def start(self, server: ServerInfo) -> None:
        """Start the handlers, in order.

        :raises Exception: what a handler's ``start`` raises; then the handlers before it have been stopped again.
        """
        try:
            for handler in self.handlers:
                use = HandlerUse(handler)
                await use.start(server)
                self._started.append(use)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the handlers, in reverse order; an error is logged."""
        while self._started:
            use = self._started.pop()
            try:
                await use.stop()
            except Exception:
                log.failure("stop() of {handler} failed", handler=use.handler)

    def protocol(self, lmtp: bool, failures: Any) -> Any:
        """The class for connections of the first handler that has one."""
        return next(one for one in self.handlers if IOffersProtocol.providedBy(one)).protocol(lmtp, failures)

    def metrics(self) -> list[Metric]:
        """The metrics of all handlers that have some."""
        return [metric for one in self.handlers if IMeasured.providedBy(one) for metric in one.metrics()]

    async def services(self) -> list[IService]:
        """The services of all handlers, in order."""
        return [service for handler in self.handlers for service in await offered_services(handler)]

    async def reload(self) -> None:
        """Have the handlers read their files again; an error is logged."""
        for handler in self.handlers:
            for one in reloadables(handler):
                try:
                    await settle(one.reload(), None)
                except Exception:
                    log.failure("reload() of {handler} failed", handler=handler)

    def _hook(self, name: str) -> Callable[..., Any]:
        """The chain's own hook of a name."""
        hooks = _Hooks(self.handlers, name)
        if name == "EHLO":
            return _EHLOHook(hooks)
        return {
            "DATA": _data_hook,
            "MAIL": _mail_hook,
            "RCPT": _rcpt_hook,
            "DISCONNECT": _disconnect_hook,
            "exception": _exception_hook,
            **dict.fromkeys(_HEARD_BY_ALL, _all_hook),
            **dict.fromkeys(_CONSENTS, _consent_hook),
        }.get(name, _first_hook)(hooks)


class _Hooks:
    """The hooks of one name that the handlers have at the moment: one may be replaced while the server runs.

    :param handlers: the handlers of the chain.
    :param name: of the hooks.
    """

    def __init__(self, handlers: Sequence[object], name: str) -> None:
        self._name = f"handle_{name}"
        older = deprecated_data_hook if name == "DATA" else lambda handler: None
        self._asked = [one for one in handlers if name in hook_names(one) or older(one) is not None]

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        for handler in self._asked:
            hook = getattr(handler, self._name, None)
            if hook is None and self._name == "handle_DATA":
                hook = deprecated_data_hook(handler)
            if hook is not None:
                yield hook


def _common_defaults(handlers: Sequence[object]) -> dict[str, Any]:
    """What all handlers would rather have than an option's default."""
    each = [getattr(handler, "option_defaults", None) for handler in handlers]
    first, *others = (values if isinstance(values, Mapping) else {} for values in each)
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


async def _call(hook: Callable[..., Any], *arguments: Any) -> Any:
    """What a hook decides."""
    try:
        # No loop: the chain's own hook runs where it can await all that a hook may give.
        return await settle(hook(*arguments), None)
    except SMTPReplyError as error:
        return error.reply


Hooks = Iterable[Callable[..., Any]]


def _first_hook(hooks: Hooks) -> Callable[..., Any]:
    async def decide(*arguments: Any) -> Any:
        for hook in hooks:
            status = await _call(hook, *arguments)
            if status is not PASS:
                return status
        return PASS

    return decide


def _all_hook(hooks: Hooks) -> Callable[..., Any]:
    async def tell(*arguments: Any) -> Any:
        answer = PASS
        for hook in hooks:
            status = await _call(hook, *arguments)
            answer = status if answer is PASS else answer
        return answer

    return tell


def _consent_hook(hooks: Hooks) -> Callable[..., Any]:
    async def consent(*arguments: Any) -> Any:
        for hook in hooks:
            verdict = await _call(hook, *arguments)
            if verdict is not PASS and not permits(verdict):
                # It may be a status, which the client is to hear.
                return verdict
        return True

    return consent


def _disconnect_hook(hooks: Hooks) -> Callable[..., Any]:
    async def tell(server: HookServer, session: Session, *arguments: Any) -> None:
        for hook in hooks:
            try:
                await _call(hook, server, session, *arguments)
            except Exception:
                # The other handlers must be called all the same.
                log.failure("{session.id}: handle_DISCONNECT failed", session=session)

    return tell


def _exception_hook(hooks: Hooks) -> Callable[..., Any]:
    async def choose(error: BaseException) -> Any:
        for hook in hooks:
            # Whatever it raises is the server's to answer, a reply too.
            status = await settle(hook(error), None)
            if status is not PASS:
                return status
        return PASS

    return choose


def _mail_hook(hooks: Hooks) -> Callable[..., Any]:
    async def decide(server: HookServer, session: Session, envelope: Envelope, *arguments: Any) -> Any:
        for hook in hooks:
            sender, options = envelope.mail_from, list(envelope.mail_options)
            status = await _call(hook, server, session, envelope, *arguments)
            if status is not PASS:
                return status
            envelope.mail_from, envelope.mail_options[:] = sender, options
        return PASS

    return decide


def _rcpt_hook(hooks: Hooks) -> Callable[..., Any]:
    async def decide(server: HookServer, session: Session, envelope: Envelope, *arguments: Any) -> Any:
        for hook in hooks:
            recipients, options = list(envelope.rcpt_tos), list(envelope.rcpt_options)
            status = await _call(hook, server, session, envelope, *arguments)
            if status is not PASS:
                return status
            # The handler that decides adds the recipient, too; then there would be two copies.
            envelope.rcpt_tos[:], envelope.rcpt_options[:] = recipients, options
        return PASS

    return decide


def _data_hook(hooks: Hooks) -> Callable[..., Any]:
    async def give(*arguments: Any) -> Any:
        answer: Any = PASS
        asked = list(hooks)
        for hook in asked:
            status = await _call(hook, *arguments)
            if status is PASS:
                continue
            if hook is not asked[-1]:
                if hasattr(status, "__aiter__"):
                    status = [one async for one in status]
                elif isinstance(status, str) and len({one[0] for one in whole_statuses(status)}) > 1:
                    status = whole_statuses(status)
                if not _accepts(status):
                    return _ended_early(status)
            answer = status
        return answer

    return give


def _accepts(status: Any) -> bool:
    """Whether a verdict is a yes for all recipients."""
    statuses = status if isinstance(status, (list, tuple)) else (status,)
    return all(Reply.parse(one).code < 300 for one in statuses)


def _ended_early(status: Any) -> Any:
    """A verdict after which the next handlers do not get the message, so no recipient may be accepted."""
    if not isinstance(status, (list, tuple)):
        return status
    later = Reply(451, "4.3.0", ("Not accepted for all recipients, try again later",))
    return [later if _accepts(one) else one for one in status]


class _EHLOHook:
    """``handle_EHLO`` with the fifth argument."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks

    async def __call__(
        self, server: HookServer, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> Any:
        session.host_name = hostname
        hooks = list(self._hooks)
        for hook in filter(takes_responses, hooks):
            # Its own list: one that passes on has changed nothing.
            answer = await _call(hook, server, session, envelope, hostname, list(responses))
            if isinstance(answer, (list, tuple)):
                responses = list(answer)
            elif answer is not PASS:
                return answer
        pushing = [hook for hook in hooks if not takes_responses(hook)]
        if not pushing:
            return responses
        *lines, last = responses
        if lines:
            await server.push("\n".join(lines))
        for hook in pushing:
            answer = await _call(hook, server, session, envelope, hostname)
            if answer is not PASS:
                return answer
        return last
