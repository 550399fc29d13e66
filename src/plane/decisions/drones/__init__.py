"""Which drones are accepted, under which name and address."""
