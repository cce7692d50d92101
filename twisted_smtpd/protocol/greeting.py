"""The greeting, and HELO and EHLO (RFC 5321 sections 3.1, 3.2 and 4.1.1.1)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from twisted_smtpd.runtime.awaiting import MISSING, takes_responses
from twisted_smtpd.wire.commands import parse_helo_name
from twisted_smtpd.wire.replies import Reply, SMTPReplyError

if TYPE_CHECKING:
    from twisted_smtpd.protocol.view import ClientView

__all__ = ["MAX_EHLO_RESPONSES", "greet", "say_hello"]

#: How many EHLO responses are kept.  A handler may give each client its own limits, which EHLO tells.
MAX_EHLO_RESPONSES = 64


def greet(client: ClientView) -> Awaitable[None]:
    """Greet the client, which is UNWELCOME until now, if ``handle_CONNECT`` lets it in.

    :returns: what is left to be awaited, as with a command.
    """
    client._meet()
    if "CONNECT" in client._settings.asked:
        return _greet_after_hook(client)
    client._set_barrier(None)
    return client.push(f"220 {client.hostname} {client.ident}")


async def _greet_after_hook(client: ClientView) -> None:
    # RFC 5321 section 3.1: after 554 the client may still say QUIT.  A hook that fails lets no client in.
    status = await client._call_handler_hook("CONNECT")
    code = 250 if status is MISSING else Reply.parse(status).code
    if 200 <= code < 300:
        client._set_barrier(None)
        if code != 220:
            status = f"220 {client.hostname} {client.ident}"
    await client.push(status)


def say_hello(client: ClientView, arg: str | None, *, extended: bool) -> Awaitable[None]:
    """Carry out HELO, EHLO or LHLO.

    :param arg: the client's name.
    :param extended: whether it is EHLO or LHLO.
    :returns: what is left to be awaited.
    """
    if arg is None:
        raise SMTPReplyError(501, "5.5.4", f"Syntax: {client._verb} hostname")
    name = parse_helo_name(arg)
    settings = client._settings
    if settings.old_hooks or ("EHLO" if extended else "HELO") in settings.asked or client._in_chunks:
        return _say_hello_to_hook(client, name, extended)
    session = client.session
    before = session.host_name, session.extended_smtp
    session.host_name, session.extended_smtp = name, extended
    try:
        rest = client.push(_ehlo_response(client) if extended else f"250 {client.hostname}")
    except BaseException:
        session.host_name, session.extended_smtp = before
        raise
    client._set_rset_state()
    client._find_state()
    return rest


async def _say_hello_to_hook(client: ClientView, name: str, extended: bool) -> None:
    session = client.session
    before = session.host_name, session.extended_smtp
    session.host_name, session.extended_smtp = None, extended
    accepted = False
    try:
        status = await (_ehlo_status(client, name) if extended else _helo_status(client, name))
        await client.push(status)
        accepted = client._code < 300
    finally:
        if accepted:
            session.host_name = session.host_name or name
            await client._forget_message()
            client._set_rset_state()
        else:
            # RFC 5321 section 4.1.4: a refused EHLO leaves the state as it was.
            session.host_name, session.extended_smtp = before


async def _helo_status(client: ClientView, name: str) -> Any:
    status = await client._call_handler_hook("HELO", name)
    if status is MISSING:
        client.session.host_name = name
        return f"250 {client.hostname}"
    return status


async def _ehlo_status(client: ClientView, name: str) -> Any:
    if "EHLO" not in client._settings.hooks:
        client.session.host_name = name
        if "ehlo_hook" not in client._settings.old_hooks:
            return _ehlo_response(client)
        await client.push("\n".join(_ehlo_lines(client)))
        await client._call_old_hook("ehlo_hook")
        return "250 HELP"
    lines = _ehlo_lines(client)
    await client._call_old_hook("ehlo_hook")
    if takes_responses(client.event_handler.handle_EHLO):
        answer = await client._call_handler_hook("EHLO", name, [*lines, "250 HELP"])
        if answer is MISSING:
            answer = [*lines, "250 HELP"]
        return Reply.parse("\n".join(answer)) if isinstance(answer, (list, tuple)) else answer
    await client.push("\n".join(lines))
    status = await client._call_handler_hook("EHLO", name)
    return "250 HELP" if status is MISSING else status


def _ehlo_lines(client: ClientView) -> list[str]:
    keywords = (extension.keyword(client) for extension in client._settings.extensions)
    return [f"250-{client.hostname}", *(f"250-{keyword}" for keyword in keywords if keyword is not None)]


def _ehlo_response(client: ClientView) -> str:
    """The response without a hook, put together once for each state that it depends on."""
    settings, state = client._settings, None
    if settings.ehlo_state is not None:
        state = settings.ehlo_state(client)
        if (known := settings.ehlo_responses.get(state)) is not None:
            return known
    response = "\n".join((*_ehlo_lines(client), "250 HELP"))
    if state is not None:
        if len(settings.ehlo_responses) >= MAX_EHLO_RESPONSES:
            settings.ehlo_responses.clear()
        settings.ehlo_responses[state] = response
    return response
