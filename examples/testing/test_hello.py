import smtplib


def test_hello(smtpd):
    with smtplib.SMTP(smtpd.hostname, smtpd.port) as client:
        client.sendmail("anne@example.com", ["bart@example.com"], "Subject: Hello\n\nIt works.\n")
    assert smtpd.wait_for(to="bart@example.com")["Subject"] == "Hello"
