"""The ingress: every route over HTTP, and what guards it."""
