"""A FastAPI program that sends with FastAPI-Mail.  Run it with pytest."""

import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi.testclient import TestClient
from fastapi_mail import ConnectionConfig, FastMail, MessageSchema, MessageType


@pytest.fixture
def app(smtpd, monkeypatch):
    # STARTTLS checks the certificate against Python's default authorities.
    monkeypatch.setenv("SSL_CERT_FILE", smtpd.ca_file)
    mail = FastMail(
        ConnectionConfig(
            MAIL_USERNAME="anne",
            MAIL_PASSWORD="any password will do",
            MAIL_FROM="shop@example.com",
            MAIL_SERVER="localhost",
            MAIL_PORT=smtpd.port,
            MAIL_STARTTLS=True,
            MAIL_SSL_TLS=False,
        )
    )
    app = FastAPI()

    @app.post("/sign-up")
    async def sign_up(tasks: BackgroundTasks):
        message = MessageSchema(
            subject="Welcome", recipients=["bart@example.com"], body="Your code is 123456.", subtype=MessageType.plain
        )
        tasks.add_task(mail.send_message, message)

    return app


def test_sign_up(app, smtpd):
    assert TestClient(app).post("/sign-up").status_code == 200
    # The mail goes out in the background: wait_for waits for it.
    message = smtpd.wait_for(to="bart@example.com")
    assert message.codes() == ["123456"]
    assert message.session.user == "anne"
