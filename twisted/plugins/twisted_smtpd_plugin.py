"""``twist smtpd`` and ``twistd smtpd``.  Only a ServiceMaker: Twisted imports each plugin to list them."""

from twisted.application.service import ServiceMaker

twistedSMTPD = ServiceMaker(
    "twisted-smtpd", "twisted_smtpd.tap", "A programmable SMTP server (print, store or handle mail in Python).", "smtpd"
)
