"""STARTTLS (RFC 3207), REQUIRETLS (RFC 8689), and certificates replaced under connections: real TLS in memory."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionLost

from tests.support.fakes import EHLO, ENVELOPE, MESSAGE, Promises, Recorder, answering, codes, hooks
from tests.support.tls_dialog import Peer, SecureTestCase, TLSTransport
from tests.support.tls_helpers import Client as TLSSettings
from tests.support.tls_helpers import client_hello
from twisted_smtpd.lmtp import LMTP
from twisted_smtpd.runtime import output as output
from twisted_smtpd.smtp import SMTP
from twisted_smtpd.tls import TLSConfigurationError, TLSInfo


class StartTLSTests(SecureTestCase):
    def secured(self, handler: Any = None, split: bool = False, **options: Any) -> Peer:
        peer = self.connect(handler, split=split, tls_context=self.files(), **options)
        peer.starttls()
        return peer

    def test_offered_before_tls_and_not_after(self) -> None:
        peer = self.connect(tls_context=self.files())
        self.assertIn(b"250-STARTTLS\r\n", peer.send(EHLO))
        self.assertEqual(peer.send(b"STARTTLS\r\n"), b"220 2.0.0 Ready to start TLS\r\n")
        peer.handshake()
        self.assertNotIn(b"STARTTLS", peer.send(EHLO))

    def test_a_message_over_tls_in_one_piece_and_octet_by_octet(self) -> None:
        for split in (False, True):
            recorder = Recorder()
            peer = self.secured(recorder, split=split)
            self.assertEqual(codes(peer.send(MESSAGE + b"QUIT\r\n")), [250, 250, 250, 354, 250, 221])
            self.assertEqual(recorder.contents, [b"Subject: hi\r\n\r\nhello\r\n"])
            self.assertTrue(peer.closed)

    def test_each_kind_of_context(self) -> None:
        for context in (self.files(), self.stdlib(), self.options(), self.options().getContext()):
            peer = self.connect(tls_context=context)
            peer.starttls()
            self.assertEqual(codes(peer.send(EHLO)), [250], context)

    def test_a_context_that_is_none_is_a_type_error(self) -> None:
        self.assertRaisesRegex(TypeError, "tls_context: ", SMTP, object(), tls_context="cert.pem")
        self.assertRaisesRegex(TypeError, "ssl_context: ", SMTP, object(), ssl_context=True)

    def test_the_session_tells_of_tls(self) -> None:
        seen: list[Any] = []

        def handle_EHLO(server: Any, session: Any, envelope: Any, hostname: str) -> str:
            seen.append((session.tls, session.ssl))
            session.host_name = hostname
            return "250 HELP"

        peer = self.connect(hooks(handle_EHLO=handle_EHLO), tls_context=self.files(client_ca=self.write_ca()))
        peer.starttls(TLSSettings(b"one.example", identity=self.known))
        peer.send(EHLO)
        self.assertEqual(seen[0], (False, None))
        tls, info = seen[1]
        self.assertIs(tls, True)
        self.assertIsInstance(info, TLSInfo)
        self.assertEqual((info.version, info.server_name, info.peer_verified), ("TLSv1.3", "one.example", True))
        self.assertEqual(info.peer_certificate, self.known.der)

    def write_ca(self) -> str:
        return self.write("ca.pem", self.authority.pem)

    # -- what is forgotten ---------------------------------------------------------------------------------------------

    def test_state_is_forgotten_over_starttls(self) -> None:
        sessions: list[Any] = []

        def handle_NOOP(server: Any, session: Any, envelope: Any, arg: Any) -> str:
            sessions.append(session)
            session.authenticated = True
            session.login_data = "anne"
            return "250 OK"

        for split in (False, True):
            peer = self.connect(hooks(handle_NOOP=handle_NOOP), split=split, tls_context=self.files())
            peer.send(ENVELOPE + b"NOOP\r\n")
            before, envelope = sessions[-1], peer.protocol.envelope
            self.assertEqual(codes(peer.send(b"STARTTLS\r\n")), [503])
            self.assertEqual(codes(peer.send(b"RSET\r\nSTARTTLS\r\n")), [250, 220])
            peer.handshake()
            session = peer.protocol.session
            self.assertIsNot(session, before)
            self.assertIsNot(peer.protocol.envelope, envelope)
            self.assertEqual(
                (session.host_name, session.extended_smtp, session.authenticated, session.login_data),
                (None, False, None, None),
            )
            self.assertEqual((session.id, session.peer), (before.id, before.peer))
            said = peer.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n" + EHLO + b"DATA\r\n")
            self.assertEqual(codes(said), [503, 503, 503, 250, 503])

    def test_mistakes_are_not_forgotten(self) -> None:
        peer = self.connect(tls_context=self.files(), max_errors=3)
        peer.send(b"X\r\nX\r\n")
        peer.starttls()
        self.assertEqual(codes(peer.send(b"X\r\n")), [500, 421])

    def test_the_session_id_stays(self) -> None:
        peer = self.connect(tls_context=self.files())
        before = peer.protocol.session.id
        peer.starttls()
        self.assertEqual(peer.protocol.session.id, before)

    # -- injection -----------------------------------------------------------------------------------------------------

    def test_nothing_sent_behind_starttls_runs_inside_tls(self) -> None:
        commands = b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n\r\n.\r\n"
        for rest in (commands, b"N", b"\r\n", b"\0", client_hello()):
            recorder = Recorder()
            peer = self.connect(recorder, tls_context=self.files())
            self.assertEqual(codes(peer.send(EHLO + b"STARTTLS\r\n" + rest)), [250, 421], rest)
            self.assertTrue(peer.closed)
            self.assertFalse(peer.transport.TLS)
            self.assertEqual(recorder.envelopes, [])

    def test_nothing_behind_starttls_runs_however_it_is_cut(self) -> None:
        stream = EHLO + b"STARTTLS\r\nMAIL FROM:<evil@x.example>\r\n"
        end = stream.index(b"MAIL")
        for cut in range(1, len(stream)):
            recorder = Recorder()
            peer = self.connect(recorder, tls_context=self.files())
            peer.deliver(stream[:cut])
            said = peer.read()
            peer.deliver(stream[cut:])
            # What comes after the reply to STARTTLS meets TLS, and that answers with an alert.
            said += b"" if cut == end else peer.read()
            self.assertTrue(peer.closed or peer.transport.disconnecting, cut)
            self.assertEqual(codes(said), [250, 220 if cut == end else 421], cut)
            self.assertEqual((recorder.envelopes, peer.protocol.envelope.mail_from), ([], None))
            peer.lose()

    def test_nothing_that_comes_in_segments_of_its_own_runs_either(self) -> None:
        commands = b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n\r\n.\r\n"
        recorder = Recorder()
        peer = self.connect(recorder, split=True, tls_context=self.files())
        peer.send(EHLO)
        self.assertEqual(codes(peer.send(b"STARTTLS\r\n")), [220])
        peer.deliver(commands)
        self.assertTrue(peer.transport.disconnecting)
        self.assertEqual((recorder.envelopes, peer.protocol.envelope.mail_from), ([], None))
        peer.lose()
        self.assertEqual(len(self.logged("the client does not speak TLS")), 1)

    def test_nothing_that_comes_while_the_client_does_not_read_runs_either(self) -> None:
        peer = self.connect(tls_context=self.files())
        peer.send(EHLO)
        peer.transport.room = 0
        peer.deliver(b"STARTTLS\r\n")
        peer.deliver(b"NOOP\r\n")
        peer.transport.producer.resumeProducing()
        self.assertEqual(codes(peer.read()), [220, 421])
        self.assertFalse(peer.transport.TLS)

    def test_tls_starts_when_the_client_has_read_everything(self) -> None:
        peer = self.connect(tls_context=self.files())
        peer.send(EHLO)
        peer.transport.room = 0
        self.assertEqual(codes(peer.send(b"STARTTLS\r\n")), [220])
        self.assertFalse(peer.transport.TLS)
        peer.transport.room = None
        peer.transport.producer.resumeProducing()
        peer.handshake()
        self.assertEqual(codes(peer.send(MESSAGE)), [250, 250, 250, 354, 250])

    def test_nothing_that_came_while_a_hook_was_pending_runs_either(self) -> None:
        promises = Promises()
        peer = self.connect(hooks(handle_NOOP=promises), tls_context=self.files())
        peer.send(EHLO + b"NOOP\r\n")
        peer.send(b"STARTTLS\r\nMAIL FROM:<a@b.example>\r\n")
        promises.made[0].callback("250 OK")
        self.assertEqual(codes(peer.read()), [250, 421])
        self.assertFalse(peer.transport.TLS)

    def test_the_rest_of_a_line_in_clear_is_not_the_start_of_one_in_tls(self) -> None:
        peer = self.connect(tls_context=self.files())
        self.assertEqual(codes(peer.send(EHLO + b"STARTTLS\r\nMAIL FROM:<a")), [250, 421])

    def test_nothing_goes_past_tls_to_the_socket(self) -> None:
        for options in ({"tls_context": self.files()}, {"ssl_context": self.files()}):
            protocol = self.factory(**options).buildProtocol(None)
            # As with a TCP transport, whose socket is written to directly while there is no TLS.
            self.patch(output, "PLAIN_TRANSPORTS", (TLSTransport,))
            peer = Peer(protocol, self.clock)
            self.assertTrue(protocol._output.direct or protocol.implicit_tls)
            if protocol.implicit_tls is None:
                peer.starttls()
            else:
                peer.handshake()
            self.assertEqual(codes(peer.send(MESSAGE)), [250, 250, 250, 354, 250])

    # -- refusals ------------------------------------------------------------------------------------------------------

    def test_a_second_starttls_is_503(self) -> None:
        for split in (False, True):
            peer = self.secured(split=split)
            self.assertEqual(codes(peer.send(EHLO + b"STARTTLS\r\nNOOP\r\n")), [250, 503, 250])

    def test_starttls_takes_no_argument(self) -> None:
        peer = self.connect(tls_context=self.files())
        self.assertEqual(codes(peer.send(EHLO + b"STARTTLS now\r\n")), [250, 501])

    def test_starttls_before_ehlo_is_503(self) -> None:
        peer = self.connect(tls_context=self.files())
        self.assertEqual(codes(peer.send(b"STARTTLS\r\n")), [503])

    def test_without_a_context_it_is_not_there(self) -> None:
        peer = self.connect()
        said = peer.send(EHLO + b"STARTTLS\r\nHELP\r\n")
        self.assertEqual(codes(said), [250, 502, 214])
        self.assertEqual(said.count(b"STARTTLS"), 1)

    def test_help_knows_it_where_it_is(self) -> None:
        self.assertIn(b"STARTTLS", self.connect(tls_context=self.files()).send(b"HELP\r\n"))

    def test_a_transport_without_tls_is_454(self) -> None:
        from tests.support.fakes import Client

        client = Client(self.factory(tls_context=self.files()).buildProtocol(None))
        client.read()
        said = client.send(EHLO + b"STARTTLS\r\n")
        self.assertEqual(codes(said), [250, 454])
        self.assertNotIn(b"-STARTTLS", said)

    def test_a_creator_that_fails_ends_the_connection_and_is_logged(self) -> None:
        files = self.files()
        peer = self.connect(tls_context=files)
        files.serverConnectionForTLS = lambda protocol: 1 / 0  # type: ignore[assignment,method-assign]
        peer.send(EHLO)
        peer.deliver(b"STARTTLS\r\n")
        self.assertTrue(peer.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        peer.lose()
        self.assertEqual(len(peer.protocol.connections.open), 0)

    def test_a_subclass_may_have_its_own(self) -> None:
        class Mine(SMTP):
            async def smtp_STARTTLS(self, arg: str | None) -> None:
                await super().smtp_STARTTLS(arg)

        for split in (False, True):
            peer = self.connect(protocol=Mine, split=split, tls_context=self.files())
            peer.starttls()
            self.assertEqual(codes(peer.send(MESSAGE)), [250, 250, 250, 354, 250])

    def test_lmtp_has_it_too(self) -> None:
        peer = self.connect(protocol=LMTP, tls_context=self.files())
        self.assertIn(b"250-STARTTLS\r\n", peer.send(b"LHLO client.example\r\n"))
        self.assertEqual(codes(peer.send(b"STARTTLS\r\n")), [220])
        peer.handshake()
        self.assertEqual(codes(peer.send(b"LHLO client.example\r\n")), [250])

    # -- handle_STARTTLS -----------------------------------------------------------------------------------------------

    def test_the_hook_sees_tls_and_decides(self) -> None:
        async def later(server: Any, session: Any, envelope: Any) -> bool:
            return bool(await succeed(session.tls and session.ssl.version == "TLSv1.3"))

        for yes in (answering(True), answering("250 fine"), answering(succeed(True)), later):
            self.assertEqual(codes(self.secured(hooks(handle_STARTTLS=yes)).send(EHLO)), [250], yes)

    def test_after_its_no_every_command_but_quit_is_554(self) -> None:
        async def later(*arguments: Any) -> bool:
            return bool(await succeed(False))

        refusals = (False, None, 0, succeed(False), "554 no", "454 no", "nonsense")
        for no in (*map(answering, refusals), later):
            peer = self.secured(hooks(handle_STARTTLS=no))
            said = peer.send(EHLO + b"NOOP\r\nMAIL FROM:<a@b.example>\r\nSTARTTLS\r\nHELP\r\n")
            self.assertEqual(codes(said), [554] * 5)
            self.assertEqual(codes(peer.send(b"QUIT\r\n")), [221])

    def test_a_hook_that_has_not_finished_says_no(self) -> None:
        def generator(*arguments: Any) -> Any:
            yield succeed(True)
            return True

        self.assertEqual(codes(self.secured(hooks(handle_STARTTLS=generator)).send(EHLO)), [554])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_a_hook_that_fails_says_no(self) -> None:
        def broken(*arguments: Any) -> Any:
            raise ZeroDivisionError

        peer = self.secured(hooks(handle_STARTTLS=broken))
        self.assertEqual(codes(peer.send(EHLO)), [554])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_hook_that_takes_too_long_says_no_and_answers_nothing(self) -> None:
        peer = self.secured(hooks(handle_STARTTLS=answering(Deferred())), hook_timeout=5, timeout=50)
        self.assertEqual(peer.send(EHLO), b"")
        self.clock.advance(5)
        self.assertEqual(codes(peer.read()), [554])
        self.flushLoggedErrors()

    def test_commands_wait_for_the_hook(self) -> None:
        promises = Promises()
        peer = self.secured(hooks(handle_STARTTLS=promises))
        self.assertEqual(peer.send(EHLO), b"")
        promises.made[0].callback(True)
        self.assertEqual(codes(peer.read()), [250])

    def test_the_hook_is_cancelled_when_the_client_goes(self) -> None:
        promises = Promises()
        peer = self.secured(hooks(handle_STARTTLS=promises))
        peer.lose()
        self.assertEqual(promises.cancelled, promises.made)

    # -- require_starttls ----------------------------------------------------------------------------------------------

    def test_require_starttls_lets_few_commands_through_in_clear(self) -> None:
        for split in (False, True):
            peer = self.connect(split=split, tls_context=self.files(), require_starttls=True)
            refused = (
                b"MAIL FROM:<a@b.example>\r\nRCPT TO:<a@b.example>\r\nDATA\r\nVRFY a\r\nRSET\r\nHELP\r\nAUTH PLAIN\r\n"
            )
            said = peer.send(b"HELO client.example\r\n" + EHLO + b"NOOP\r\n" + refused)
            self.assertEqual(codes(said), [530, 250, 250] + [530] * 7)
            self.assertIn(b"530 5.7.0 ", said)
            self.assertEqual(codes(peer.send(b"STARTTLS\r\n")), [220])
            peer.handshake()
            self.assertEqual(codes(peer.send(MESSAGE)), [250, 250, 250, 354, 250])

    def test_require_starttls_lets_quit_through(self) -> None:
        peer = self.connect(tls_context=self.files(), require_starttls=True)
        self.assertEqual(codes(peer.send(b"QUIT\r\n")), [221])

    def test_require_starttls_with_lmtp(self) -> None:
        peer = self.connect(protocol=LMTP, tls_context=self.files(), require_starttls=True)
        said = peer.send(b"LHLO client.example\r\nMAIL FROM:<a@b.example>\r\n")
        self.assertEqual(codes(said), [250, 530])

    def test_require_starttls_without_a_context_is_an_error(self) -> None:
        self.assertRaisesRegex(ValueError, "tls_context", SMTP, object(), require_starttls=True)

    def test_require_starttls_is_content_with_implicit_tls(self) -> None:
        peer = self.connect(ssl_context=self.files(), require_starttls=True)
        self.assertEqual(codes(peer.handshake()), [220])
        self.assertEqual(codes(peer.send(MESSAGE))[-1], 250)

    # -- REQUIRETLS ----------------------------------------------------------------------------------------------------

    def test_requiretls_is_offered_and_accepted_over_tls_only(self) -> None:
        recorder = Recorder()
        mail = b"MAIL FROM:<a@b.example> REQUIRETLS\r\n"
        peer = self.connect(recorder, tls_context=self.files())
        said = peer.send(EHLO + mail)
        self.assertNotIn(b"REQUIRETLS\r\n", said.replace(b"parameter REQUIRETLS", b""))
        self.assertEqual(codes(said), [250, 555])
        peer.send(b"STARTTLS\r\n")
        peer.handshake()
        said = peer.send(EHLO + mail + b"RCPT TO:<c@d.example>\r\nDATA\r\n.\r\n")
        self.assertIn(b"250-REQUIRETLS\r\n", said)
        self.assertEqual(codes(said), [250, 250, 250, 354, 250])
        self.assertEqual(recorder.envelopes[0].mail_parameters, {"REQUIRETLS": None})
        self.assertEqual(codes(peer.send(b"MAIL FROM:<a@b.example> REQUIRETLS=1\r\n")), [501])


class HandshakeTests(SecureTestCase):
    """A handshake that does not get to its end."""

    def started(self, **options: Any) -> Peer:
        peer = self.connect(tls_context=self.files(), **options)
        peer.send(EHLO)
        peer.send(b"STARTTLS\r\n")
        return peer

    def test_one_that_fails_is_logged_once_with_its_reason(self) -> None:
        for garbage, reason in (
            (b"GET / HTTP/1.1\r\n\r\n", "the client speaks HTTP, not TLS"),
            (b"EHLO client.example\r\n", "the client does not speak TLS"),
        ):
            peer = self.started()
            peer.deliver(garbage)
            self.assertTrue(peer.transport.disconnecting)
            peer.lose()
            lines = self.logged(reason)
            self.assertEqual(len(lines), 1)
            self.assertIn(peer.protocol.session.id, lines[0])
            self.assertIn("192.0.2.1", lines[0])
        self.assertEqual(self.logged("Traceback"), [])
        self.assertEqual([event for event in self.log if "log_failure" in event], [])

    def test_a_client_that_knows_only_old_versions_is_logged(self) -> None:
        peer = self.started()
        self.assertRaises((SSL.Error, AssertionError), peer.handshake, TLSSettings(version=SSL.TLS1_VERSION))
        peer.lose()
        self.assertEqual(len(self.logged("too old")), 1)

    def test_a_client_that_hangs_up_is_logged(self) -> None:
        peer = self.started()
        peer.deliver(client_hello()[:50])
        peer.lose(ConnectionLost())
        self.assertEqual(len(self.logged("the client hung up during the TLS handshake")), 1)
        self.assertEqual(len(peer.protocol.connections.open), 0)

    def test_one_that_stalls_is_cut_off_in_time_and_logged_once(self) -> None:
        for sent in (b"", client_hello()[:50], client_hello()):
            self.log.clear()
            peer = self.started(handshake_timeout=20)
            peer.deliver(sent)
            self.clock.pump([1.0] * 18)
            self.assertFalse(peer.aborted)
            self.clock.pump([1.0] * 3)
            self.assertTrue(peer.aborted)
            peer.lose(ConnectionLost())
            self.assertEqual(len(self.logged("no end of the TLS handshake within 20 s")), 1)
            self.assertEqual(len(self.logged("TLS handshake")), 1)

    def test_one_that_trickles_is_cut_off_all_the_same(self) -> None:
        peer = self.started(handshake_timeout=20)
        for octet in client_hello()[:100]:
            if not peer.aborted:
                peer.deliver(bytes([octet]))
                self.clock.advance(1)
        self.assertTrue(peer.aborted)
        self.assertLess(self.clock.seconds(), 25)

    def test_its_own_limit_counts_and_not_that_of_a_silent_client(self) -> None:
        """A handshake holds a connection for which no client has said anything yet."""
        patient = self.started(timeout=5, handshake_timeout=20)
        self.clock.pump([1.0] * 15)
        self.assertFalse(patient.aborted)
        usual = self.started()
        self.clock.pump([1.0] * 59)
        self.assertFalse(usual.aborted)
        self.clock.pump([1.0] * 3)
        self.assertTrue(usual.aborted)

    def test_a_handshake_ends_when_the_server_stops(self) -> None:
        factory = self.factory(tls_context=self.files())
        peer = self.join(factory)
        peer.send(EHLO)
        peer.send(b"STARTTLS\r\n")
        drained = factory.drain()
        self.assertTrue(peer.aborted)
        peer.lose()
        self.successResultOf(drained)

    def test_the_idle_time_counts_from_the_handshake(self) -> None:
        peer = self.started(timeout=20)
        self.clock.pump([1.0] * 15)
        peer.handshake()
        self.clock.pump([1.0] * 15)
        self.assertEqual(codes(peer.send(EHLO)), [250])

    def test_a_client_that_closes_tls_ends_the_session(self) -> None:
        ended: list[Any] = []
        peer = self.connect(
            hooks(handle_DISCONNECT=lambda server, session, envelope, reason: ended.append(session)),
            tls_context=self.files(),
        )
        peer.starttls()
        assert peer.tls is not None
        peer.tls.shutdown()
        peer.deliver(peer._outgoing())
        self.assertTrue(peer.transport.disconnecting)
        peer.lose()
        self.assertEqual(ended, [peer.protocol.session])
        self.assertEqual(len(peer.protocol.connections.open), 0)

    def test_a_pending_hook_is_cancelled_when_tls_ends(self) -> None:
        promises = Promises()
        peer = self.connect(hooks(handle_MAIL=promises), tls_context=self.files())
        peer.starttls()
        peer.send(EHLO + b"MAIL FROM:<a@b.example>\r\n")
        peer.lose(ConnectionLost())
        self.assertEqual(promises.cancelled, promises.made)


class ReloadTests(SecureTestCase):
    def test_certificates_are_replaced_under_200_connections(self) -> None:
        files = self.files(self.one)
        factory = self.factory(tls_context=files, max_connections_per_address=0)
        peers = [self.join(factory) for _ in range(200)]
        for peer in peers[:150]:
            peer.starttls()
        for peer in peers[:50]:
            peer.send(ENVELOPE + b"DATA\r\nhalf a me")
        for peer in peers[100:150]:
            peer.send(EHLO)
        for peer in peers[150:175]:
            peer.send(EHLO)
            peer.send(b"STARTTLS\r\n")
        self.files(self.two)
        self.assertTrue(files.reload())
        for peer in peers[:50]:
            self.assertEqual(codes(peer.send(b"ssage\r\n.\r\n")), [250])
        for peer in peers[50:150]:
            self.assertEqual(codes(peer.send(MESSAGE)), [250, 250, 250, 354, 250])
        for peer in peers[150:175]:
            peer.handshake()
            self.assertEqual(presented(peer), self.one.der)
        for peer in peers[175:]:
            peer.starttls()
            self.assertEqual(presented(peer), self.two.der)
        self.assertFalse(any(peer.closed or peer.aborted for peer in peers))

    def test_a_broken_file_changes_nothing(self) -> None:
        files = self.files(self.one)
        self.write("server.crt", b"broken")
        self.assertFalse(files.reload())
        peer = self.connect(tls_context=files)
        peer.starttls()
        self.assertEqual(presented(peer), self.one.der)
        self.assertRaises(TLSConfigurationError, self.files.__func__, self, None, "other", ciphers="none")  # type: ignore[attr-defined]


def presented(peer: Peer) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    assert peer.tls is not None
    certificate = peer.tls.get_peer_certificate()
    assert certificate is not None
    return certificate.to_cryptography().public_bytes(Encoding.DER)
