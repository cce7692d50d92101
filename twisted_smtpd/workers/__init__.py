"""Several processes on the same ports: ``twist smtpd --workers N``."""
