"""Sends a message to a real server."""

from __future__ import annotations

from twisted.internet.defer import maybeDeferred

from twisted_smtpd.inbox.api.call import Answer, APIError, Call, done
from twisted_smtpd.wire.replies import SMTPReplyError

__all__ = ["release_message"]


async def release_message(call: Call) -> Answer:
    """Send a message to the server that was named at the start."""
    release = call.context.settings.release
    if release is None:
        raise APIError(400, "no server to release messages to was named when the server was started")
    stored = await call.message()
    recipients = list(dict.fromkeys(address.strip() for address in call.body["To"]))
    if not recipients:
        raise APIError(400, "To: no address is given")
    try:
        await maybeDeferred(release.release, stored, recipients)
    except ValueError as error:
        raise APIError(400, str(error)) from None
    except SMTPReplyError as error:
        raise APIError(502, f"{release.name} says: {error.reply}") from None
    return done()
