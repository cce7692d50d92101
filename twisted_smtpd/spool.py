"""A message that comes as a stream, as a file: in memory while it is small, then on the disk."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import SpooledTemporaryFile
from typing import IO

from twisted_smtpd.runtime.reactors import in_thread, wait_for
from twisted_smtpd.stream import ContentStream

__all__ = ["MAX_MEMORY", "spooled"]

#: Octets of a message that are kept in memory unless told otherwise.
MAX_MEMORY = 2**18


@asynccontextmanager
async def spooled(
    stream: ContentStream, *, max_memory: int = MAX_MEMORY, folder: str | os.PathLike[str] | None = None
) -> AsyncIterator[IO[bytes]]:
    """Read a stream to its end, and give the content as a file: ``async with spooled(stream) as file``.

    The file can be read and sought, and stands at its beginning.  It has no name, and it is gone when the block ends.
    While something is written to the disk, in a thread, the client waits.

    :param stream: what ``handle_DATA_STREAM`` has been given.
    :param max_memory: octets to keep in memory; a larger message goes to a file.  0 is a file in any case.
    :param folder: where that file is made; by default where temporary files are made.
    :raises StreamInterrupted: if the message does not come to its end; nothing is left of it then.
    :raises SMTPReplyError: if the message is refused.
    :raises OSError: if it can't be written; a client whose hook lets this pass hears 452 where the disk is full, and
        451 otherwise.
    """
    # 0 means no limit to the standard library.
    with SpooledTemporaryFile(max_size=max(max_memory, 1), dir=None if folder is None else os.fspath(folder)) as file:
        if max_memory <= 0:
            await wait_for(in_thread(file.rollover))
        async for chunk in stream:
            if stream.size > max_memory:
                await wait_for(in_thread(file.write, chunk))
            else:
                file.write(chunk)
        file.seek(0)
        yield file
