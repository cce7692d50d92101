"""Tests for :mod:`twisted_smtpd.__main__`."""

from __future__ import annotations

import runpy
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_smtpd import __main__ as main_module


class MainTests(SynchronousTestCase):
    def test_it_is_twist_smtpd(self) -> None:
        calls: list[Any] = []
        self.patch(sys, "argv", ["twisted-smtpd", "-c", "sink"])
        self.patch(runpy, "run_module", lambda *args, **kwargs: calls.append((args, kwargs, list(sys.argv))))
        main_module.main()
        kwargs = {"run_name": "__main__", "alter_sys": True}
        self.assertEqual(calls, [(("twisted",), kwargs, ["twisted-smtpd", "smtpd", "-c", "sink"])])
