"""Rules of the console: sessions, pages of backends, and what an operator reads from a state."""
