"""A program that uses aiosmtplib.  Run it with pytest."""

import asyncio

import aiosmtplib

from twisted_smtpd.testing import AsyncMailServer


def test_one_message(smtpd):
    async def program():
        await aiosmtplib.send(
            "Subject: Hello\n\nHello\n",
            sender="anne@example.com",
            recipients=["bart@example.com"],
            hostname=smtpd.hostname,
            port=smtpd.port,
            tls_context=smtpd.ssl_context(),
        )

    asyncio.run(program())
    message = smtpd.wait_for(to="bart@example.com")
    assert message["Subject"] == "Hello"
    # aiosmtplib uses STARTTLS where it is offered.
    assert message.session.tls


def test_a_server_on_the_loop_of_the_test():
    async def program():
        async with AsyncMailServer(starttls=False) as smtpd:
            await aiosmtplib.send(
                "Subject: Hello\n\nHello\n",
                sender="anne@example.com",
                recipients=["bart@example.com"],
                hostname=smtpd.hostname,
                port=smtpd.port,
            )
            return await smtpd.wait_for(to="bart@example.com")

    assert asyncio.run(program())["Subject"] == "Hello"
