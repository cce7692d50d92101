"""What servers for tests can do, tried: twisted-smtpd, smtpdfix, pytest-localserver and pytest-smtpd.

Run it with the Python of an environment that has pytest and all four.  Each line is a thing that a test may want, with
what each server said to it; docs/how-to/testing.rst has the table.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import textwrap
from importlib.metadata import version
from pathlib import Path

LIMIT = 60  # seconds, for a probe that hangs

# The name of the fixture, and what pytest is told so that there is no other of this name.
SERVERS = {
    "twisted-smtpd": ("smtpd", ("-p", "no:smtpd")),
    "smtpdfix": ("smtpd", ("-p", "no:twisted_smtpd")),
    "pytest-localserver": ("smtpserver", ("-p", "no:twisted_smtpd", "-p", "no:smtpd")),
    "pytest-smtpd": ("smtpd", ("-p", "no:twisted_smtpd", "-p", "no:smtpd")),
}

HEAD = """
import smtplib, ssl, threading, pytest
def place(server):
    return getattr(server, "addr", None) or (server.hostname, server.port)
def connect(server, kind=smtplib.SMTP, **options):
    return kind(*place(server), timeout=10, **options)
MAIL = "anne@example.com", ["bart@example.com"], "Subject: Hello\\n\\nSee https://x.example/17\\n"
def messages(server):
    return server.messages if hasattr(server, "messages") else server.outbox
"""

# What is wanted, and a test that passes where it is there, for each server or for all.
PROBES = {
    "a fixture without set-up": "connect(server).sendmail(*MAIL); assert len(messages(server)) == 1",
    "a free port": "assert place(server)[1] not in (25, 8025)",
    "sender and recipients of the envelope": """
        connect(server).sendmail("anne@example.com", ["hidden@example.com"], "Subject: x\\n\\nx\\n")
        (message,) = messages(server)
        details = getattr(message, "details", None)
        facts = [getattr(message, "rcpt_tos", ""), getattr(details, "rcpttos", ""), *message.values()]
        assert any("hidden@example.com" in fact for fact in facts)
    """,
    "the bytes of the message": """
        connect(server).sendmail("a@b.example", ["c@d.example"], b"Subject: x\\r\\n\\r\\n\\xff \\r\\n")
        assert b"\\xff " in getattr(messages(server)[0], "raw", b"")
    """,
    "to wait for a message": """
        threading.Timer(0.3, lambda: connect(server).sendmail(*MAIL)).start()
        wait = getattr(server, "wait_for", None)
        assert wait is not None and wait(timeout=10) is not None
    """,
    "to search, with links and codes": """
        connect(server).sendmail(*MAIL)
        assert server.find(to="bart")[0].links() == ["https://x.example/17"]
    """,
    "the dialog": "connect(server).sendmail(*MAIL); assert 'rcpt to' in messages(server)[0].dialog.lower()",
    "failures on demand": """
        server.fail("RCPT", "451 later", times=1)
        with pytest.raises(smtplib.SMTPRecipientsRefused): connect(server).sendmail(*MAIL)
        connect(server).sendmail(*MAIL)
    """,
    "AUTH": """
        if hasattr(server, "config"): server.config.auth_require_tls = False
        connect(server).login("user", "password")
    """,
    "AUTH with users that the test gives": """
        if hasattr(server, "config"):
            server.config.auth_require_tls = False
            server.config.login_username, server.config.login_password = "anne", "secret"
        client = connect(server)
        with pytest.raises(smtplib.SMTPAuthenticationError): client.login("anne", "wrong")
        client.login("anne", "secret")
    """,
    "STARTTLS that a client trusts": """
        if hasattr(server, "config"): server.config.use_starttls = True
        trust = server.ssl_context() if hasattr(server, "ssl_context") and callable(server.ssl_context) else None
        if trust is None and hasattr(server, "config"):
            trust = ssl.create_default_context(cafile=server.config.ssl_cert_files[0])
        assert trust is not None
        client = smtplib.SMTP("localhost", place(server)[1], timeout=10)
        client.starttls(context=trust)
        client.sendmail(*MAIL)
    """,
    "TLS from the start": """
        if hasattr(server, "config"): server.config.use_ssl = True
        client = connect(server, smtplib.SMTP_SSL, context=ssl._create_unverified_context())
        client.sendmail(*MAIL)
    """,
    "TLS that fails (an expired certificate)": """
        server.fail("TLS", "expired")
        with pytest.raises(ssl.SSLCertVerificationError) as error:
            connect(server).starttls(context=server.ssl_context())
        assert "expired" in str(error.value)
    """,
    "LMTP": "assert connect(server, smtplib.LMTP).ehlo()[0] == 250",
}
MARKERS = {
    "AUTH with users that the test gives": "@pytest.mark.smtpd(users={'anne': 'secret'})",
    "TLS from the start": "@pytest.mark.smtpd(tls=True)",
    "LMTP": "@pytest.mark.smtpd(lmtp=True)",
}


def probe(fixture: str, options: tuple[str, ...], what: str, folder: Path) -> bool:
    """Whether a test passes."""
    body = textwrap.indent(textwrap.dedent(PROBES[what]).strip("\n"), "    ")
    text = f"{HEAD}\n{MARKERS.get(what, '')}\ndef test_it({fixture}):\n    server = {fixture}\n{body}\n"
    (folder / "test_it.py").write_text(text)
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "test_it.py")
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT)
    return "1 passed" in run.stdout


def main() -> None:
    """Try everything with each."""
    with tempfile.TemporaryDirectory() as name:
        for whose, (fixture, options) in SERVERS.items():
            print(f"{whose} {version(whose)}")
            for what in PROBES:
                print(f"  {'yes' if probe(fixture, options, what, Path(name)) else 'no ':3}  {what}", flush=True)


main()
