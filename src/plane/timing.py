"""Every duration of the system, in seconds, with its reason.

Values and names: page 1, "Timings". Their order is asserted in ``tests/unit/test_timing.py``.
"""

from __future__ import annotations

from typing import Final

__all__: list[str] = [
    "ACME_POLL_INTERVAL_S",
    "ACME_STEP_LIMIT_S",
    "BACKOFF_CAP_S",
    "BACKOFF_FACTOR",
    "BACKOFF_FIRST_S",
    "BACKOFF_HEALTHY_AFTER_S",
    "CERTIFICATE_FAILURE_CAP_S",
    "CERTIFICATE_FAILURE_FACTOR",
    "CERTIFICATE_FAILURE_FIRST_S",
    "CERTIFICATE_LEASE_S",
    "CERTIFICATE_LOOK_INTERVAL_S",
    "CERTIFICATE_RENEWAL_WINDOW_S",
    "CLEANUP_INTERVAL_S",
    "CLOCK_NOTE_INTERVAL_S",
    "CLOCK_RESTART_MARGIN_S",
    "CLOCK_WATCH_INTERVAL_S",
    "CONNECT_ATTEMPTS",
    "CONTROLLER_ANSWER_LIMIT_S",
    "CONTROLLER_SHUTDOWN_GRACE_S",
    "DNS_TCP_IDLE_LIMIT_S",
    "DRONE_LOST_AFTER_S",
    "DYNAMIC_TOKEN_LIFETIME_S",
    "ENDED_KEPT_S",
    "ENDED_LOOK_INTERVAL_S",
    "END_AGAIN_AFTER_S",
    "EVENT_REPLAY_PAGE",
    "FAILOVER_OBJECTION_S",
    "HEARTBEAT_INTERVAL_S",
    "KEY_GONE_AFTER_S",
    "KEY_HARD_TERMINATE_AFTER_S",
    "KEY_LEASE_S",
    "KEY_RENEW_AFTER_S",
    "KEY_SOFT_TERMINATE_AFTER_S",
    "METRICS_INTERVAL_S",
    "METRICS_KEPT_S",
    "NODE_HANDSHAKE_LIMIT_S",
    "NODE_PING_INTERVAL_S",
    "NODE_SEND_LIMIT_S",
    "PENDING_ACTIONS_INTERVAL_S",
    "PORT_REST_S",
    "PORT_SHORTEST_REST_S",
    "PROXY_SHUTDOWN_GRACE_S",
    "PRUNE_INTERVAL_S",
    "QUIET_CHECK_INTERVAL_S",
    "READINESS_FIRST_DELAY_S",
    "READINESS_FIRST_TRY_S",
    "READINESS_LONGEST_TRY_S",
    "READINESS_MAX_DELAY_S",
    "REAP_INTERVAL_S",
    "RECONNECT_EVERY_S",
    "RECONNECT_JITTER_S",
    "RENEWAL_INFO_INTERVAL_S",
    "RENEWAL_INFO_SHORTEST_S",
    "REQUEST_HEAD_TIMEOUT_S",
    "SCHEDULED_TOO_LONG_S",
    "SHORTEST_IDLE_S",
    "SOFT_TERMINATE_GRACE_S",
    "STARTUP_TIMEOUT_S",
    "SWEEP_INTERVAL_S",
    "TXT_ANSWER_LIMIT_S",
    "TXT_FIXED_WAIT_S",
    "TXT_LOOK_INTERVAL_S",
    "TXT_LOOK_LIMIT_S",
    "TXT_REMEMBERED_S",
    "TXT_VISIBLE_LIMIT_S",
    "UNENDED_LOST_AFTER_S",
    "UNHEALTHY_AFTER_S",
    "WARNING_INTERVAL_S",
    "WATCHDOG_CONFIRM_TIMEOUT_S",
    "WATCHDOG_SILENT_AFTER_S",
    "WATCHDOG_START_TIMEOUT_S",
    "WATCHDOG_TICK_INTERVAL_S",
]

# Drone heartbeat, controller heartbeat, proxy keepalive per backend. Nine may be missed before UNHEALTHY_AFTER_S.
HEARTBEAT_INTERVAL_S: Final = 5.0
# A drone or controller without heartbeat for this long gets no new backends.
UNHEALTHY_AFTER_S: Final = 45.0
# A drone without heartbeat for this long is lost. Longer than a key's lease, so that the drone, if it lives,
# has ended its backends itself before their keys are given away.
DRONE_LOST_AFTER_S: Final = 120.0

# A backend that is scheduled for longer has a drone that did not take its order: longer than that drone would have
# kept the key, and than an order takes to be sent twice.
SCHEDULED_TOO_LONG_S: Final = 60.0
# A backend whose key is gone or has been expired for so long is ended by order: its drone, if it knew of it, has ended
# it before. It is ordered again so often; and after so long it is given up, though its drone lives. In all, with
# KEY_LEASE_S and REAP_INTERVAL_S, less than three minutes after the last renewal.
KEY_GONE_AFTER_S: Final = 5.0
END_AGAIN_AFTER_S: Final = 20.0
UNENDED_LOST_AFTER_S: Final = 50.0
# How often some controller looks for lost drones and stuck backends; a part of what is waited for anyway.
REAP_INTERVAL_S: Final = 10.0
# How often each controller deletes what is over.
CLEANUP_INTERVAL_S: Final = 180.0

# A key's lease, from acquisition or renewal. Renewal has ten seconds before the backend is asked to stop;
# the backend has ten seconds to stop before it is killed; the kill has ten before another may take the key.
KEY_RENEW_AFTER_S: Final = 30.0
KEY_SOFT_TERMINATE_AFTER_S: Final = 40.0
KEY_HARD_TERMINATE_AFTER_S: Final = 50.0
KEY_LEASE_S: Final = 60.0

# How often a drone stores what its clock says, and by how much a clock that begins anew is ahead of what was stored
# last: by more than the former clock can have reported since.
CLOCK_NOTE_INTERVAL_S: Final = 30.0
CLOCK_RESTART_MARGIN_S: Final = 60.0

# How often a drone and its watchdog show each other that they are alive. A watchdog that is silent for longer is
# replaced; the start of its program may take longer on a busy machine.
WATCHDOG_TICK_INTERVAL_S: Final = 1.0
WATCHDOG_SILENT_AFTER_S: Final = 3.0
WATCHDOG_START_TIMEOUT_S: Final = 20.0
# How long an order waits for a watchdog that confirms its deadline; then the order is refused, and is sent again.
WATCHDOG_CONFIRM_TIMEOUT_S: Final = 5.0

# How often each controller compares the database's clock with a steady one. What was confirmed is believed for three
# seconds (plane_now in the database), which with a step of two that is let pass is less than the seven seconds between
# the watchdog's kill, three seconds after KEY_HARD_TERMINATE_AFTER_S, and KEY_LEASE_S.
CLOCK_WATCH_INTERVAL_S: Final = 1.0
# After a failover of the database every controller has so long to say that it misses commits: each looks every
# CLOCK_WATCH_INTERVAL_S, once it has a connection again.
FAILOVER_OBJECTION_S: Final = 5.0

# From a soft termination to SIGKILL.
SOFT_TERMINATE_GRACE_S: Final = 30.0
# How often a controller looks for idle or expired backends of each connected drone.
SWEEP_INTERVAL_S: Final = 5.0
# A backend in use is kept alive every HEARTBEAT_INTERVAL_S, so a shorter idle time cannot be told from use; one
# second for the way.
SHORTEST_IDLE_S: Final = HEARTBEAT_INTERVAL_S + 1.0
# How often a proxy looks which backends have become quiet.
QUIET_CHECK_INTERVAL_S: Final = 0.5
# How often a controller sends a drone again what it has not acknowledged.
PENDING_ACTIONS_INTERVAL_S: Final = 5.0
# After this a dynamic token opens no new connection.
DYNAMIC_TOKEN_LIFETIME_S: Final = 3600.0
# A backend that does not answer HTTP by then is hard-terminated.
STARTUP_TIMEOUT_S: Final = 300.0
# Readiness probes start close together, so that a fast backend is seen at once, and back off.
READINESS_FIRST_DELAY_S: Final = 0.002
READINESS_MAX_DELAY_S: Final = 0.1
# How long a probe may take at first, and at most: longer after each that was accepted and had no answer in time.
READINESS_FIRST_TRY_S: Final = 1.0
READINESS_LONGEST_TRY_S: Final = 60.0
# A port is not given to another backend for this long after its backend's end: until a proxy that is connected has been
# told of the end, and longer, since ports are plenty. Where they are not, for as long as a proxy without a controller
# follows the routes that it knows: a lease, from the moment in which it notices (1.5 times NODE_PING_INTERVAL_S).
PORT_REST_S: Final = 180.0
PORT_SHORTEST_REST_S: Final = KEY_LEASE_S + 30.0
METRICS_INTERVAL_S: Final = 5.0
# What has ended is remembered by its drone for this long, its output with it (A17), and looked for this often.
ENDED_KEPT_S: Final = 3600.0
ENDED_LOOK_INTERVAL_S: Final = 60.0
# How often stopped containers, and images that nobody uses, are looked for.
PRUNE_INTERVAL_S: Final = 60.0
# Metrics that are older say nothing about now; several intervals, also of later originals' (10 s).
METRICS_KEPT_S: Final = 60.0

# A warning that others cause as often as they like is logged this often at most.
WARNING_INTERVAL_S: Final = 60.0

# Nodes reconnect for ever; after BACKOFF_HEALTHY_AFTER_S of connection the backoff starts over.
BACKOFF_FIRST_S: Final = 1.0
BACKOFF_FACTOR: Final = 1.1
BACKOFF_CAP_S: Final = 60.0
BACKOFF_HEALTHY_AFTER_S: Final = 60.0
# Nodes reconnect on purpose, so that load spreads over controllers.
RECONNECT_EVERY_S: Final = 3600.0
RECONNECT_JITTER_S: Final = 600.0

# A node that has said nothing by then is no node.
NODE_HANDSHAKE_LIMIT_S: Final = 10.0
# A half-open TCP connection is noticed by a ping without answer (after half of this again).
NODE_PING_INTERVAL_S: Final = 20.0
# A peer that does not read for this long is gone.
NODE_SEND_LIMIT_S: Final = 10.0

# A connection to a controller that has not sent a whole request head by then is closed: who has a request sends it.
REQUEST_HEAD_TIMEOUT_S: Final = 10.0

# A proxy that orders its cluster's certificate has the right to for this long, from its last step; then another may.
CERTIFICATE_LEASE_S: Final = 60.0

# A certificate is renewed so long before its end (page 1), or a third of its life if that is less.
CERTIFICATE_RENEWAL_WINDOW_S: Final = 30 * 86400.0
# After a failed order; then longer each time. Let's Encrypt takes five failures an hour.
CERTIFICATE_FAILURE_FIRST_S: Final = 30.0
CERTIFICATE_FAILURE_FACTOR: Final = 4.0
CERTIFICATE_FAILURE_CAP_S: Final = 3600.0
# How often is looked whether a certificate is due: the machine's clock may jump meanwhile.
CERTIFICATE_LOOK_INTERVAL_S: Final = 60.0
# A controller's answer to a question about the certificate.
CONTROLLER_ANSWER_LIMIT_S: Final = 10.0
# Until a challenge's value is seen, and each step of an order: a challenge takes both, within the lease.
TXT_VISIBLE_LIMIT_S: Final = 20.0
ACME_STEP_LIMIT_S: Final = 35.0
ACME_POLL_INTERVAL_S: Final = 0.5
TXT_LOOK_INTERVAL_S: Final = 0.5
TXT_LOOK_LIMIT_S: Final = 2.0
# Where the zone's name servers cannot be found; longer than a value is remembered.
TXT_FIXED_WAIT_S: Final = 5.0
# How often a CA is asked when it would like the renewal, and the least that it may ask for (RFC 9773, section 4.3).
RENEWAL_INFO_INTERVAL_S: Final = 6 * 3600.0
RENEWAL_INFO_SHORTEST_S: Final = 60.0

# How long a DNS server waits for a controller's word, and remembers it: a value is new with each order.
TXT_ANSWER_LIMIT_S: Final = 5.0
TXT_REMEMBERED_S: Final = 1.0
# A TCP connection of a resolver that asks nothing for this long is closed (RFC 7766, section 6.2.3).
DNS_TCP_IDLE_LIMIT_S: Final = 10.0

# Requests in flight when a controller, or a proxy, is asked to stop.
CONTROLLER_SHUTDOWN_GRACE_S: Final = 2.0
PROXY_SHUTDOWN_GRACE_S: Final = 10.0

# Not durations, but of the same kind: how often a lost race for a key is tried, rows read at once on replay.
CONNECT_ATTEMPTS: Final = 3
EVENT_REPLAY_PAGE: Final = 100
