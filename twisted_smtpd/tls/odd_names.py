"""Clients that ask for a server name (SNI) that is not ASCII, where the standard library's ``ssl`` does the work.

``ssl`` then ends the handshake without a call of the ``sni_callback``, and has Python print the reason to stderr: four
lines that any client can cause, in no log.
"""

from __future__ import annotations

import sys
from types import CodeType
from typing import Any

__all__ = ["catch_odd_names"]


class _Hook:
    """Python's hook for errors that can't be raised; it notes these, and leaves others to the hook before it.

    :param code: of the method that runs the handshake; its ``self`` gets the note, as ``odd_name``.
    """

    def __init__(self, code: CodeType) -> None:
        self._code = code
        self._before = sys.unraisablehook

    def __call__(self, unraisable: Any) -> None:
        if unraisable.exc_type is UnicodeDecodeError and isinstance(unraisable.object, bytes):
            traceback = unraisable.exc_traceback
            frame = None if traceback is None else traceback.tb_frame.f_back
            if frame is not None and frame.f_code is self._code:
                frame.f_locals["self"].odd_name = True
                return
        self._before(unraisable)


def catch_odd_names(method: Any) -> None:
    """Have a note made of names that are not ASCII, and nothing printed.

    :param method: a method that calls ``ssl.SSLObject.do_handshake``, and whose object may have an attribute
        ``odd_name``.
    """
    if not isinstance(sys.unraisablehook, _Hook):
        sys.unraisablehook = _Hook(method.__code__)
