"""An inbox in the browser: a page and an API for the mail that a server took."""
