"""Keys and their leases: who gets a key, until when, and on which drone its backend runs."""
