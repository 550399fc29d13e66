"""The drone runs backends on one machine, as controllers order. `plane.drone.server.start_drone` starts one."""
