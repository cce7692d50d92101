"""REST: Mailpit's paths and JSON under ``/api/v1``, and more.  One table of routes, :data:`ROUTES`, has all of it."""
