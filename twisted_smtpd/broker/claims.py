"""Where messages are that are too large for the broker: a folder that all machines share, or S3."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

__all__ = ["ClaimStore", "FolderClaims", "S3Claims", "claim_store"]

_ID = re.compile(r"[0-9A-Za-z]{1,64}", re.ASCII)


class ClaimStore(Protocol):
    """Keeps large messages; its methods wait, so they are called in threads.

    Each raises :exc:`OSError` if it fails.
    """

    def put(self, id: str, content: bytes) -> str:
        """Keep a message, durable when this returns.

        :param id: the message's id.
        :returns: the claim that names it.
        """

    def get(self, claim: str) -> bytes:
        """The message that a claim names."""

    def delete(self, claim: str) -> None:
        """Remove it; it is no error if it is gone."""


def _checked(name: str) -> str:
    # What is in the broker may come from others: no claim leads out of the store.
    if not _ID.fullmatch(name):
        raise OSError(f"{name[:80]!r} is no name of a large message")
    return name


class FolderClaims:
    """Files in a folder that front ends and consumers share.

    :param folder: the folder; it must exist.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def put(self, id: str, content: bytes) -> str:
        path = self._folder / _checked(id)
        new = path.with_suffix(".new")
        with open(new, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return f"file:{id}"

    def _path(self, claim: str) -> Path:
        return self._folder / _checked(claim.removeprefix("file:"))

    def get(self, claim: str) -> bytes:
        return self._path(claim).read_bytes()

    def delete(self, claim: str) -> None:
        self._path(claim).unlink(missing_ok=True)


class S3Claims:
    """Objects in a bucket of S3, or of a server with its interface.  It needs ``boto3``.

    Its credentials come from where boto3 looks for them: the environment, a file, the machine's role.

    :param bucket: the bucket.
    :param prefix: what stands before each name.
    :param endpoint: the server's URL, if it is not Amazon's.
    """

    def __init__(self, bucket: str, prefix: str = "", endpoint: str | None = None) -> None:
        # Imported here: few need it, and it takes a second.
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        self._errors: Any = (BotoCoreError, ClientError)
        self._bucket, self._prefix = bucket, prefix
        config = Config(connect_timeout=5, read_timeout=20, retries={"max_attempts": 2})
        self._client: Any = boto3.client("s3", endpoint_url=endpoint, config=config)

    def put(self, id: str, content: bytes) -> str:
        self._call("put_object", id, Body=content)
        return f"s3:{id}"

    def get(self, claim: str) -> bytes:
        body: bytes = self._call("get_object", claim.removeprefix("s3:"))["Body"].read()
        return body

    def delete(self, claim: str) -> None:
        self._call("delete_object", claim.removeprefix("s3:"))

    def _call(self, method: str, name: str, **arguments: Any) -> Any:
        try:
            return getattr(self._client, method)(
                Bucket=self._bucket, Key=f"{self._prefix}{_checked(name)}", **arguments
            )
        except self._errors as error:
            raise OSError(f"S3: {error}") from None


def claim_store(where: str) -> ClaimStore:
    """The store that an option names.

    :param where: the path of a folder, or ``s3://BUCKET/PREFIX``, with ``?endpoint=URL`` for another server.
    :raises ValueError: it can't be used.
    """
    if not where.startswith("s3://"):
        if not Path(where).is_dir():
            raise ValueError(f"{where}: there is no such folder")
        return FolderClaims(where)
    parts = urlsplit(where)
    name, _, endpoint = parts.query.partition("=")
    if not parts.netloc or (parts.query and (name != "endpoint" or not endpoint)):
        raise ValueError(f"{where}: write s3://BUCKET/PREFIX, or s3://BUCKET/PREFIX?endpoint=URL")
    try:
        return S3Claims(parts.netloc, parts.path.lstrip("/"), endpoint or None)
    except ImportError:
        raise ValueError("for s3:// install boto3: pip install 'twisted-smtpd[s3]'") from None
