"""Sets of addresses; the public name of :mod:`twisted_smtpd.options.networks`."""

from twisted_smtpd.options.networks import Network, Networks

__all__ = ["Network", "Networks"]
