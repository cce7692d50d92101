"""Tests for :mod:`twisted_smtpd.cli.tls`."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

import twisted_smtpd.runtime.hangup
from tests.support.command_line import CommandLine
from tests.support.fakes import EHLO, codes
from tests.support.tls_dialog import Peer, SecureTestCase
from tests.support.tls_helpers import Client as TLSSettings
from twisted_smtpd.factory import ImplicitTLS
from twisted_smtpd.service import ServerService
from twisted_smtpd.tap import makeService
from twisted_smtpd.tls import SelfSigned, ServerCertificates


class OptionTestCase(SecureTestCase, CommandLine):
    def setUp(self) -> None:
        super().setUp()
        # A service that is never quite stopped leaves it as it is.
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        self.files()
        self.cert, self.key = (os.path.join(self.folder, f"server.{end}") for end in ("crt", "key"))
        self.certificate = ("--tlscert", self.cert, "--tlskey", self.key)

    def service(self, *words: str) -> Any:
        return makeService(self.parse(*words, "-c", "sink", "--hostname", "mx.example"))

    def peers(self, *words: str) -> list[Peer]:
        """A client of each listener."""
        service = self.service(*words)
        service.startService()
        self.addCleanup(service.stopService)
        peers = []
        for _, factory, _, _ in service.reactor.tcpServers:
            inner = factory.factory if isinstance(factory, ImplicitTLS) else factory
            inner.connections._clock = self.clock
            peers.append(Peer(factory.buildProtocol(None), self.clock))
        return peers


class StartTLSOptionTests(OptionTestCase):
    def test_a_certificate_offers_and_requires_starttls(self) -> None:
        for peer in self.peers(*self.certificate):
            said = peer.send(EHLO + b"MAIL FROM:<a@b.example>\r\n")
            self.assertIn(b"250-STARTTLS\r\n", said)
            self.assertEqual(codes(said), [250, 530])
            peer.send(b"STARTTLS\r\n")
            peer.handshake()
            self.assertEqual(codes(peer.send(EHLO + b"MAIL FROM:<a@b.example>\r\n")), [250, 250])

    def test_no_requiretls_only_offers_it(self) -> None:
        (peer, *_) = self.peers(*self.certificate, "--no-requiretls")
        self.assertEqual(codes(peer.send(EHLO + b"MAIL FROM:<a@b.example>\r\n")), [250, 250])

    def test_the_key_may_be_in_the_file_of_the_certificate(self) -> None:
        both = self.write("both.pem", self.one.pem, self.one.key_pem)
        self.assertIsInstance(self.parse("--tlscert", both).server_options()["tls_context"], ServerCertificates)

    def test_several_certificates_are_chosen_by_name(self) -> None:
        self.files(self.two, "two")
        two = ("--tlscert", f"{self.folder}/two.crt", "--tlskey", f"{self.folder}/two.key")
        for name, issued in ((b"one.example", self.one), (b"a.two.example", self.two), (None, self.one)):
            (peer, *_) = self.peers(*self.certificate, *two)
            peer.starttls(TLSSettings(name))
            assert peer.tls is not None
            presented: Any = peer.tls.get_peer_certificate()
            self.assertEqual(presented.to_cryptography(), issued.certificate)

    def test_a_throw_away_certificate_offers_tls_and_says_what_it_is(self) -> None:
        options = self.parse("--tls-self-signed").server_options()
        self.assertIsInstance(options["tls_context"], SelfSigned)
        self.assertFalse(options["require_starttls"])
        self.assertEqual(len(self.logged("THROW-AWAY CERTIFICATE")), 1)

    def test_clients_are_asked_for_certificates(self) -> None:
        ca = self.write("ca.pem", self.authority.pem)
        (peer, *_) = self.peers(*self.certificate, "--tls-client-ca", ca)
        peer.starttls(TLSSettings(identity=self.known))
        self.assertTrue(peer.protocol.session.ssl.peer_verified)


class ImplicitTLSOptionTests(OptionTestCase):
    def secure(self, *words: str) -> dict[str, bool]:
        return {listener.name: listener.secure for listener in self.parse(*words).listeners}

    def test_listen_tls_stands_beside_the_others(self) -> None:
        words = (*self.certificate, "-l", "0.0.0.0:25", "--listen-tls", "0.0.0.0:465", "--listen-tls", "[::]:465")
        self.assertEqual(self.secure(*words), {"0.0.0.0:25": False, "0.0.0.0:465": True, "[::]:465": True})
        clear, *secure = self.peers(*words)
        self.assertEqual(codes(clear.greeting), [220])
        for peer in secure:
            self.assertEqual(codes(peer.handshake()), [220])

    def test_listen_tls_alone_is_alone(self) -> None:
        self.assertEqual(self.secure("--tls-self-signed", "--listen-tls", "127.0.0.1:465"), {"127.0.0.1:465": True})

    def test_smtpscert_is_for_the_places_of_listen(self) -> None:
        words = ("--smtpscert", self.cert, "--smtpskey", self.key, "-l", "127.0.0.1:1", "--listen-tls", "127.0.0.1:2")
        self.assertEqual(self.secure(*words), {"127.0.0.1:1": True, "127.0.0.1:2": True})
        for peer in self.peers(*words):
            self.assertEqual(codes(peer.handshake()), [220])
            self.assertNotIn(b"STARTTLS", peer.send(EHLO))

    def test_all_listeners_share_the_limits(self) -> None:
        words = ("-l", "127.0.0.1:1", "--listen-tls", "127.0.0.1:2", "--tls-self-signed", "--max-connections=1")
        clear, secure = self.peers(*words)
        self.assertEqual((codes(clear.greeting), secure.aborted), ([220], True))

    def test_the_hint_has_tls(self) -> None:
        for words, hint in (
            (("--listen-tls", "127.0.0.1:2"), "--tls-on-connect"),
            (("-l", "127.0.0.1:1"), "--tls "),
        ):
            self.log.clear()
            self.peers("--tls-self-signed", *words)
            self.assertIn(hint, self.logged("To try it")[0])


class WrongTLSOptionTests(OptionTestCase):
    def assertRefused(self, words: Sequence[str], text: str) -> None:
        self.assertIn(text, self.refused(*words))

    def test_one_line_says_what_is_wrong(self) -> None:
        missing = os.path.join(self.folder, "missing.pem")
        for words, text in (
            (["--tlskey", self.key], "--tlscert"),
            ([*self.certificate, "--tlscert", self.cert], "one key for each"),
            (["--tlscert", self.cert], "--tlscert: "),
            (["--tlscert", missing, "--tlskey", self.key], missing),
            (["--tlscert", self.key, "--tlskey", self.key], self.key),
            (["--tlscert", self.cert, "--tlskey", self.cert], self.cert),
            (["--smtpskey", self.key], "--smtpskey needs"),
            (["--smtpscert", missing], f"--smtpscert: {missing}"),
            (["--no-requiretls"], "--no-requiretls needs"),
            (["--tls-self-signed", *self.certificate], "contradict"),
            (["--listen-tls", "127.0.0.1:465"], "--listen-tls needs"),
            (["--listen-tls", "127.0.0.1:99999", "--tls-self-signed"], "--listen-tls: "),
            (["--listen-tls", "nonsense:x:y", "--tls-self-signed"], "--listen-tls: "),
            (["--tls-client-ca", self.cert], "--tls-client-ca needs"),
            (["--tls-client-ca", missing, *self.certificate], missing),
            (["--tls-self-signed", "--hostname", "x" * 100 + ".example"], "--tls-self-signed: "),
        ):
            self.assertRefused(words, text)


class ReloadOptionTests(OptionTestCase):
    def setUp(self) -> None:
        super().setUp()
        # Whatever these tests are run on.
        self.patch(twisted_smtpd.runtime.hangup, "_has_terminal", lambda: False)

    def test_sighup_reloads_the_certificates_and_drops_nobody(self) -> None:
        service = self.service(*self.certificate, "-l", "127.0.0.1:0")
        before = signal.getsignal(signal.SIGHUP)
        service.startService()
        service.factory.connections._clock = self.clock
        peer = self.join(service.factory)
        peer.starttls()
        self.files(self.two)
        calls: list[Any] = []
        service.reactor.callFromThread = calls.append
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(calls, [service.reload])
        service.reload()
        self.assertEqual(codes(peer.send(EHLO)), [250])
        later = self.join(service.factory)
        later.starttls()
        assert later.tls is not None
        presented: Any = later.tls.get_peer_certificate()
        self.assertEqual(presented.to_cryptography(), self.two.certificate)
        stopped = service.stopService()
        # By default, the signal would end what is in progress.
        self.assertNotEqual(signal.getsignal(signal.SIGHUP), before)
        for client in (peer, later):
            client.lose()
        self.successResultOf(stopped)
        self.assertEqual(signal.getsignal(signal.SIGHUP), before)

    def test_without_certificates_sighup_ends_nothing(self) -> None:
        """A single process without certificates was killed by it: a reload of all services stopped this one."""
        self.addCleanup(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_DFL))
        for words in ((), ("--tls-self-signed",)):
            service = self.service(*words)
            self.assertIsInstance(service, ServerService)
            service.startService()
            calls: list[Any] = []
            service.reactor.callFromThread = calls.append
            os.kill(os.getpid(), signal.SIGHUP)
            (call,) = calls
            call()
            service.stopService()
            self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_DFL)

    def test_without_certificates_sighup_is_left_to_who_has_a_use_for_it(self) -> None:
        for use in (signal.SIG_IGN, lambda number, frame: None):
            self.addCleanup(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, use))
            service = self.service()
            service.startService()
            self.assertEqual(signal.getsignal(signal.SIGHUP), use)
            service.stopService()

    def test_on_a_terminal_a_hangup_is_a_sigterm(self) -> None:
        """A server whose window was closed would stay in the background, and keep its port."""
        self.patch(twisted_smtpd.runtime.hangup, "_has_terminal", lambda: True)
        ends: list[int] = []
        for number, handler in (
            (signal.SIGHUP, signal.SIG_DFL),
            (signal.SIGTERM, lambda number, frame: ends.append(number)),
        ):
            self.addCleanup(signal.signal, number, signal.signal(number, handler))
        service = self.service(*self.certificate)
        service.startService()
        calls: list[Any] = []
        service.reactor.callFromThread = lambda *call: calls.append(call)
        # A terminal may send two, and a second SIGTERM would end the grace.
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(ends, [signal.SIGTERM])
        ((_, text),) = calls
        self.assertIn("it was started on a terminal", text)
        service.stopService()

    def test_a_program_of_nohup_outlives_its_terminal(self) -> None:
        self.patch(twisted_smtpd.runtime.hangup, "_has_terminal", lambda: True)
        self.addCleanup(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_IGN))
        service = self.service(*self.certificate)
        service.startService()
        calls: list[Any] = []
        service.reactor.callFromThread = calls.append
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(calls, [service.reload])
        service.stopService()
