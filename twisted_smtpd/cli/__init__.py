"""The command line of ``twist smtpd``, in groups of options."""
