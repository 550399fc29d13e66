"""The drone: runs backends on one machine, as controllers order. `running.start_drone` starts one."""
