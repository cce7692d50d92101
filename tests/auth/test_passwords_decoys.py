"""Nobody learns which users there are: not from a salt, not from the time, not by leaving before it is counted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from base64 import b64decode, b64encode
from typing import Any

from twisted.logger import formatEvent

from tests.auth.test_mechanisms import Keys
from tests.support.auth_helpers import AuthCase, PasswordFileCase, dial, line
from tests.support.fakes import Client, codes
from twisted_smtpd.auth import PasswordFile, ScramKeys, passwords, set_password
from twisted_smtpd.auth.hashes import cost_of, make_hash
from twisted_smtpd.auth.scram import SCRAM_HASHES

SALT = """
import sys
from twisted_smtpd.auth import PasswordFile
file = PasswordFile(sys.argv[1])
for mechanism in ("SCRAM-SHA-1", "SCRAM-SHA-256"):
    print(file._keys(mechanism, b"nobody").salt.hex())
"""


class SaltTests(PasswordFileCase):
    """Seen: an unknown user's salt was another one in each process and after each start; a user's never changes."""

    def keys(self, *names: str) -> list[str]:
        made = make_hash("SCRAM-SHA-256", "x"), make_hash("SCRAM-SHA-1", "x")
        return [f"{name}:{' '.join(made)}" for name in names]

    def salts(self, file: PasswordFile, login: bytes = b"nobody") -> list[bytes]:
        return [file._keys(mechanism, login).salt for mechanism in SCRAM_HASHES]

    def test_it_is_the_same_in_another_process(self) -> None:
        set_password(self.path, "anne", "x", kind="scrypt", scram=True)
        here = self.salts(self.open())
        for _ in range(2):
            there = subprocess.run(
                [sys.executable, "-c", SALT, str(self.path)],
                capture_output=True,
                check=True,
                timeout=60,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            self.assertEqual([bytes.fromhex(text) for text in there.stdout.decode().split()], here)

    def test_it_stays_when_other_users_come_and_go(self) -> None:
        set_password(self.path, "anne", "x", kind="scrypt", scram=True)
        before = self.salts(self.open())
        set_password(self.path, "bart", "y", kind="scrypt", scram=True)
        set_password(self.path, "anne", "z", kind="scrypt")
        self.assertEqual(self.salts(self.open()), before)
        self.assertEqual(self.path.read_text().count("# secret: "), 1)

    def test_another_file_gives_another_one(self) -> None:
        set_password(self.path, "anne", "x", kind="scrypt", scram=True)
        before = self.salts(self.open())
        self.path.unlink()
        set_password(self.path, "anne", "x", kind="scrypt", scram=True)
        self.assertNotEqual(self.salts(self.open()), before)

    def test_a_file_without_a_secret_gives_the_same_as_long_as_it_is_the_same(self) -> None:
        lines = self.keys("anne")
        self.assertEqual(self.salts(self.write(*lines)), self.salts(self.write(*lines)))
        self.assertNotEqual(self.salts(self.write(*lines)), self.salts(self.write(*self.keys("anne"))))

    def test_a_file_gets_a_secret_with_its_next_change(self) -> None:
        self.write("# ours", *self.keys("anne"))
        set_password(self.path, "bart", "y", kind="scrypt")
        self.assertRegex(self.path.read_text(), r"(?m)^# secret: [0-9a-f]{64} ")
        self.assertTrue(self.open()._check(b"anne", b"x"))

    def test_a_file_without_scram_has_no_secret(self) -> None:
        set_password(self.path, "anne", "x", kind="scrypt")
        self.assertNotIn("secret", self.path.read_text())

    def test_each_mechanism_and_each_name_has_its_own(self) -> None:
        file = self.write(*self.keys("anne"))
        salts = [*self.salts(file), *self.salts(file, b"somebody"), *self.salts(file, b"")]
        self.assertEqual(len(set(salts)), 6)
        found = {ScramKeys.decoy(mechanism, login).salt for mechanism in SCRAM_HASHES for login in (b"", b"a", b"b")}
        self.assertEqual(len(found), 6)

    def test_it_is_as_long_as_those_of_users(self) -> None:
        for octets in (8, 16, 40):
            keys = ScramKeys.derive("SCRAM-SHA-256", "x", salt=b"s" * octets, iterations=4096)
            text = (b64encode(part).decode() for part in (keys.salt, keys.stored_key, keys.server_key))
            file = self.write("anne:SCRAM-SHA-256$4096:{}${}:{}".format(*text))
            decoy = file._keys("SCRAM-SHA-256", b"nobody")
            self.assertEqual((len(decoy.salt), decoy.iterations), (octets, 4096))

    def test_with_and_without_channel_binding_it_is_the_same(self) -> None:
        # As it is for a user, who has the same keys for both.
        client = dial(authenticator=Keys())
        said = [
            client.send(b"AUTH SCRAM-SHA-256 %b\r\n*\r\n" % b64encode(b"n,,n=nobody,r=%d" % number))
            for number in (1, 2)
        ]
        salts = {re.search(rb"s=([^,]+)", b64decode(text[4:].split(b"\r\n")[0]))[1] for text in said}  # type: ignore[index]
        self.assertEqual(len(salts), 1)

    def test_an_authenticator_may_have_a_secret(self) -> None:
        class Secretive(Keys):
            decoy_secret = b"s" * 32

        salts = set()
        for authenticator in (Secretive(), Secretive(), Keys()):
            client = dial(authenticator=authenticator)
            said = client.send(b"AUTH SCRAM-SHA-256 %b\r\n" % b64encode(b"n,,n=nobody,r=abc"))
            salts.add(b64decode(said[4:]).split(b",")[1])
        expected = ScramKeys.decoy("SCRAM-SHA-256", b"nobody", secret=b"s" * 32).salt
        self.assertIn(b"s=" + b64encode(expected), salts)
        self.assertEqual(len(salts), 2)


class TimeTests(PasswordFileCase):
    """Seen: where users have hashes of several kinds, an unknown user took another time than most of them."""

    def test_each_check_computes_one_hash_of_each_kind_and_cost(self) -> None:
        dear = "$scrypt$ln=5,r=8,p=1$" + make_hash("scrypt", "x").split("$", 3)[3]
        lines = [
            f"{name}:{hashed}"
            for name, hashed in (
                ("anne", make_hash("scrypt", "anne's")),
                ("bart", "$2b$04$" + "a" * 53),
                ("cate", "$2y$04$" + "b" * 53),
                ("dora", "$2y$05$" + "a" * 53),
                ("emil", make_hash("SCRAM-SHA-1", "emil's")),
                ("finn", dear),
                ("gina", make_hash("scrypt", "gina's")),
            )
        ]
        file = self.write(*lines)
        done: list[str] = []
        real = passwords.verify

        def verify(hashed: str, password: bytes) -> bool:
            done.append(cost_of(hashed))
            return real(hashed, password)

        self.patch(passwords, "verify", verify)
        expected = ["SCRAM-SHA-1$20000", "bcrypt$04", "bcrypt$05", "scrypt$ln=4,r=8,p=1", "scrypt$ln=5,r=8,p=1"]
        for login, password, right in (
            (b"anne", b"anne's", True),
            (b"anne", b"gina's", False),
            (b"emil", b"emil's", True),
            (b"emil", b"anne's", False),
            (b"gina", b"gina's", True),
            (b"bart", b"anne's", False),
            (b"nobody", b"anne's", False),
            (b"\xff", b"anne's", False),
            (b"anne", b"\x07", False),
            (b"nobody", b"", False),
            (b"emil", b"a\0", False),
        ):
            done.clear()
            self.assertIs(file._check(login, password), right, (login, password))
            # In the same order too, whoever it is.
            self.assertEqual(done, expected, (login, password))

    def test_a_password_that_nobody_can_have_takes_as_long(self) -> None:
        # SCRAM refuses it before it computes anything.
        file = self.write(f"emil:{make_hash('SCRAM-SHA-1', 'x')}")
        derived: list[Any] = []
        real = ScramKeys.derive.__func__  # type: ignore[attr-defined]

        def derive(cls: Any, mechanism: str, password: Any, **options: Any) -> ScramKeys:
            keys: ScramKeys = real(cls, mechanism, password, **options)
            derived.append(keys)
            return keys

        self.patch(ScramKeys, "derive", classmethod(derive))
        for login, password in ((b"emil", b"\x07"), (b"nobody", b"\x07"), (b"emil", b"\xff"), (b"emil", b"")):
            derived.clear()
            self.assertFalse(file._check(login, password))
            self.assertEqual(len(derived), 1, (login, password))

    def test_an_argon2_hash_costs_what_its_parameters_say(self) -> None:
        one = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaA"
        self.assertEqual(cost_of(one), cost_of(one.replace("aGFzaA", "b3RoZXI")))
        self.assertNotEqual(cost_of(one), cost_of(one.replace("t=3", "t=4")))
        self.assertNotEqual(cost_of(one), cost_of(one.replace("argon2id", "argon2i")))

    def test_many_kinds_are_said(self) -> None:
        events = self.events()
        self.write(*(f"{name}:$2y$0{cost}${'a' * 53}" for name, cost in (("anne", 4), ("bart", 5))))
        self.assertEqual(events, [])
        self.write(*(f"{name}:$2y$0{cost}${'a' * 53}" for name, cost in (("anne", 4), ("bart", 5), ("cate", 6))))
        self.assertIn("has 3 kinds and costs of hashes", formatEvent(events[0]))


class CancelledTests(AuthCase):
    """Seen: a client that cancelled SCRAM once it had the salt failed as often as it liked."""

    def failures(self, last: bytes, first: bytes = b"n,,n=anne,r=abc") -> tuple[int, int]:
        client = dial(authenticator=Keys(), host="192.0.2.1")
        client.send(b"AUTH SCRAM-SHA-256 %b\r\n" % b64encode(first))
        client.send(last)
        counted = self.counted(client)
        client.lose()
        return counted

    def counted(self, client: Client) -> tuple[int, int]:
        records = client.protocol.connections.sign_ins._records
        auth = client.protocol._auth
        assert auth is not None
        return auth.failures, sum(record.failures for record in records.values())

    def test_it_counts_however_the_exchange_ends_after_the_challenge(self) -> None:
        for last in (b"*\r\n", b"\r\n", b"!\r\n", line(b"c=biws,r=abc,p=AAAA"), line(b"\xff"), b"A" * 13000 + b"\r\n"):
            self.assertEqual(self.failures(last), (1, 1), last[:20])

    def test_it_counts_for_a_client_that_hangs_up(self) -> None:
        client = dial(authenticator=Keys(), host="192.0.2.1")
        client.send(b"AUTH SCRAM-SHA-256 %b\r\n" % b64encode(b"n,,n=anne,r=abc"))
        client.lose()
        self.assertEqual(self.counted(client), (1, 1))

    def test_it_does_not_count_before_the_challenge(self) -> None:
        client = dial(authenticator=Keys(), host="192.0.2.1")
        self.assertEqual(codes(client.send(b"AUTH SCRAM-SHA-256\r\n*\r\n")), [334, 501])
        self.assertEqual(codes(client.send(b"AUTH SCRAM-SHA-256\r\n" + line(b"nonsense"))), [334, 501])
        self.assertEqual(self.counted(client), (0, 0))

    def test_the_connection_ends_after_some(self) -> None:
        client = dial(authenticator=Keys())
        cancelled = b"AUTH SCRAM-SHA-256 %b\r\n*\r\n" % b64encode(b"n,,n=anne,r=abc")
        self.assertEqual(codes(client.send(cancelled * 4)), [334, 501] * 3 + [421])
        self.assertTrue(client.closed)
