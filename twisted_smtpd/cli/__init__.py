"""The command line of ``twist smtpd``: a module for each group of options, and command.py with all of them."""
