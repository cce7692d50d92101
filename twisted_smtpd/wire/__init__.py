"""The SMTP wire format: bytes in, values out.  No I/O, no clock, nothing of Twisted."""
