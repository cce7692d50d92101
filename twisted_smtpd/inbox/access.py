"""Who asks, as the site has found out before a page or the API answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Access"]


@dataclass(frozen=True)
class Access:
    """What a request may see.  The site sets it as ``request.access``.

    :ivar mailbox: the only mailbox that it may see; ``None`` for all of them.
    :ivar user: the name that was given with a password, or ``None``.
    :ivar by: how it was let in.
    :ivar from_page: whether it comes from a page of ours, which it proves with a token.
    """

    mailbox: str | None = None
    user: str | None = None
    by: Literal["token", "password", "loopback"] = "loopback"
    from_page: bool = False
