"""Several processes on the same ports: ``twisted-smtpd --workers N``."""
