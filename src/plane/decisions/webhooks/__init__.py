"""Webhooks: where events may be sent, what is sent next, and what follows from a response."""
