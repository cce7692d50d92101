"""A Flask program that sends with Flask-Mail.  Run it with pytest."""

import pytest
from flask import Flask
from flask_mail import Mail, Message


@pytest.fixture
def app(smtpd):
    app = Flask(__name__)
    # Flask-Mail suppresses mail where TESTING is set.
    app.config.update(TESTING=True, MAIL_SUPPRESS_SEND=False, MAIL_SERVER=smtpd.hostname, MAIL_PORT=smtpd.port)
    mail = Mail(app)

    @app.post("/sign-up")
    def sign_up():
        message = Message("Welcome", sender="shop@example.com", recipients=["bart@example.com"])
        message.body, message.html = "Welcome!", '<a href="https://shop.example/confirm/abc">Confirm</a>'
        mail.send(message)
        return "sent"

    return app


def test_sign_up(app, smtpd):
    assert app.test_client().post("/sign-up").text == "sent"
    message = smtpd.wait_for(to="bart@example.com")
    assert message["Subject"] == "Welcome"
    assert message.links("confirm") == ["https://shop.example/confirm/abc"]
