"""A Node.js program that uses nodemailer.  Run it with pytest where ``npm install nodemailer`` was run."""

import os
import subprocess

PROGRAM = """
const nodemailer = require("nodemailer");
const transport = nodemailer.createTransport({
  host: "localhost", port: Number(process.env.SMTP_PORT), auth: { user: "anne", pass: "any password will do" },
});
transport.sendMail({
  from: "shop@example.com", to: "bart@example.com", subject: "Welcome", text: "Your code is 123456.",
}).then(() => transport.close());
"""


def test_nodemailer(smtpd):
    # nodemailer uses STARTTLS where it is offered, and Node.js checks the certificate.
    environment = {**os.environ, "SMTP_PORT": str(smtpd.port), "NODE_EXTRA_CA_CERTS": smtpd.ca_file}
    subprocess.run(["node", "-e", PROGRAM], env=environment, check=True, timeout=60)
    message = smtpd.wait_for(to="bart@example.com")
    assert message.codes() == ["123456"]
    assert message.session.tls
