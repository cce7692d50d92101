"""What a server has done so far, as metrics and as a page."""

from twisted_smtpd.metrics.figures import Metric, histogram, total

__all__ = ["Metric", "histogram", "total"]
