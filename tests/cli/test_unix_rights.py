"""Who may connect to a Unix socket: what the umask says; and who is not believed there."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress

from tests.support.command_line import CommandLine
from tests.test_service import FakeEndpoint, FakePort, ServiceCase
from twisted_smtpd.factory import SMTPFactory
from twisted_smtpd.handlers import Sink
from twisted_smtpd.runtime.listeners import Listener, others_can_connect
from twisted_smtpd.service import BindError
from twisted_smtpd.tap import makeService


class UmaskTests(CommandLine):
    """Twisted makes each socket ``srw-rw-rw-``, whatever the umask; then every local user could send."""

    def mode(self, umask: int, where: str, *words: str) -> int:
        options = self.parse("-l", where, *words)
        self.addCleanup(os.umask, os.umask(umask))
        self.successResultOf(options.listeners[0].endpoint.listen(SMTPFactory(Sink())))
        self.assertEqual(os.umask(umask), umask, "the umask is what it was")
        mode: int = options.reactor.unixServers[0][3]
        return mode

    def test_a_socket_has_the_rights_that_the_umask_leaves(self) -> None:
        for umask in (0o077, 0o007, 0o022, 0):
            self.assertEqual(self.mode(umask, "unix:/run/s"), 0o777 & ~umask)

    def test_a_mode_that_is_given_is_obeyed(self) -> None:
        for where in ("unix:/run/s:mode=660", "unix:/run/s:lockfile=0:mode=660", "unix:/run/s:660"):
            self.assertEqual(self.mode(0o077, where), 0o660, where)

    def test_a_path_that_looks_like_a_mode_is_none(self) -> None:
        self.assertEqual(self.mode(0o077, r"unix:/run/s\:mode\=666"), 0o700)

    def test_a_wrong_description_is_a_usage_error(self) -> None:
        for where in ("unix:/run/s:mode=x", "unix:/run/s:colour=red"):
            self.assertIn(f"--listen: {where!r}", self.refused("-l", where))


class OthersTests(CommandLine):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.folder.chmod(0o755)
        self.bound = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.bound.close)
        self.path = self.folder / "s"
        self.bound.bind(str(self.path))

    def others(self, mode: int) -> bool:
        self.path.chmod(mode)
        return others_can_connect(UNIXAddress(os.fsencode(self.path)))

    def test_others_can_connect_who_may_write_to_the_socket(self) -> None:
        self.assertEqual([self.others(mode) for mode in (0o777, 0o666, 0o602)], [True] * 3)
        self.assertEqual([self.others(mode) for mode in (0o660, 0o755, 0o600)], [False] * 3)

    def test_but_not_through_a_folder_that_they_may_not_enter(self) -> None:
        self.folder.chmod(0o750)
        self.assertFalse(self.others(0o666))

    def test_a_name_without_a_file_has_no_rights(self) -> None:
        for name in (b"\0abstract", b"", None, os.fsencode(self.folder / "gone")):
            self.assertTrue(others_can_connect(UNIXAddress(name)))

    def test_a_port_of_another_kind_is_none_of_these(self) -> None:
        self.assertFalse(others_can_connect(IPv4Address("TCP", "127.0.0.1", 25)))


class TrustTests(ServiceCase):
    """With ``--xclient-from unix`` each local user could sign in as anybody through such a socket."""

    def serve(self, trusts: bool, name: bytes) -> Any:
        port = FakePort(UNIXAddress(name))
        service = self.service(Listener("unix:s", FakeEndpoint(port)))
        service.trusts_unix = trusts
        return service, port

    def test_a_socket_of_all_users_is_refused_where_its_peers_are_believed(self) -> None:
        service, port = self.serve(True, b"\0all")
        error = self.assertRaises(BindError, service.privilegedStartService)
        self.assertIn("can't listen on unix:s: every user of this machine can connect to it", str(error))
        self.assertFalse(port.open)

    def test_it_is_taken_where_nobody_is_believed(self) -> None:
        service, port = self.serve(False, b"\0all")
        service.startService()
        self.assertTrue(port.open)


class TrustOptionTests(CommandLine):
    def test_what_is_believed_follows_from_the_options(self) -> None:
        for words, trusts in (
            ((), False),
            (("--xclient-from=127.0.0.1", "--proxy-from=10.0.0.0/8"), False),
            (("--xclient-from=unix",), True),
            (("--proxy-from=10.0.0.1", "--proxy-from=unix"), True),
        ):
            for workers in ("1", "2"):
                options = self.parse("-c", "sink", "-l", "unix:/run/s", f"--workers={workers}", *words)
                service: Any = makeService(options)
                self.assertIs(service.trusts_unix, trusts, (words, workers))
