"""What the server says of itself."""

from __future__ import annotations

import os

from twisted_smtpd.inbox.api.call import Answer, APIError, Call, as_json, done

__all__ = ["get_document", "get_info", "get_settings", "is_alive", "is_ready"]


async def is_alive(call: Call) -> Answer:
    """The server answers."""
    return done()


async def is_ready(call: Call) -> Answer:
    """The store answers, too."""
    try:
        await call.ask("counts", None)
    except Exception:
        raise APIError(503, "the store does not answer") from None
    return done()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size if path else 0
    except OSError:
        return 0


async def get_info(call: Call) -> Answer:
    """The version, and what there is."""
    context = call.context
    counts = await call.ask("counts", call.mailbox)
    statistics = context.statistics
    # A store in memory has no file.
    path = "" if call.access.mailbox is not None else str(getattr(context.store, "path", None) or "")
    return as_json(
        {
            "Version": context.settings.version,
            "LatestVersion": context.settings.version,
            "Database": path,
            "DatabaseSize": _size(path),
            "Messages": counts.total,
            "Unread": counts.unread,
            "Tags": dict(sorted((await call.ask("tags", call.mailbox)).items())),
            "RuntimeStats": {
                "Uptime": statistics.uptime,
                "Memory": statistics.memory,
                "MessagesDeleted": statistics.deleted,
                "SMTPAccepted": statistics.accepted,
                "SMTPAcceptedSize": statistics.octets,
                "SMTPRejected": statistics.refused,
                "SMTPIgnored": 0,
            },
        }
    )


async def get_settings(call: Call) -> Answer:
    """What Mailpit's page asks for."""
    settings = call.context.settings
    release = settings.release
    return as_json(
        {
            "Label": settings.title,
            "MessageRelay": {
                "Enabled": release is not None,
                "SMTPServer": "" if release is None else release.name,
                "ReturnPath": "",
                "OverrideFrom": "",
                "AllowedRecipients": "",
                "BlockedRecipients": "",
                "RecipientAllowlist": "",
                "PreserveMessageIDs": True,
            },
            "SpamAssassin": False,
            "ChaosEnabled": settings.failures is not None,
            "DuplicatesIgnored": False,
            "HideDeleteAllButton": False,
        }
    )


async def get_document(call: Call) -> Answer:
    """The OpenAPI document."""
    return Answer(call.context.document, "application/json")
