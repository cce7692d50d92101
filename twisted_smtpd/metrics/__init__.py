"""What a server has done so far, as figures and as a page."""
