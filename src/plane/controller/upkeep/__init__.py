"""Background loops of the controller."""
