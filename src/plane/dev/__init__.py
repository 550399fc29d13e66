"""`plane dev`: database, controller, drones and proxy in one process."""
