"""Writes messages of any size to files, as they arrive: ``twisted-smtpd --size=0 -c stream_to_files.Files FOLDER``."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from twisted.internet.threads import deferToThread


class Files:
    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    @classmethod
    def from_cli(cls, parser: ArgumentParser, *args: str) -> Files:
        if len(args) != 1:
            parser.error("it takes one argument, the folder for the files")
        return cls(args[0])

    async def handle_DATA_STREAM(self, server: Any, session: Any, envelope: Any, stream: Any) -> str:
        path = self.folder / f"{uuid4()}.eml"
        part = path.with_suffix(".part")
        with part.open("xb") as file:
            try:
                async for chunk in stream:
                    # While this waits for the disk, the client waits.
                    await deferToThread(file.write, chunk)
                await deferToThread(self.finish, file, part, path)
            except BaseException:
                # The message was too large, or the client has gone: it will send it again.
                part.unlink(missing_ok=True)
                raise
        return f"250 OK {path.name}"

    def finish(self, file: BinaryIO, part: Path, path: Path) -> None:
        """Give the file its name when it is on the disk: 250 is a promise."""
        file.flush()
        os.fsync(file.fileno())
        part.rename(path)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
