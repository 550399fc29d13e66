"""The ACME DNS server: answers TXT queries for DNS-01 challenges, and nothing else. `server.start_dns` starts one."""
