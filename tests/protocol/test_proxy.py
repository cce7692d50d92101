"""The PROXY header in front of a dialog: who has to send one, who must not, and what becomes of the address."""

from __future__ import annotations

import ipaddress
from concurrent.futures import Future
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.support.fakes import EHLO, ENVELOPE, GREETING, MESSAGE, Promises, Recorder, answering, codes, hooks
from tests.support.proxy_headers import tlv
from tests.support.proxy_headers import v2 as version_2
from tests.support.tls_dialog import Peer, SecureTestCase
from twisted_smtpd.factory import ImplicitTLS
from twisted_smtpd.smtp import SMTP, SMTPReplyError

V1 = b"PROXY TCP4 203.0.113.7 192.0.2.9 50001 25\r\n"
V1_IPV6 = b"PROXY TCP6 2001:db8::7 2001:db8::9 50001 25\r\n"
V1_UNKNOWN = b"PROXY UNKNOWN\r\n"
BALANCER = "10.1.2.3"
FROM = ["10.0.0.0/8", "fd00::/8"]
CLIENT = ("203.0.113.7", 50001)


def v2(
    source: str = "203.0.113.7", tlvs: bytes = b"", command: int = 1, family: int = 0x11, length: int | None = None
) -> bytes:
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address("192.0.2.9").packed
    block = addresses + (50001).to_bytes(2, "big") + (25).to_bytes(2, "big") + tlvs
    return version_2(block, family, 0x20 | command, length)


# Section 2.2.6: the client came over TLS 1.3, without a certificate.
OVER_TLS = tlv(0x20, b"\x01\0\0\0\0" + tlv(0x21, b"TLSv1.3"))
IN_CLEAR = tlv(0x20, b"\x00\0\0\0\0")


class Witness(Recorder):
    """Keeps what the hooks were called with."""

    def __init__(self, answer: Any = True) -> None:
        super().__init__()
        self.answer = answer
        self.called: list[str] = []
        self.data: list[Any] = []
        self.sessions: list[Any] = []

    def handle_PROXY(self, server: Any, session: Any, envelope: Any, proxy_data: Any) -> Any:
        self.called.append("PROXY")
        self.data.append(proxy_data)
        self.sessions.append(session)
        return self.answer

    def handle_CONNECT(self, server: Any, session: Any, envelope: Any) -> str:
        self.called.append("CONNECT")
        self.sessions.append(session)
        return "250 welcome"

    def handle_DISCONNECT(self, server: Any, session: Any, envelope: Any, reason: Any) -> None:
        self.called.append("DISCONNECT")


class ProxyTestCase(SecureTestCase):
    def behind(self, handler: Any = None, host: Any = BALANCER, split: bool = False, **options: Any) -> Peer:
        options.setdefault("proxy_from", FROM)
        return self.connect(handler, host, split, **options)

    def assertRefused(self, peer: Peer) -> None:
        self.assertTrue(peer.aborted)
        self.assertEqual(peer.transport.value(), b"")
        peer.lose()
        self.assertEqual(len(peer.protocol.connections.open), 0)
        self.assertEqual(dict(peer.protocol.connections.per_address), {})


class HeaderTests(ProxyTestCase):
    def test_the_greeting_waits_for_the_header(self) -> None:
        for header in (V1, v2(), V1_IPV6, V1_UNKNOWN):
            for split in (False, True):
                peer = self.behind(split=split)
                self.assertEqual(peer.greeting, b"")
                self.assertEqual(peer.send(header), GREETING)
                self.assertEqual(codes(peer.send(MESSAGE)), [250, 250, 250, 354, 250])

    def test_a_dialog_in_the_segment_of_the_header(self) -> None:
        for header in (V1, v2()):
            for split in (False, True):
                recorder = Recorder()
                peer = self.behind(recorder, split=split)
                self.assertEqual(codes(peer.send(header + MESSAGE + b"QUIT\r\n")), [220, 250, 250, 250, 354, 250, 221])
                self.assertEqual(recorder.contents, [b"Subject: hi\r\n\r\nhello\r\n"])

    def test_the_session_knows_client_and_proxy(self) -> None:
        for header, client in ((V1, CLIENT), (v2(), CLIENT), (V1_IPV6, ("2001:db8::7", 50001, 0, 0))):
            peer = self.behind()
            peer.send(header)
            session = peer.protocol.session
            self.assertEqual((session.peer, session.proxy_peer), (client, (BALANCER, 40000)))
            self.assertTrue(session.proxy_data)
            self.assertIs(session.tls, False)

    def test_a_header_that_names_nobody_leaves_the_proxy_itself(self) -> None:
        for header in (V1_UNKNOWN, v2(command=0)):
            peer = self.behind()
            peer.send(header)
            session = peer.protocol.session
            self.assertEqual((session.peer, session.proxy_peer), ((BALANCER, 40000),) * 2)

    def test_peers_over_ipv6_mapped_ipv4_and_unix_sockets(self) -> None:
        for address, networks in (
            (IPv6Address("TCP", "fd00::1", 1), ["fd00::/8"]),
            (IPv6Address("TCP", "::ffff:10.0.0.1", 1), ["10.0.0.0/8"]),
            (UNIXAddress(None), ["unix"]),
            (IPv4Address("TCP", "10.0.0.1", 1), [ipaddress.ip_network("10.0.0.1")]),
        ):
            peer = self.behind(host=address, proxy_from=networks)
            self.assertEqual(peer.greeting, b"")
            self.assertEqual(codes(peer.send(V1)), [220])
            self.assertEqual(peer.protocol.session.peer, CLIENT)


class TrustTests(ProxyTestCase):
    """A header is believed from those it is required from, and from nobody else."""

    def test_a_header_from_anybody_else_is_a_bad_command(self) -> None:
        for header in (V1, v2()):
            for split in (False, True):
                peer = self.behind(host="203.0.113.200", split=split)
                self.assertEqual(peer.greeting, GREETING)
                said = codes(peer.send(header))
                # In the signature of version 2 there is a QUIT, which ends with LF alone.
                self.assertTrue(all(code == 500 for code in said if code != 221 or header == V1), said)
                self.assertEqual(peer.protocol.session.peer[0], "203.0.113.200")
                self.assertIsNone(peer.protocol.session.proxy_data)
                self.assertFalse(peer.protocol.session.tls)

    def test_without_the_option_no_header_is_read(self) -> None:
        peer = self.connect(None, BALANCER)
        self.assertEqual(peer.greeting, GREETING)
        self.assertEqual(codes(peer.send(V1)), [500])

    def test_a_header_after_the_greeting_is_a_bad_command(self) -> None:
        peer = self.behind()
        peer.send(V1)
        self.assertEqual(codes(peer.send(V1_IPV6)), [500])
        self.assertEqual(peer.protocol.session.peer, CLIENT)

    def test_a_second_header_in_the_segment_of_the_first_is_a_bad_command(self) -> None:
        peer = self.behind()
        self.assertEqual(codes(peer.send(V1 + V1_IPV6)), [220, 500])
        self.assertEqual(peer.protocol.session.peer, CLIENT)

    def test_a_client_behind_the_proxy_can_not_be_the_proxy(self) -> None:
        peer = self.behind(xclient_from=["192.0.2.0/24"])
        peer.send(V1)
        self.assertFalse(peer.protocol.may_vouch)

    def test_proxy_protocol_timeout_alone_requires_it_from_everybody(self) -> None:
        for host in ("203.0.113.200", "127.0.0.1", UNIXAddress(None)):
            peer = self.connect(Witness(), host, proxy_protocol_timeout=3)
            self.assertEqual(peer.greeting, b"")
            self.assertEqual(codes(peer.send(V1)), [220])

    def test_proxy_protocol_timeout_alone_needs_somebody_to_judge(self) -> None:
        peer = self.connect(object(), "192.0.2.1", proxy_protocol_timeout=3)
        self.assertEqual(peer.send(V1 + EHLO), b"")
        self.assertTrue(peer.aborted)

    def test_bad_options(self) -> None:
        for value, error in (
            ("10.0.0.0/8", TypeError),
            ([10], TypeError),
            (["10.0.0.1/8"], ValueError),
            (["example.com"], ValueError),
            ([""], ValueError),
        ):
            self.assertRaisesRegex(error, "proxy_from: ", SMTP, object(), proxy_from=value)
            self.assertRaisesRegex(error, "xclient_from: ", SMTP, object(), xclient_from=value)
        for timeout in (0, -1):
            self.assertRaises(ValueError, SMTP, Witness(), proxy_protocol_timeout=timeout)


class BadHeaderTests(ProxyTestCase):
    BAD = (
        b"EHLO client.example\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"proxy TCP4 203.0.113.7 192.0.2.9 50001 25\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.9 50001 65536\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.9 50001 025\r\n",
        b"PROXY TCP4 2001:db8::7 192.0.2.9 50001 25\r\n",
        b"PROXY TCP9 203.0.113.7 192.0.2.9 50001 25\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.9 50001\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.9 50001 25\n",
        b"PROXY TCP4 203.0.113.7\r192.0.2.9 50001 25\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        b"PROXY UNKNOWN " + b"x" * 200,
        v2(family=0x41),
        v2(family=0x12),
        v2(command=2),
        v2(length=4),
        v2(length=5000),
        v2(tlvs=b"\x01"),
        v2(tlvs=b"\x01\xff\xff"),
        v2(tlvs=tlv(0x20, b"\x01")),
        v2(tlvs=tlv(0x03, b"\0\0\0\0")),
        b"\r\n\r\n\0\r\nQUIT\r\n" + b"\0" * 20,
    )

    def test_a_bad_header_ends_the_connection_without_a_word(self) -> None:
        for header in self.BAD:
            for split in (False, True):
                witness = Witness()
                peer = self.behind(witness, split=split)
                peer.deliver(header + MESSAGE)
                self.assertRefused(peer)
                self.assertEqual((witness.called, witness.envelopes), ([], []), header)

    def test_nothing_behind_a_bad_header_is_a_command(self) -> None:
        called: list[str] = []
        peer = self.behind(hooks(handle_NOOP=lambda *arguments: called.append("NOOP")))
        peer.deliver(b"PROXY TCP4 x\r\nNOOP\r\n")
        peer.deliver(b"NOOP\r\n")
        self.assertEqual(called, [])
        self.assertRefused(peer)

    def test_it_is_logged_once_with_the_peer_and_without_controls(self) -> None:
        peer = self.behind()
        peer.deliver(b"PROXY TCP4 \x1b[2J\r\n")
        peer.lose()
        (line,) = self.logged("PROXY header")
        self.assertIn(BALANCER, line)
        self.assertTrue(line.isprintable())
        self.assertEqual([event for event in self.log if "log_failure" in event], [])

    def test_a_header_that_does_not_come_in_time(self) -> None:
        for part in (b"", b"PROXY TCP4 203.0", v2()[:20]):
            for options, seconds in (({}, 5), ({"proxy_protocol_timeout": 3}, 3)):
                peer = self.behind(**options)
                peer.deliver(part)
                self.clock.pump([0.1] * (seconds * 10 - 1))
                self.assertFalse(peer.aborted)
                self.clock.pump([0.1] * 5)
                self.assertRefused(peer)
        self.assertEqual(len(self.logged("not complete within 5 s")), 3)

    def test_a_header_that_trickles(self) -> None:
        peer = self.behind()
        for octet in V1[:30]:
            if not peer.aborted:
                peer.deliver(bytes([octet]))
                self.clock.advance(0.5)
        self.assertRefused(peer)
        self.assertLess(self.clock.seconds(), 6)

    def test_the_time_for_the_header_is_not_the_idle_time(self) -> None:
        peer = self.behind(timeout=20)
        peer.send(V1)
        self.clock.pump([1.0] * 18)
        self.assertEqual(codes(peer.send(EHLO)), [250])

    def test_a_peer_that_goes_before_its_header_is_no_incident(self) -> None:
        witness = Witness()
        peer = self.behind(witness)
        peer.deliver(V1[:10])
        peer.lose()
        self.assertEqual(witness.called, [])
        self.assertEqual([event["event"] for event in self.log], ["disconnected"])
        self.assertEqual(len(peer.protocol.connections.open), 0)

    def test_a_peer_that_stops_sending_before_its_header_is_complete(self) -> None:
        peer = self.behind()
        peer.deliver(V1[:10])
        peer.protocol.readConnectionLost()
        self.assertTrue(peer.transport.disconnecting)
        self.assertEqual(peer.transport.value(), b"")

    def test_a_server_that_stops(self) -> None:
        factory = self.factory(proxy_from=FROM)
        peer = self.join(factory, BALANCER)
        drained = factory.drain()
        self.assertTrue(peer.aborted)
        peer.lose()
        self.successResultOf(drained)


class FuzzTests(SynchronousTestCase):
    @given(st.one_of(st.binary(max_size=200), st.binary(max_size=40).map(lambda tail: v2()[:13] + tail)))
    def test_no_octets_make_it_fail(self, octets: bytes) -> None:
        from tests.support.fakes import connect

        client = connect(proxy_from=FROM, host=BALANCER)
        client.send(octets)
        client.lose()
        self.assertEqual(self.flushLoggedErrors(), [])


class HookTests(ProxyTestCase):
    def test_it_hears_the_data_before_the_greeting(self) -> None:
        witness = Witness()
        peer = self.behind(witness)
        self.assertEqual(codes(peer.send(v2(tlvs=tlv(0x02, b"mx.example")))), [220])
        self.assertEqual(witness.called, ["PROXY", "CONNECT"])
        self.assertEqual(witness.data[0].tlv.AUTHORITY, b"mx.example")
        self.assertIs(witness.sessions[0], witness.sessions[1])
        self.assertEqual(witness.sessions[0].peer, CLIENT)
        peer.lose()
        self.assertEqual(witness.called, ["PROXY", "CONNECT", "DISCONNECT"])

    def test_it_may_let_the_client_in(self) -> None:
        async def later(*arguments: Any) -> bool:
            return bool(await succeed(True))

        for yes in (*map(answering, (True, 1, succeed(True), "250 OK", "220 OK")), later):
            peer = self.behind(hooks(handle_PROXY=yes))
            self.assertEqual(peer.send(V1), GREETING)

    def test_it_may_refuse_without_a_word(self) -> None:
        async def later(*arguments: Any) -> bool:
            return bool(await succeed(False))

        for no in (*map(answering, (False, None, 0, succeed(False))), later):
            peer = self.behind(hooks(handle_PROXY=no))
            peer.deliver(V1 + EHLO)
            self.assertRefused(peer)

    def test_one_that_has_not_finished_lets_nobody_in(self) -> None:
        def generator(*arguments: Any) -> Any:
            yield from succeed(False)
            return False

        async def asynchronous_generator(*arguments: Any) -> Any:
            yield False

        async def nested(*arguments: Any) -> Any:
            return Deferred()

        for hook in (generator, asynchronous_generator, nested, answering(Future())):
            peer = self.behind(hooks(handle_PROXY=hook))
            peer.deliver(V1 + EHLO)
            self.assertRefused(peer)

    def test_it_may_refuse_with_a_status(self) -> None:
        def raiser(*arguments: Any) -> Any:
            raise SMTPReplyError(554, "5.7.1", "no {hostname}")

        for no in (*map(answering, ("554 5.7.1 no {hostname}", succeed("554 5.7.1 no {hostname}"))), raiser):
            peer = self.behind(hooks(handle_PROXY=no))
            self.assertEqual(peer.send(V1 + EHLO), b"554 5.7.1 no {hostname}\r\n")
            self.assertTrue(peer.closed)

    def test_one_that_fails_lets_nobody_in(self) -> None:
        def broken(*arguments: Any) -> Any:
            raise ZeroDivisionError("secret")

        for hook in (broken, answering(fail(ZeroDivisionError("secret"))), lambda *arguments: "nonsense"):
            peer = self.behind(hooks(handle_PROXY=hook))
            said = peer.send(V1 + EHLO)
            self.assertEqual(codes(said), [451])
            self.assertNotIn(b"secret", said)
            self.assertTrue(peer.closed)
        self.flushLoggedErrors()

    def test_one_that_takes_too_long_lets_nobody_in(self) -> None:
        promises = Promises()
        peer = self.behind(hooks(handle_PROXY=promises), hook_timeout=5)
        peer.send(V1)
        self.clock.pump([1.0] * 6)
        self.assertEqual(codes(peer.read()), [451])
        self.assertTrue(peer.closed)

    def test_it_is_cancelled_when_the_peer_goes(self) -> None:
        promises = Promises()
        peer = self.behind(hooks(handle_PROXY=promises))
        peer.send(V1)
        peer.lose()
        self.assertEqual(promises.cancelled, promises.made)

    def test_it_is_not_called_for_others(self) -> None:
        witness = Witness(False)
        peer = self.behind(witness, host="203.0.113.200")
        self.assertEqual(codes(peer.greeting), [220])
        self.assertEqual(witness.called, ["CONNECT"])


class LimitTests(ProxyTestCase):
    def test_limits_count_the_client_and_not_the_proxy(self) -> None:
        factory = self.factory(proxy_from=FROM, max_connections_per_address=2)
        for index in range(5):
            peer = self.join(factory, BALANCER)
            self.assertEqual(codes(peer.send(b"PROXY TCP4 203.0.113.%d 192.0.2.9 1 25\r\n" % index)), [220])
        self.assertEqual(len(factory.connections.per_address), 5)
        first, second, third = (self.join(factory, BALANCER) for _ in range(3))
        self.assertEqual([codes(peer.send(V1)) for peer in (first, second)], [[220], [220]])
        self.assertEqual(codes(third.send(V1 + EHLO)), [421])
        self.assertTrue(third.closed)
        for peer in (third, first):
            peer.lose()
        self.assertEqual(codes(self.join(factory, BALANCER).send(V1)), [220])

    def test_a_direct_client_and_one_behind_the_proxy_count_together(self) -> None:
        factory = self.factory(proxy_from=FROM, max_connections_per_address=1)
        self.join(factory, CLIENT[0])
        self.assertEqual(codes(self.join(factory, BALANCER).send(V1)), [421])

    def test_nothing_is_left_when_all_are_gone(self) -> None:
        factory = self.factory(proxy_from=FROM)
        peers = [self.join(factory, BALANCER) for _ in range(4)]
        for peer, sent in zip(peers, (b"", V1, V1_UNKNOWN, b"rubbish"), strict=True):
            peer.deliver(sent)
            peer.lose()
        self.assertEqual((len(factory.connections.open), dict(factory.connections.per_address)), (0, {}))

    def test_all_connections_count_before_their_header_too(self) -> None:
        factory = self.factory(proxy_from=FROM, max_connections=1)
        self.join(factory, BALANCER)
        self.assertEqual(codes(self.join(factory, BALANCER).greeting), [421])


class ProxyAndTLSTests(ProxyTestCase):
    def test_the_proxy_vouches_for_tls(self) -> None:
        for tlvs, tls in ((OVER_TLS, True), (IN_CLEAR, False), (b"", False)):
            peer = self.behind(tls_context=self.files(), require_starttls=True)
            peer.send(v2(tlvs=tlvs))
            self.assertIs(peer.protocol.session.tls, tls)
            said = peer.send(ENVELOPE)
            self.assertEqual(b"250-STARTTLS" in said, not tls)
            self.assertEqual(codes(said), [250, 250, 250] if tls else [250, 530, 530])

    def test_nobody_else_can_vouch_for_tls(self) -> None:
        peer = self.behind(host="203.0.113.200", tls_context=self.files(), require_starttls=True)
        peer.send(v2(tlvs=OVER_TLS))
        self.assertIs(peer.protocol.session.tls, False)
        self.assertTrue(peer.closed)
        peer = self.behind(host="203.0.113.200", tls_context=self.files(), require_starttls=True, bare_newline="reject")
        peer.send(v2(tlvs=OVER_TLS))
        self.assertIs(peer.protocol.session.tls, False)
        self.assertEqual(codes(peer.send(b"\r\n" + ENVELOPE))[-1], 530)

    def test_the_address_is_kept_over_starttls(self) -> None:
        for split in (False, True):
            peer = self.behind(split=split, tls_context=self.files())
            peer.send(V1)
            peer.starttls()
            session = peer.protocol.session
            self.assertEqual((session.peer, session.proxy_peer), (CLIENT, (BALANCER, 40000)))
            self.assertTrue(session.proxy_data)
            self.assertTrue(session.tls)
            self.assertEqual(codes(peer.send(MESSAGE)), [250, 250, 250, 354, 250])

    def test_the_header_comes_before_implicit_tls(self) -> None:
        files = self.files()
        for header in (V1, v2(tlvs=OVER_TLS)):
            for split in (False, True):
                for one_segment in (False, True):
                    factory = self.factory(proxy_from=FROM)
                    peer = self.join(ImplicitTLS(factory, files), BALANCER, split=split)
                    if one_segment:
                        said = peer.handshake(before=header)
                    else:
                        peer.deliver(header)
                        self.assertEqual(peer.transport.value(), b"")
                        said = peer.handshake()
                    self.assertEqual(said, GREETING)
                    self.assertEqual(peer.protocol.session.peer, CLIENT)
                    self.assertEqual(peer.protocol.session.ssl.version, "TLSv1.3")
                    self.assertEqual(codes(peer.send(MESSAGE)), [250, 250, 250, 354, 250])

    def test_a_direct_client_of_implicit_tls_sends_none(self) -> None:
        peer = self.behind(host="203.0.113.200", ssl_context=self.files())
        self.assertEqual(peer.handshake(), GREETING)

    def test_rubbish_in_the_segment_of_the_header_is_no_handshake(self) -> None:
        peer = self.behind(ssl_context=self.files())
        peer.deliver(V1 + EHLO)
        self.assertTrue(peer.transport.disconnecting)
        peer.lose()
        self.assertEqual(len(self.logged("the client does not speak TLS")), 1)
        self.assertIn(CLIENT[0], self.logged("the client does not speak TLS")[0])
        self.assertEqual(len(peer.protocol.connections.open), 0)

    def test_refusals_say_nothing_in_clear_before_implicit_tls(self) -> None:
        for handler, options in (
            (hooks(handle_PROXY=answering("554 no")), {}),
            (None, {"max_connections_per_address": 1}),
        ):
            factory = self.factory(handler, proxy_from=FROM, ssl_context=self.files(), **options)
            self.join(factory, CLIENT[0])
            peer = self.join(factory, BALANCER)
            peer.deliver(V1)
            self.assertTrue(peer.aborted)
            self.assertEqual(peer.transport.value(), b"")

    def test_behind_an_endpoint_with_tls_the_header_comes_inside(self) -> None:
        factory = self.factory(proxy_from=["192.0.2.1"])
        peer = self.join_wrapped(factory, self.files())
        self.assertEqual(peer.handshake(), b"")
        self.assertEqual(peer.send(V1), GREETING)
        self.assertEqual((peer.protocol.session.peer, peer.protocol.session.tls), (CLIENT, True))

    def test_a_failed_handshake_there_is_logged(self) -> None:
        peer = self.join_wrapped(self.factory(proxy_from=["192.0.2.1"]), self.files())
        peer.deliver(V1)
        peer.lose()
        self.assertEqual(len(self.logged("the client does not speak TLS")), 1)
