"""The files of the page: scripts, styles, images."""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files
from typing import Any

from twisted.web.resource import Resource

__all__ = ["StaticFiles"]

_TYPES = {
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
}


class _File(Resource):
    isLeaf = True

    def __init__(self, content: bytes, content_type: bytes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._content, self._content_type = content, content_type
        self.etag = sha256(content).hexdigest()[:20].encode()

    def render_GET(self, request: Any) -> bytes:
        request.setHeader(b"content-type", self._content_type)
        # A browser asks each time whether it has changed: the page and its files always belong together.
        request.setHeader(b"cache-control", b"no-cache")
        if request.setETag(self.etag) is not None:
            return b""
        return self._content


class StaticFiles(Resource):
    """The files, read once; their ETag tells a browser whether it has them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        for file in files("twisted_smtpd.inbox").joinpath("static").iterdir():
            content_type = _TYPES.get(file.name.rpartition(".")[2])
            if content_type is not None:
                self.putChild(file.name.encode(), _File(file.read_bytes(), content_type))
