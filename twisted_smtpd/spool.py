"""A message that comes as a stream, as a file: in memory while it is small, then on the disk."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from tempfile import TemporaryFile
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

    The file, an :class:`io.BytesIO` or one on the disk, stands at its beginning.  It has no name, and it is gone when
    the block ends.  While something is written to the disk, in a thread, the client waits.

    :param stream: what ``handle_DATA_STREAM`` has been given.
    :param max_memory: octets to keep in memory; a larger message goes to the disk, with 0 every message that is not
        empty.
    :param folder: where that file is made; by default where temporary files are made.
    :raises StreamInterrupted: if the message does not come to its end; nothing is left of it then.
    :raises SMTPReplyError: if the message is refused.
    :raises OSError: if it can't be written; a client whose hook lets this pass hears 452 where the disk is full, and
        451 otherwise.
    """
    file: IO[bytes] = BytesIO()
    try:
        async for chunk in stream:
            if stream.size <= max_memory:
                file.write(chunk)
                continue
            if isinstance(file, BytesIO):
                file = await wait_for(in_thread(_on_disk, file.getvalue(), folder))
            await wait_for(in_thread(file.write, chunk))
        file.seek(0)
        yield file
    finally:
        file.close()


def _on_disk(content: bytes, folder: str | os.PathLike[str] | None) -> IO[bytes]:
    """A file without a name that begins with this."""
    file = TemporaryFile(dir=folder)  # noqa: SIM115 - the caller closes it
    file.write(content)
    return file
