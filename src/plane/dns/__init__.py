"""The ACME DNS server: answers TXT queries for DNS-01 challenges, and nothing else.

`running.running_dns` starts one.
"""
