"""Passwords are checked in turn: who makes all guesses at once gets no more of them, and holds nobody else up.

Seen: 50 guesses of one address were checked before the throttle knew of one, and 205 guesses from 5 addresses kept
right passwords out for half a minute.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.support.auth_helpers import ACCEPTED, LOGIN, PASSWORD, RIGHT, WRONG, AuthCase, line
from tests.support.fakes import EHLO, Client, Promises, codes, hooks, join, make_factory
from twisted_smtpd.auth import AuthResult, PasswordFile, hashes, worker
from twisted_smtpd.auth.hashes import make_hash
from twisted_smtpd.auth.worker import Busy, Worker
from twisted_smtpd.runtime.throttle import AT_ONCE, LONGEST_WAIT, Throttle

GUESS = b"AUTH PLAIN %b\r\n" % WRONG
SIGN_IN = b"AUTH PLAIN %b\r\n" % RIGHT
NO = AuthResult(success=False, handled=False)
YES = AuthResult(success=True)


class TurnCase(AuthCase):
    """A server whose authenticator answers when the test says so."""

    def setUp(self) -> None:
        self.checks = Promises()
        self.serve(authenticator=self.checks)

    def serve(self, handler: Any = None, **options: Any) -> None:
        self.factory = make_factory(handler, max_connections_per_address=0, **options)
        self.clock: Any = self.factory.connections.timers.clock
        self.sign_ins = self.factory.connections.sign_ins

    def client(self, host: str = "192.0.2.1") -> Client:
        client = join(self.factory, host)
        client.protocol.session.tls = True
        client.send(EHLO)
        return client

    def clients(self, number: int, sent: bytes, host: str = "192.0.2.1") -> list[Client]:
        clients = [self.client(host) for _ in range(number)]
        for client in clients:
            client.send(sent)
        return clients

    def answer(self, result: AuthResult) -> None:
        """Answer all checks that wait now."""
        for check in self.checks.made:
            if not check.called:
                check.callback(result)


class AtOnceTests(TurnCase):
    """An address of which nothing is known."""

    def test_a_few_are_checked_at_the_same_time(self) -> None:
        self.clients(50, GUESS)
        self.assertEqual(len(self.checks.made), AT_ONCE)

    def test_once_they_have_failed_the_rest_is_throttled(self) -> None:
        clients = self.clients(50, GUESS)
        self.answer(NO)
        self.assertEqual(len(self.checks.made), AT_ONCE)
        said = Counter(client.read()[:3] for client in clients)
        # After 1, 3, 7 and 15 seconds; the next would come after 31.
        turns = 4
        self.assertEqual((said[b"535"], said[b"421"]), (AT_ONCE, 50 - AT_ONCE - turns))
        for _ in range(120):
            self.clock.advance(0.5)
            self.answer(NO)
        self.assertEqual(len(self.checks.made), AT_ONCE + turns)

    def test_one_wrong_password_is_enough(self) -> None:
        self.clients(50, GUESS)
        self.checks.made[0].callback(NO)
        self.assertEqual(len(self.checks.made), AT_ONCE)
        begun = []
        for _ in range(30):
            self.clock.advance(1)
            begun.append(len(self.checks.made) - AT_ONCE)
            self.answer(NO)
        self.assertEqual(begun, [1] * 2 + [2] * 4 + [3] * 8 + [4] * 16)

    def test_right_passwords_wait_for_nothing_but_each_other(self) -> None:
        clients = self.clients(50, SIGN_IN)
        for _ in range(13):
            self.answer(YES)
        self.assertEqual([client.read() for client in clients], [ACCEPTED] * 50)

    def test_many_that_wait_are_let_in_one_after_the_other(self) -> None:
        # More of them than Python's frames would allow one within the other.
        slow = [Deferred() for _ in range(AT_ONCE)]  # type: ignore[var-annotated]
        answers: list[Any] = list(slow)
        self.serve(authenticator=lambda *arguments: answers.pop() if answers else YES)
        clients = self.clients(400, SIGN_IN)
        slow[0].callback(YES)
        self.assertEqual(sum(client.protocol.session.authenticated is True for client in clients), 400 - AT_ONCE + 1)

    def test_one_that_goes_away_while_it_waits_takes_no_turn(self) -> None:
        clients = self.clients(AT_ONCE + 2, SIGN_IN)
        clients[AT_ONCE].lose()
        self.answer(YES)
        self.assertEqual(len(self.checks.made), AT_ONCE + 1)
        self.answer(YES)
        self.assertEqual(clients[-1].read(), ACCEPTED)

    def test_one_that_goes_away_while_it_is_checked_makes_room(self) -> None:
        clients = self.clients(AT_ONCE + 1, SIGN_IN)
        clients[0].lose()
        self.assertEqual(len(self.checks.made), AT_ONCE + 1)

    def test_one_that_waits_too_long_is_told_to_come_again(self) -> None:
        clients = self.clients(AT_ONCE + 1, SIGN_IN)
        self.clock.pump([1.0] * (int(LONGEST_WAIT) + 1))
        self.assertEqual(codes(clients[-1].read()), [454])
        self.assertFalse(clients[-1].closed)
        self.answer(YES)
        self.assertEqual(len(self.checks.made), AT_ONCE)

    def test_nothing_is_left_in_the_end(self) -> None:
        clients = self.clients(9, SIGN_IN)
        for _ in range(3):
            self.answer(YES)
        for client in clients:
            client.lose()
        self.assertEqual((self.sign_ins._gates, self.sign_ins._records), ({}, {}))

    def test_the_exempt_do_not_wait(self) -> None:
        self.clients(50, GUESS, "127.0.0.1")
        self.assertEqual(len(self.checks.made), 50)

    def test_addresses_do_not_wait_for_each_other(self) -> None:
        self.clients(50, GUESS, "192.0.2.1")
        self.clients(1, SIGN_IN, "192.0.2.2")
        self.assertEqual(len(self.checks.made), AT_ONCE + 1)


class SilentClientTests(TurnCase):
    """A client that has been asked something may take its time: others of its address are not to wait for it."""

    def test_it_holds_nobody_up(self) -> None:
        self.clients(50, b"AUTH LOGIN\r\n")
        client = self.clients(1, SIGN_IN)[0]
        self.answer(YES)
        self.assertEqual(client.read(), ACCEPTED)

    def test_passwords_that_were_saved_up_are_checked_in_turn(self) -> None:
        clients = self.clients(50, b"AUTH LOGIN\r\n" + line(LOGIN))
        for client in clients:
            client.send(line(b"guess"))
        self.assertEqual(len(self.checks.made), AT_ONCE)
        self.answer(NO)
        self.assertEqual(len(self.checks.made), AT_ONCE)

    def test_so_are_those_of_scram(self) -> None:
        from tests.auth.test_mechanisms import Keys

        waiting: list[Deferred[Any]] = []

        class SlowKeys(Keys):
            def scram_keys(self, *arguments: Any) -> Any:
                waiting.append(Deferred())
                return waiting[-1]

        self.serve(authenticator=SlowKeys())
        first = b"AUTH SCRAM-SHA-256 %b\r\n" % b64encode(b"n,,n=anne,r=abc")
        clients = self.clients(20, first)
        self.assertEqual(len(waiting), AT_ONCE)
        for _ in range(20):
            for deferred in tuple(waiting):
                if not deferred.called:
                    deferred.callback(None)
        final = line(b"c=biws,r=abc,p=AAAA")
        for client in clients:
            self.assertEqual(codes(client.read()), [334])
        said = [client.send(final) for client in clients]
        # The first fails at once, and from then on the address waits for turns.
        self.assertEqual(codes(said[0]), [535])
        self.assertTrue(all(text == b"" or codes(text) == [421] for text in said[1:]))

    def test_a_handlers_own_mechanism_takes_turns_too(self) -> None:
        asked = Promises()

        async def auth_FOO(server: Any, args: list[str]) -> Any:
            await server.challenge_auth("who?")
            return await asked()

        self.serve(hooks(auth_FOO=auth_FOO))
        clients = self.clients(9, b"AUTH FOO\r\n")
        for client in clients:
            client.send(line(b"me"))
        self.assertEqual(len(asked.made), AT_ONCE)


class ReservedTests(AuthCase):
    """A turn of an address that has failed is reserved when it begins, as if it failed."""

    def failed_once(self) -> Throttle:
        guard = Throttle()
        guard.failed("a", 0)
        return guard

    def test_turns_that_are_taken_together_are_as_far_apart_as_failures(self) -> None:
        guard = self.failed_once()
        self.assertEqual([guard.wait_for("a", 0) for _ in range(7)], [1, 3, 7, 15, None, None, None])

    def test_a_success_gives_back_what_it_has_reserved_and_no_more(self) -> None:
        guard = self.failed_once()
        self.assertEqual(guard.wait_for("a", 0), 1)
        guard.ended("a", 1)
        self.assertEqual(guard.wait_for("a", 1), 1)

    def test_it_is_not_given_back_while_another_one_has_not_ended(self) -> None:
        guard = self.failed_once()
        self.assertEqual([guard.wait_for("a", 0), guard.wait_for("a", 0)], [1, 3])
        guard.ended("a", 1)
        self.assertEqual(guard.wait_for("a", 1), 6)

    def test_a_failure_without_a_turn_frees_no_others(self) -> None:
        guard = self.failed_once()
        self.assertEqual(guard.wait_for("a", 0), 1)
        guard.failed("a", 0, in_turn=False)
        self.assertEqual(guard._records["a"].reserved, 1)

    def test_ending_what_was_forgotten_is_no_error(self) -> None:
        guard = Throttle()
        guard.ended("a", 0)
        guard.ended(None, 0)
        self.assertEqual(guard._records, {})

    @given(st.lists(st.tuples(st.sampled_from(["take", "fail", "end"]), st.floats(0, 50))))
    def test_no_more_turns_begin_than_failures_would_allow(self, events: list[tuple[str, float]]) -> None:
        guard, now, begun = self.failed_once(), 0.0, [0.0]
        for event, passed in events:
            now += passed
            if event == "fail":
                guard.failed("a", now)
            elif event == "end":
                # One that is given up before it begins is another one's.
                now = max(now, begun[-1])
                guard.ended("a", now)
            elif guard.has_failed("a", now):
                wait = guard.wait_for("a", now)
                if wait is not None:
                    begun.append(now + wait)
        self.assertTrue(all(b - a >= 1 - 1e-6 for a, b in pairwise(begun)), begun)


class FairQueueTests(AuthCase):
    """The queue of what is computed for several owners."""

    def setUp(self) -> None:
        self.started: list[str] = []
        self.running: list[Deferred[Any]] = []
        self.worker = Worker(self.defer)

    def defer(self, function: Any, *arguments: Any) -> Deferred[Any]:
        self.started.append(arguments[0])
        self.running.append(Deferred())
        return self.running[-1]

    def run_jobs(self, names: str) -> list[Deferred[Any]]:
        """A job for each letter, which is its owner."""
        return [self.worker.run(len, name, owner=name) for name in names]

    def finish(self) -> None:
        while self.running:
            self.running.pop(0).callback(None)

    def test_owners_take_turns(self) -> None:
        self.run_jobs("aaaa" + "aaaaaa" + "bb" + "c")
        self.finish()
        self.assertEqual("".join(self.started), "aaaa" + "abcab" + "aaaa")

    def test_one_owner_waits_for_no_more_than_one_job_of_each_other(self) -> None:
        self.run_jobs("aaaa" + "a" * 40 + "b" * 40 + "c")
        self.finish()
        self.assertEqual(self.started.index("c"), 4 + 2)

    def test_jobs_of_one_owner_are_done_in_order(self) -> None:
        jobs = [self.worker.run(len, str(number), owner="a") for number in range(9)]
        self.finish()
        self.assertEqual(self.started, [str(number) for number in range(9)])
        self.assertTrue(all(job.called for job in jobs))

    def test_one_owner_can_not_fill_the_queue(self) -> None:
        self.run_jobs("a" * (worker.MAX_RUNNING + worker.MAX_WAITING_OF_ONE))
        self.assertRaises(Busy, self.run_jobs, "a")
        self.run_jobs("b")

    def test_who_has_no_address_has_no_share_but_takes_turns(self) -> None:
        for _ in range(worker.MAX_RUNNING + worker.MAX_WAITING_OF_ONE + 9):
            self.worker.run(len, "-")
        self.run_jobs("a")
        self.finish()
        self.assertEqual(self.started.index("a"), worker.MAX_RUNNING + 1)

    def test_in_a_full_queue_who_has_most_makes_room(self) -> None:
        self.patch(worker, "MAX_WAITING", 4)
        jobs = self.run_jobs("aaaa" + "aaab")
        (mine,) = self.run_jobs("c")
        self.assertFalse(mine.called)
        self.failureResultOf(jobs[6], Busy)
        self.assertEqual([job.called for job in jobs[:6]], [False] * 6)
        self.finish()
        self.assertEqual("".join(self.started[4:]), "abca")

    def test_but_nobody_makes_room_for_one_who_would_have_as_much(self) -> None:
        self.patch(worker, "MAX_WAITING", 4)
        jobs = self.run_jobs("aaaa" + "aabb")
        self.assertRaises(Busy, self.run_jobs, "a")
        self.assertRaises(Busy, self.run_jobs, "b")
        (job,) = self.run_jobs("c")
        self.assertFalse(job.called)
        self.failureResultOf(jobs[5], Busy)

    def test_a_cancelled_job_leaves_nothing_behind(self) -> None:
        jobs = self.run_jobs("aaaa" + "ab")
        for job in jobs[4:]:
            job.cancel()
            self.assertIsInstance(self.failureResultOf(job), Failure)
        self.assertEqual(len(self.worker._waiting), 0)


class FileTests(TurnCase):
    """A password file under a flood."""

    def setUp(self) -> None:
        self.patch(hashes, "SCRYPT", (4, 8, 1))
        path = Path(self.mktemp())
        path.write_text(f"anne:{make_hash('scrypt', PASSWORD.decode())}\n")
        path.chmod(0o600)
        self.jobs: list[tuple[Deferred[Any], Any, Any]] = []
        self.serve(authenticator=PasswordFile(path, worker=Worker(self.defer)))

    def defer(self, function: Any, *arguments: Any) -> Deferred[Any]:
        self.jobs.append((Deferred(), function, arguments))
        return self.jobs[-1][0]

    def compute(self, number: int) -> None:
        """Compute so many hashes."""
        for _ in range(number):
            if self.jobs:
                outcome, function, arguments = self.jobs.pop(0)
                outcome.callback(function(*arguments))

    def test_a_flood_from_five_addresses_does_not_keep_a_right_password_out(self) -> None:
        for number in range(205):
            self.clients(1, GUESS, f"192.0.2.{number % 5}")
        client = self.clients(1, SIGN_IN, "198.51.100.1")[0]
        self.compute(worker.MAX_RUNNING + 5 + 1)
        self.assertEqual(client.read(), ACCEPTED)

    def test_a_flood_from_many_addresses_keeps_it_out_until_a_hash_is_computed(self) -> None:
        for number in range(worker.MAX_WAITING + 99):
            self.clients(1, GUESS, f"10.0.{number % 200}.{number // 200}")
        client = self.client("198.51.100.1")
        # There is no telling it from the others; but it hears so at once, and not that its password is wrong.
        self.assertEqual(codes(client.send(SIGN_IN)), [454])
        self.compute(1)
        client.send(SIGN_IN)
        self.compute(worker.MAX_WAITING + worker.MAX_RUNNING)
        self.assertEqual(client.read(), ACCEPTED)

    def test_busy_is_454_and_no_failure(self) -> None:
        self.patch(worker, "MAX_WAITING", 0)
        client = self.client()
        said = client.send(SIGN_IN * 9)
        self.assertEqual(codes(said), [454] * 9)
        self.assertEqual((client.protocol._auth.failures, self.sign_ins._records), (0, {}))
        self.assertFalse(client.closed)

    def test_a_job_that_had_to_make_room_is_454_and_no_failure(self) -> None:
        self.patch(worker, "MAX_WAITING", 2)
        self.clients(worker.MAX_RUNNING, SIGN_IN, "192.0.2.7")
        clients = self.clients(2, GUESS, "192.0.2.1")
        self.clients(1, SIGN_IN, "192.0.2.2")
        self.assertEqual([codes(client.read()) for client in clients], [[], [454]])
        self.assertEqual(self.sign_ins._records, {})
