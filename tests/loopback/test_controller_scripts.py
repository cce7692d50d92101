"""Controllers on the global reactor, in programs of all kinds: each is a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from twisted.trial.unittest import SynchronousTestCase

import twisted_smtpd

HOME = str(Path(twisted_smtpd.__file__).parent.parent)
LIMIT = 60  # seconds, for a program that hangs

PRELUDE = """
import asyncio, os, smtplib, sys, threading, warnings
from twisted_smtpd.controller import *

class Handler:
    async def handle_DATA(self, server, session, envelope):
        await asyncio.sleep(0)
        return "250 OK"

def send(controller):
    with smtplib.SMTP(controller.hostname, controller.port, timeout=20) as client:
        client.sendmail("anne@example.com", ["bart@example.com"], "Subject: Hello")
        print("sent")
"""


class ScriptCase(SynchronousTestCase):
    def run_program(self, *words: str, status: int = 0) -> str:
        """Run Python; what it printed, on both streams."""
        path = os.pathsep.join(filter(None, (os.getcwd(), HOME, os.environ.get("PYTHONPATH"))))
        ended = subprocess.run(
            [sys.executable, "-W", "error::ResourceWarning", *words],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
        )
        self.assertEqual(ended.returncode, status, ended.stdout)
        return ended.stdout

    def run_script(self, text: str, status: int = 0) -> list[str]:
        return self.run_program("-c", PRELUDE + dedent(text), status=status).splitlines()


class PlainScriptTests(ScriptCase):
    def test_starts_stops_and_starts_again_in_one_thread(self) -> None:
        said = self.run_script("""
            controller = Controller(Handler(), port=0)
            for _ in range(3):
                with controller:
                    send(controller)
                    assert controller.loop.is_running()
            with Controller(Handler(), port=0) as one, Controller(Handler(), port=0) as two:
                send(one), send(two)
            print(threading.active_count())
        """)
        self.assertEqual(said, ["sent"] * 5 + ["2"])

    def test_a_handler_is_started_and_stopped_each_time(self) -> None:
        said = self.run_script("""
            class Living(Handler):
                async def start(self, server):
                    await asyncio.sleep(0)
                    print("start")
                async def stop(self):
                    await asyncio.sleep(0)
                    print("stop")

            handler = Living()
            controller = Controller(handler, port=0)
            for _ in range(2):
                with controller:
                    send(controller)
            with Controller(handler, port=0), Controller(handler, port=0) as two:
                send(two)
        """)
        self.assertEqual(said, ["start", "sent", "stop"] * 3)

    def test_a_port_that_was_given_is_kept_over_a_restart_and_one_that_was_found_is_not(self) -> None:
        self.run_script("""
            found = Controller(Handler(), port=0)
            found.start(), found.stop()
            fixed = Controller(Handler(), port=found.port)
            for _ in range(2):
                fixed.start(), fixed.stop()
                assert fixed.port == found.port
            with fixed:
                found.start()
                assert found.port != fixed.port
                found.stop()
        """)

    def test_ends_without_stop_and_without_a_word(self) -> None:
        for last in ("", "sys.exit(3)"):
            said = self.run_script(
                f"""
                from twisted.internet.threads import deferToThread
                class Waits(Handler):
                    async def handle_DATA(self, server, session, envelope):
                        await deferToThread(int)
                        begun.set()
                        try:
                            await asyncio.sleep(1000)
                        finally:
                            print("cancelled", flush=True)
                def use():
                    try:
                        send(controller)
                    except smtplib.SMTPServerDisconnected:
                        pass
                begun = threading.Event()
                controller = Controller(Waits(), port=0)
                controller.start()
                threading.Thread(target=use, daemon=True).start()
                begun.wait(20)
                {last}
                """,
                status=3 if last else 0,
            )
            self.assertEqual(said, ["cancelled"])

    def test_in_a_fork_the_error_says_what_to_do_and_a_loop_of_its_own_works(self) -> None:
        said = self.run_script("""
            with Controller(Handler(), port=0) as parents:
                warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads
                child = os.fork()
                if not child:
                    try:
                        Controller(Handler(), port=0).start()
                    except RuntimeError as error:
                        print("fork" in str(error), flush=True)
                    with Controller(Handler(), port=0, loop=asyncio.new_event_loop()) as controller:
                        send(controller)
                    parents.stop()
                    sys.exit(0)
                assert os.waitpid(child, 0)[1] == 0
                send(parents)
        """)
        self.assertEqual(said, ["True", "sent", "sent"])

    if not hasattr(os, "fork"):
        test_in_a_fork_the_error_says_what_to_do_and_a_loop_of_its_own_works.skip = "no fork"  # type: ignore[attr-defined]

    def test_a_reactor_that_was_stopped_is_an_error_that_says_so(self) -> None:
        for install in ("", "from twisted.internet import selectreactor; selectreactor.install()"):
            said = self.run_script(f"""
                {install}
                with Controller(object(), port=0) as controller:
                    send(controller)
                    from twisted.internet import reactor
                    threads = [thread for thread in threading.enumerate() if thread.name.startswith("twisted-smtpd")]
                    reactor.callFromThread(reactor.stop)
                    threads[0].join(20)
                try:
                    controller.start()
                except RuntimeError as error:
                    print(error)
            """)
            self.assertEqual(said[0], "sent")
            self.assertRegex(said[1], "has been stopped")

    def test_start_and_stop_in_the_reactors_thread_name_the_way_out(self) -> None:
        said = self.run_script("""
            async def start():
                Controller(Handler(), port=0).start()
            async def stop():
                controller.stop()
            with Controller(Handler(), port=0) as controller:
                for attempt in (start, stop):
                    try:
                        asyncio.run_coroutine_threadsafe(attempt(), controller.loop).result(20)
                    except RuntimeError as error:
                        print(error)
        """)
        self.assertRegex(said[0], r"await controller\.listen\(\)")
        self.assertRegex(said[1], r"await controller\.close\(\)")

    def test_a_hook_that_blocks_does_not_block_stop_for_ever(self) -> None:
        said = self.run_script("""
            class Blocks:
                def handle_NOOP(self, server, session, envelope, arg):
                    begun.set()
                    release.wait(20)
            begun, release = threading.Event(), threading.Event()
            controller = Controller(Blocks(), port=0, ready_timeout=0.1, grace=0.1)
            controller.ready_timeout = 5
            controller.start()
            controller.ready_timeout = 0.1
            client = smtplib.SMTP(controller.hostname, controller.port)
            client.putcmd("NOOP")
            begun.wait(20)
            try:
                controller.stop()
            except TimeoutError:
                print("gave up")
            release.set()
            client.close()
        """)
        self.assertIn("gave up", said)


class AsyncioTests(ScriptCase):
    def test_a_thread_beside_asyncio_run(self) -> None:
        said = self.run_script("""
            async def main():
                with Controller(Handler(), port=0) as controller:
                    await asyncio.to_thread(send, controller)
            asyncio.run(main())
            asyncio.run(main())
        """)
        self.assertEqual(said, ["sent"] * 2)

    def test_on_the_loop_of_asyncio_run_time_after_time_and_beside_a_thread(self) -> None:
        said = self.run_script("""
            async def main():
                async with UnthreadedController(Handler(), port=0) as controller:
                    await asyncio.to_thread(send, controller)
            asyncio.run(main())
            asyncio.run(main())
            with Controller(Handler(), port=0) as controller:
                asyncio.run(main())
                send(controller)
        """)
        self.assertEqual(said, ["sent"] * 4)

    def test_a_thread_of_an_installed_reactor_beside_asyncio_run(self) -> None:
        said = self.run_script("""
            from twisted.internet import reactor
            from twisted_smtpd.handlers import Sink

            async def main():
                controller = UnthreadedController(Sink(), port=0)
                await controller.listen()
                await asyncio.to_thread(send, controller)
                await controller.close()

            with Controller(Sink(), port=0) as controller:
                send(controller)
            asyncio.run(main())
            with Controller(Sink(), port=0) as controller:
                send(controller)
        """)
        self.assertEqual(said, ["sent"] * 3)

    def test_on_a_loop_of_ones_own_hooks_can_use_what_needs_the_global_reactor(self) -> None:
        said = self.run_script("""
            from twisted.internet.threads import deferToThread
            class Threads:
                async def handle_DATA(self, server, session, envelope):
                    from twisted.internet import reactor, task
                    await deferToThread(int)
                    await task.deferLater(reactor, 0)
                    return "250 OK"
            async def main():
                async with UnthreadedController(Threads(), port=0) as controller:
                    await asyncio.to_thread(send, controller)
            for _ in range(2):
                asyncio.run(main())
            with Controller(Threads(), port=0) as controller:
                send(controller)
        """)
        self.assertEqual(said, ["sent"] * 3)


class TwistedProgramTests(ScriptCase):
    PROGRAM = """
        from twisted.internet import {reactor}reactor
        {reactor}reactor.install()
        from twisted.internet import reactor
        from twisted.internet.task import react
        from twisted.internet.threads import deferToThread
        from twisted.internet.defer import Deferred

        class Plain:
            def handle_DATA(self, server, session, envelope):
                return "250 OK"

        def in_thread():
            with Controller(Plain(), port=0) as controller:
                assert controller.server.reactor is reactor
                send(controller)

        async def main(reactor):
            async with Controller(Plain(), port=0) as controller:
                await deferToThread(send, controller)
            await deferToThread(in_thread)
            try:
                Controller(Plain(), port=0).start()
            except RuntimeError as error:
                print(error)

        react(main)
    """

    def test_uses_the_reactor_that_runs(self) -> None:
        for reactor in ("select", "asyncio"):
            said = self.run_script(self.PROGRAM.format(reactor=reactor), status=0)
            self.assertEqual(said[:2], ["sent", "sent"])
            self.assertRegex(said[2], r"await controller\.listen\(\)")

    def test_runs_a_reactor_that_is_installed_and_not_running(self) -> None:
        said = self.run_script("""
            from twisted.internet import selectreactor
            selectreactor.install()
            class Plain:
                def handle_DATA(self, server, session, envelope):
                    return "250 OK"
            for _ in range(2):
                with Controller(Plain(), port=0) as controller:
                    send(controller)
                    assert controller.loop is None
        """)
        self.assertEqual(said, ["sent"] * 2)

    TESTS = PRELUDE + dedent("""
        from twisted.internet.threads import deferToThread
        from twisted.trial.unittest import SynchronousTestCase, TestCase

        class Plain:
            def handle_DATA(self, server, session, envelope):
                return "250 OK"

        class OfItsOwn(TestCase):
            async def test_listen(self):
                async with Controller(Plain(), port=0) as controller:
                    await deferToThread(send, controller)

            def test_in_a_thread(self):
                def use():
                    with Controller(Plain(), port=0) as controller:
                        send(controller)
                return deferToThread(use)

            def test_start_is_refused(self):
                with self.assertRaisesRegex(RuntimeError, "listen"):
                    Controller(Plain(), port=0).start()

        class Synchronous(SynchronousTestCase):
            def test_start(self):
                with Controller(Plain(), port=0) as controller:
                    send(controller)
    """)

    def test_trial(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "test_mine.py").write_text(self.TESTS)
        for reactor in ("select", "asyncio"):
            for case, count in (("OfItsOwn", 3), ("Synchronous", 1)):
                said = self.run_trial(folder, reactor, f"test_mine.{case}")
                self.assertIn(f"PASSED (successes={count})", said)

    def run_trial(self, folder: Path, reactor: str, name: str) -> str:
        words = ("-m", "twisted.trial", f"--reactor={reactor}", f"--temp-directory={folder.absolute() / 'temporary'}")
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": str(folder.absolute())})
        return self.run_program(*words, name)


class CyclesTests(ScriptCase):
    CYCLES = Path(__file__).parent.parent.parent / "scripts" / "controller_cycles.py"

    def test_files_threads_and_memory_stay_as_they_are(self) -> None:
        for options in ((), ("--own-loop",)):
            said = self.run_program(str(self.CYCLES), "--cycles=30", *options)
            self.assertIn("30 messages", said)

    if not (CYCLES.exists() and os.path.isdir("/proc/self/fd")):
        test_files_threads_and_memory_stay_as_they_are.skip = "no script, or no /proc"  # type: ignore[attr-defined]
