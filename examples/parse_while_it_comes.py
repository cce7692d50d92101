"""Parses each message while it arrives: ``twisted-smtpd -c parse_while_it_comes.Parts``."""

from __future__ import annotations

from email.feedparser import BytesFeedParser
from email.message import EmailMessage
from email.policy import default
from typing import Any

from twisted.internet.threads import deferToThread


class Parts:
    async def handle_DATA_STREAM(self, server: Any, session: Any, envelope: Any, stream: Any) -> str:
        parser: BytesFeedParser[EmailMessage] = BytesFeedParser(policy=default)
        async for chunk in stream:
            # In a thread, so that an odd message costs the others nothing.  While this works, the client waits.
            await deferToThread(parser.feed, chunk)
        message = await deferToThread(parser.close)
        parts = [part.get_content_type() for part in message.walk() if not part.is_multipart()]
        print(f"{message['Subject']!r}: {stream.size} octets, {', '.join(parts)}", flush=True)
        return f"250 OK, {len(parts)} parts"
