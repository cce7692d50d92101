"""The examples for containers start servers that there can be."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from unittest import skipUnless

import yaml
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.examples.test_examples import EXAMPLES
from twisted_smtpd.cli.command import Command
from twisted_smtpd.runtime.exit_status import call_program, program_name
from twisted_smtpd.tap import makeService


@skipUnless((EXAMPLES / "docker").is_dir(), "the examples are not installed")
class ContainerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.addCleanup(call_program, program_name())
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def ports(self, *words: str) -> list[tuple[str, int]]:
        """Where the command listens."""
        reactor = MemoryReactorClock()
        options = Command(reactor)
        options.parseOptions(words)
        service: Any = makeService(options)
        service.startService()
        self.addCleanup(service.stopService)
        return [(server[3], server[0]) for server in reactor.tcpServers]

    def dockerfile(self, word: str) -> list[str]:
        text = (EXAMPLES / "docker" / "Dockerfile").read_text()
        (found,) = re.findall(rf"^{word} .*?(\[.*\])$", text, re.MULTILINE)
        return json.loads(found)  # type: ignore[no-any-return]

    def test_the_image_listens_where_it_says(self) -> None:
        self.assertEqual(self.dockerfile("ENTRYPOINT")[1:], ["-m", "twisted_smtpd"])
        self.assertEqual(self.ports(*self.dockerfile("CMD")), [("0.0.0.0", 8025)])
        self.assertIn("\nEXPOSE 8025\n", (EXAMPLES / "docker" / "Dockerfile").read_text())
        self.assertEqual(self.dockerfile("HEALTHCHECK")[1:], ["healthcheck", "127.0.0.1:8025"])

    def test_the_server_of_compose(self) -> None:
        service = yaml.safe_load((EXAMPLES / "docker" / "compose.yaml").read_text())["services"]["smtpd"]
        words = [word.replace("/data/", f"{self.folder}/") for word in service["command"]]
        ports = [port for _, port in self.ports(*words)]
        self.assertEqual(ports, [int(one.rpartition(":")[2]) for one in service["ports"]])

    def test_the_server_of_kubernetes(self) -> None:
        config, deployment, service = yaml.safe_load_all((EXAMPLES / "kubernetes" / "smtpd.yaml").read_text())
        text = config["data"]["smtpd.toml"]
        (self.folder / "smtpd.toml").write_text(text)
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        words = [word.replace("/etc/smtpd", os.fspath(self.folder)) for word in container["args"]]
        listening = [port for _, port in self.ports(*words)]
        self.assertEqual(listening, [port["containerPort"] for port in container["ports"]])
        self.assertGreater(
            pod["terminationGracePeriodSeconds"], int(re.findall(r"^grace = ([0-9]+)$", text, re.MULTILINE)[0]) + 5
        )
        named = {port["name"] for port in container["ports"]}
        self.assertLessEqual({port["targetPort"] for port in service["spec"]["ports"]}, named)
        for probe in ("readinessProbe", "livenessProbe"):
            self.assertIn(container[probe]["httpGet"]["port"], named)
