"""The ACME DNS server: responds to TXT queries for DNS-01 challenges only. `server.start_dns` starts one."""
