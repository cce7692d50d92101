"""What the table of routes is made of."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from twisted_smtpd.inbox.api.call import Answer, APIError, Call, Stream
from twisted_smtpd.inbox.api.schemas import Schema

__all__ = ["JSON", "Parameter", "Route"]

JSON = "application/json"
_VARIABLE = re.compile(r"\\{(\w+)\\}")


@dataclass(frozen=True)
class Parameter:
    """A parameter in the query of a URL.

    :ivar name: its name.
    :ivar description: what it means.
    :ivar kind: ``str``, ``int``, ``float`` or ``bool``.
    :ivar default: its value if it is not given.
    :ivar low: the least value of a number.
    :ivar high: the largest value of a number, or how many characters a text may have.
    :ivar required: whether it has to be given.
    :ivar clamped: whether a value above ``high`` is taken for ``high``, instead of being refused.
    """

    name: str
    description: str
    kind: type = str
    default: Any = None
    low: float = 0
    high: float = 100
    required: bool = False
    clamped: bool = False

    def read(self, text: str | None) -> Any:
        """The value.

        :param text: what is given, or ``None``.
        :raises APIError: if it is not allowed.
        """
        if text is None or (not text and self.kind is not str):
            if self.required:
                raise APIError(400, f"the parameter {self.name} is missing")
            return self.default
        if self.kind is str:
            if len(text) > self.high:
                raise APIError(400, f"{self.name}: at most {self.high:g} characters")
            return text
        if self.kind is bool:
            return self._switch(text)
        return self._number(text)

    def _switch(self, text: str) -> bool:
        value = {"true": True, "1": True, "false": False, "0": False}.get(text.casefold())
        if value is None:
            raise APIError(400, f"{self.name}: true or false, not {text[:40]!r}")
        return value

    def _number(self, text: str) -> float:
        try:
            value: float = self.kind(text[:40])
        except ValueError:
            raise APIError(400, f"{self.name}: a number is wanted, not {text[:40]!r}") from None
        if self.clamped and value > self.high:
            return self.high
        # NaN is in no range.
        if not self.low <= value <= self.high:
            raise APIError(400, f"{self.name}: {self.low:g} to {self.high:g}, not {text[:40]}")
        return value

    @property
    def schema(self) -> Schema:
        """The same as JSON Schema."""
        default = {} if self.default is None else {"default": self.default}
        if self.kind is str:
            return {"type": "string", "maxLength": int(self.high), **default}
        if self.kind is bool:
            return {"type": "boolean", **default}
        bounds = {"minimum": self.low} if self.clamped else {"minimum": self.low, "maximum": self.high}
        return {"type": "integer" if self.kind is int else "number", **bounds, **default}


@dataclass(frozen=True)
class Route:
    """One row of the table.

    :ivar method: the HTTP method; HEAD goes with GET.
    :ivar path: the path, with variable parts in braces.
    :ivar name: its name in the OpenAPI document.
    :ivar answer: answers a call.
    :ivar summary: what it does, in some words.
    :ivar description: the rest of what is to be known.
    :ivar query: its parameters.
    :ivar body: the schema of its body; ``None`` if it takes none.
    :ivar form: whether the body may be a form, too.
    :ivar returns: the schema of its answer in JSON; else the media type of the answer.
    :ivar status: the HTTP status of its answer.
    :ivar errors: the HTTP statuses of its errors, besides those that all have.
    :ivar server: whether it concerns the server, so that a token for one mailbox is not enough.
    :ivar guarded: whether it takes a token, or the proof that a page of ours asks.
    :ivar open: whether it is answered without a password or token.
    :ivar large: whether the answer may be so large that clients have to come again later.
    :ivar upload: whether the body may be as large as the settings allow; else it is small.
    :ivar group: its heading in the documentation.
    """

    method: str
    path: str
    name: str
    answer: Callable[[Call], Awaitable[Answer | Stream]]
    summary: str
    description: str = ""
    query: tuple[Parameter, ...] = ()
    body: Schema | None = None
    form: bool = False
    returns: Schema | str = "text/plain"
    status: int = 200
    errors: tuple[int, ...] = ()
    server: bool = False
    guarded: bool = False
    open: bool = False
    large: bool = False
    upload: bool = False
    group: str = field(default="messages")

    @cached_property
    def variables(self) -> tuple[str, ...]:
        """The names of the variable parts of the path."""
        return tuple(re.findall(r"{(\w+)}", self.path))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What matches the path of a request, still with its percent signs."""
        return re.compile(_VARIABLE.sub(r"(?P<\1>[^/]+?)", re.escape(self.path)))

    def match(self, path: str) -> dict[str, str] | None:
        """The variable parts of a path; ``None`` if the path is another one."""
        found = self.pattern.fullmatch(path)
        return None if found is None else {name: unquote(part) for name, part in found.groupdict().items()}
