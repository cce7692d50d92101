"""Delivers into Maildirs: ``twisted-smtpd --lmtp -l unix:/run/lmtp -c lmtp_delivery.Delivery FOLDER``.

The folders in FOLDER are the users.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import AsyncIterator
from mailbox import Maildir
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread


class Delivery:
    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    @classmethod
    def from_cli(cls, parser: ArgumentParser, *args: str) -> Delivery:
        if len(args) != 1:
            parser.error("it takes one argument, the folder of the Maildirs")
        return cls(args[0])

    def maildir(self, address: str) -> Path:
        return self.folder / address.rpartition("@")[0].lower()

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, rcpt_options: list[str]) -> str:
        if self.maildir(address) not in self.folder.iterdir():
            return "550 5.1.1 No such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> AsyncIterator[str]:
        for address in envelope.rcpt_tos:
            try:
                await deferToThread(self.store, address, envelope.content)
            except OSError as error:
                # The mail server in front tries again for this one, and for no other.
                yield f"452 4.2.0 {error.strerror}"
            else:
                yield "250 2.1.5 Delivered"

    def store(self, address: str, content: bytes) -> None:
        Maildir(self.maildir(address)).add(content.replace(b"\r\n", b"\n"))
