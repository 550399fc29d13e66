"""The drone: runs backends on one machine, as controllers order. `running.running_drone` starts one."""
