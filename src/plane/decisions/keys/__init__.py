"""Keys and leases: connect requests, selection of drones, deadlines and renewals."""
