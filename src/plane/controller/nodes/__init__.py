"""The sockets of drones, proxies and DNS servers on the controller."""
