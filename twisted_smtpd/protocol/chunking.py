"""BDAT: a message in chunks of announced size (RFC 3030)."""

from __future__ import annotations

import asyncio
from functools import wraps
from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from twisted_smtpd.protocol.body import ChunkedMessage
from twisted_smtpd.protocol.hooks import TOOK_TOO_LONG
from twisted_smtpd.protocol.reporting import report_message
from twisted_smtpd.stream import StreamInterrupted
from twisted_smtpd.wire.commands import parse_chunk
from twisted_smtpd.wire.content import ChunkReader
from twisted_smtpd.wire.replies import BadStatus, Reply, SMTPReplyError

if TYPE_CHECKING:
    from twisted_smtpd.protocol.settings import CommandMethod
    from twisted_smtpd.protocol.transaction import Transaction

__all__ = ["bdat", "reading_chunk"]

CHUNK_MISSING = Reply(451, "4.3.0", ("A chunk of the message was not taken, try again later",))


def reading_chunk(method: CommandMethod) -> CommandMethod:
    """A BDAT whose chunk is read in any case: after a refusal, too, so that none of it runs as commands.

    :param method: carries BDAT out, or refuses it.
    """

    @wraps(method)
    async def run(connection: Transaction, argument: str | None) -> None:
        body = connection._body
        try:
            body.unread, last = parse_chunk(argument)
        except SMTPReplyError:
            # Nothing says where the chunk ends.
            connection.finish()
            raise
        error: BaseException | None = None
        try:
            await method(connection, argument)
        except (Exception, asyncio.CancelledError) as raised:
            error = raised
        if body.unread and not connection._gone:
            if body.chunked is None and connection._accepted and not last:
                body.begin_chunks(
                    ChunkedMessage(ChunkReader(), connection._hook_interrupted), connection._content_error
                )
            if body.chunked is not None and body.chunked.refusal is None:
                # A chunk is missing now, whatever comes next.
                body.chunked.refusal = error.reply if isinstance(error, SMTPReplyError) else CHUNK_MISSING
            await body.skip_chunk()
        if error is not None:
            raise error

    return run


async def bdat(connection: Transaction, argument: str | None) -> None:
    """Carry out BDAT.

    :param argument: the octets of the chunk, and ``LAST`` behind the last one.
    """
    size, last = parse_chunk(argument)
    body = connection._body
    message = body.chunked or _begin(connection, size if last else None)
    if not (size or last):
        connection.count_idle()
    await body.read_chunk(message.reader)
    if last:
        await _finish(connection, message)
        return
    refusal = message.refusal
    if refusal is None:
        refusal = message.refusal = _refusal(connection, message)
        if refusal is not None:
            await connection.push(refusal)
            connection._message_judged()
            report_message(connection, message.reader.size)
            return
    await connection.push("250 Chunk received" if refusal is None else refusal)


def _begin(connection: Transaction, size: int | None) -> ChunkedMessage:
    """The first chunk comes.

    :param size: octets of the message, if this chunk is all of it.
    """
    reader = ChunkReader(
        size_limit=connection.data_size_limit,
        line_length_limit=connection.line_length_limit,
        bare_newline=connection.bare_newline,
        header_size_limit=connection.header_size_limit,
        header_line_limit=connection.header_line_limit,
        binary=connection.envelope.binary,
    )
    message = ChunkedMessage(reader, connection._hook_interrupted)
    if "DATA_STREAM" in connection._settings.hooks:
        # The hook begins to run now, and must find the message there.
        connection._body.chunked = message
        message.stream, message.hook = connection._open_stream(reader, size)
    connection._body.begin_chunks(message, connection._content_error)
    return message


def _refusal(connection: Transaction, message: ChunkedMessage) -> Reply | None:
    """Why a message is refused before it is whole, or ``None``."""
    stream, hook = message.stream, message.hook
    if stream is not None and isinstance(stream.error, StreamInterrupted):
        return TOOK_TOO_LONG
    refusal = connection._content_refusal(message.reader.error)
    if refusal is not None or hook is None or not hook.called:
        return refusal
    # The hook has decided early.  Where that is a no, the client need not send the rest.
    result = hook.result
    if isinstance(result, Failure):
        return result.value.reply if isinstance(result.value, SMTPReplyError) else None
    try:
        reply = Reply.parse(result)
    except BadStatus:
        return None
    return reply if reply.code >= 400 else None


async def _finish(connection: Transaction, message: ChunkedMessage) -> None:
    """The last chunk is there: let a hook judge the message, and answer."""
    body, reader = connection._body, message.reader
    if message.refusal is not None:
        try:
            await connection._forget_message()
            for _ in range(connection._accepted if connection.replies_to_each_recipient else 1):
                await connection.push(message.refusal)
        finally:
            connection._end_of_message()
        return
    connection._no_reply_yet()
    body.finish_chunks(message)
    connection._runner.keep(True)
    try:
        if message.stream is None or message.hook is None:
            await connection._received(reader)
            return
        try:
            await connection._answer(await connection._stream_verdict(reader, message.stream, message.hook))
            report_message(connection, reader.size)
        finally:
            connection._end_of_message()
    finally:
        connection._runner.keep(False)
