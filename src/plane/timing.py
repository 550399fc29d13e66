"""Every duration of the system, in seconds, with its reason.

Values that other nodes depend on are specified in docs/reference/protocol/index.md, "Timings". Their order is asserted
in ``tests/unit/test_timing.py``.
"""

from __future__ import annotations

from typing import Final

__all__: list[str] = [
    "ACME_POLL_INTERVAL_S",
    "ACME_STEP_TIMEOUT_S",
    "BACKOFF_CAP_S",
    "BACKOFF_FACTOR",
    "BACKOFF_FIRST_S",
    "BACKOFF_HEALTHY_AFTER_S",
    "CERTIFICATE_FAILURE_CAP_S",
    "CERTIFICATE_FAILURE_FACTOR",
    "CERTIFICATE_FAILURE_FIRST_S",
    "CERTIFICATE_LEASE_S",
    "CERTIFICATE_POLL_INTERVAL_S",
    "CERTIFICATE_RENEWAL_WINDOW_S",
    "CLEANUP_INTERVAL_S",
    "CLOCK_POLL_INTERVAL_S",
    "CLOCK_RESTART_MARGIN_S",
    "CLOCK_STORE_INTERVAL_S",
    "CONNECT_ATTEMPTS",
    "CONTROLLER_RESPONSE_TIMEOUT_S",
    "CONTROLLER_SHUTDOWN_GRACE_S",
    "DNS_TCP_IDLE_TIMEOUT_S",
    "DRONE_LOST_AFTER_S",
    "DYNAMIC_TOKEN_LIFETIME_S",
    "ENDED_CLEANUP_INTERVAL_S",
    "ENDED_RETENTION_S",
    "EVENT_REPLAY_PAGE",
    "FAILOVER_OBJECTION_S",
    "HEARTBEAT_INTERVAL_S",
    "IDLE_POLL_INTERVAL_S",
    "KEY_GONE_AFTER_S",
    "KEY_HARD_TERMINATE_AFTER_S",
    "KEY_LEASE_S",
    "KEY_RENEW_AFTER_S",
    "KEY_SOFT_TERMINATE_AFTER_S",
    "METRICS_INTERVAL_S",
    "METRICS_RETENTION_S",
    "MIN_IDLE_S",
    "NODE_HANDSHAKE_TIMEOUT_S",
    "NODE_PING_INTERVAL_S",
    "NODE_SEND_TIMEOUT_S",
    "PENDING_ACTIONS_INTERVAL_S",
    "PORT_MIN_QUARANTINE_S",
    "PORT_QUARANTINE_S",
    "PROXY_SHUTDOWN_GRACE_S",
    "PRUNE_INTERVAL_S",
    "READINESS_FIRST_ATTEMPT_TIMEOUT_S",
    "READINESS_FIRST_DELAY_S",
    "READINESS_MAX_ATTEMPT_TIMEOUT_S",
    "READINESS_MAX_DELAY_S",
    "REAP_INTERVAL_S",
    "RECONNECT_EVERY_S",
    "RECONNECT_JITTER_S",
    "RENEWAL_INFO_INTERVAL_S",
    "RENEWAL_INFO_MIN_INTERVAL_S",
    "REQUEST_HEAD_TIMEOUT_S",
    "SCHEDULED_TIMEOUT_S",
    "SOFT_TERMINATE_GRACE_S",
    "STARTUP_TIMEOUT_S",
    "SWEEP_INTERVAL_S",
    "TERMINATE_AGAIN_AFTER_S",
    "TXT_CACHE_TTL_S",
    "TXT_FIXED_WAIT_S",
    "TXT_POLL_INTERVAL_S",
    "TXT_QUERY_TIMEOUT_S",
    "TXT_RESPONSE_TIMEOUT_S",
    "TXT_VISIBLE_TIMEOUT_S",
    "UNHEALTHY_AFTER_S",
    "UNTERMINATED_LOST_AFTER_S",
    "WARNING_INTERVAL_S",
    "WATCHDOG_CONFIRM_TIMEOUT_S",
    "WATCHDOG_START_TIMEOUT_S",
    "WATCHDOG_TICK_INTERVAL_S",
    "WATCHDOG_TIMEOUT_S",
]

# Heartbeats of drones and controllers, and the keepalive of a proxy per backend. Nine may be missed before
# UNHEALTHY_AFTER_S.
HEARTBEAT_INTERVAL_S: Final = 5.0
# A drone or controller without heartbeat for this long gets no new backends.
UNHEALTHY_AFTER_S: Final = 45.0
# A drone without heartbeat for this long is lost. This is longer than a lease: a drone that is alive has ended its
# backends itself before their keys become free.
DRONE_LOST_AFTER_S: Final = 120.0

# A backend that is scheduled for longer has a drone that did not receive its action. Longer than that drone would have
# kept the key, and than two deliveries of an action take.
SCHEDULED_TIMEOUT_S: Final = 60.0
# A backend whose key is gone, or has been expired for KEY_GONE_AFTER_S, is terminated by an action. Its drone, if it
# had the backend, would have terminated it before. The action is repeated, and after UNTERMINATED_LOST_AFTER_S the
# backend is given up although its drone is alive. With KEY_LEASE_S and REAP_INTERVAL_S the sum stays below three
# minutes after the last renewal.
KEY_GONE_AFTER_S: Final = 5.0
TERMINATE_AGAIN_AFTER_S: Final = 20.0
UNTERMINATED_LOST_AFTER_S: Final = 50.0
# How often one of the controllers searches for lost drones and stuck backends. Short against the timeouts above.
REAP_INTERVAL_S: Final = 10.0
# How often each controller deletes expired rows.
CLEANUP_INTERVAL_S: Final = 180.0

# The lease of a key, from acquisition or renewal. A renewal has ten seconds before the backend receives SIGTERM, the
# backend has ten seconds to stop before it is killed, and the kill has ten seconds before the key becomes free.
KEY_RENEW_AFTER_S: Final = 30.0
KEY_SOFT_TERMINATE_AFTER_S: Final = 40.0
KEY_HARD_TERMINATE_AFTER_S: Final = 50.0
KEY_LEASE_S: Final = 60.0

# How often a drone stores its clock, and how far a restarted clock is set ahead of the stored value. The margin exceeds
# what the former clock can have reported since it was stored.
CLOCK_STORE_INTERVAL_S: Final = 30.0
CLOCK_RESTART_MARGIN_S: Final = 60.0

# How often a drone and its watchdog show each other that they are alive. A watchdog that is silent for longer than the
# timeout is replaced. The start of its program may take longer on a busy machine.
WATCHDOG_TICK_INTERVAL_S: Final = 1.0
WATCHDOG_TIMEOUT_S: Final = 3.0
WATCHDOG_START_TIMEOUT_S: Final = 20.0
# How long an action waits until the watchdog has confirmed the deadline. Then the action is refused, and is sent again.
WATCHDOG_CONFIRM_TIMEOUT_S: Final = 5.0

# How often each controller compares the database's clock with a steady one. A confirmed time is used for three seconds
# (plane_now in the database), and a step of up to two seconds is tolerated. Together that is less than the seven
# seconds between the watchdog's kill, three seconds after KEY_HARD_TERMINATE_AFTER_S, and KEY_LEASE_S.
CLOCK_POLL_INTERVAL_S: Final = 1.0
# After a failover of the database every controller has this long to report that commits are missing. Each compares
# every CLOCK_POLL_INTERVAL_S, once it has a connection again.
FAILOVER_OBJECTION_S: Final = 5.0

# From a soft termination to SIGKILL.
SOFT_TERMINATE_GRACE_S: Final = 30.0
# How often a controller searches for idle or expired backends of each connected drone.
SWEEP_INTERVAL_S: Final = 5.0
# A backend in use is kept alive every HEARTBEAT_INTERVAL_S, so a shorter idle time cannot be distinguished from use.
# One second is added for the network.
MIN_IDLE_S: Final = HEARTBEAT_INTERVAL_S + 1.0
# How often a proxy checks which backends have become idle.
IDLE_POLL_INTERVAL_S: Final = 0.5
# How often a controller sends again what a drone has not acknowledged.
PENDING_ACTIONS_INTERVAL_S: Final = 5.0
# After this a dynamic token opens no new connection.
DYNAMIC_TOKEN_LIFETIME_S: Final = 3600.0
# A backend that does not respond to HTTP by then is terminated hard.
STARTUP_TIMEOUT_S: Final = 300.0
# The first readiness probes follow each other closely, so that a fast backend is ready at once; then they back off.
READINESS_FIRST_DELAY_S: Final = 0.002
READINESS_MAX_DELAY_S: Final = 0.1
# The timeout of the first probe, and of any. It grows after each probe that was accepted and got no response in time.
READINESS_FIRST_ATTEMPT_TIMEOUT_S: Final = 1.0
READINESS_MAX_ATTEMPT_TIMEOUT_S: Final = 60.0
# A port is not given to another backend for this long after its backend ended. Every connected proxy has received the
# end by then. Where ports are scarce, the minimum applies: a proxy without a controller follows the routes that it
# knows for the length of a lease, from the moment in which it notices the loss (1.5 times NODE_PING_INTERVAL_S).
PORT_QUARANTINE_S: Final = 180.0
PORT_MIN_QUARANTINE_S: Final = KEY_LEASE_S + 30.0
METRICS_INTERVAL_S: Final = 5.0
# How long a drone keeps an ended backend and its output, and how often it deletes what is older.
ENDED_RETENTION_S: Final = 3600.0
ENDED_CLEANUP_INTERVAL_S: Final = 60.0
# How often stopped containers and unused images are removed.
PRUNE_INTERVAL_S: Final = 60.0
# Older metrics say nothing about the present. Several intervals, those of later originals (10 s) included.
METRICS_RETENTION_S: Final = 60.0

# The shortest time between two lines of a warning that a peer can cause as often as it likes.
WARNING_INTERVAL_S: Final = 60.0

# Nodes reconnect for ever. After BACKOFF_HEALTHY_AFTER_S of connection the backoff starts over.
BACKOFF_FIRST_S: Final = 1.0
BACKOFF_FACTOR: Final = 1.1
BACKOFF_CAP_S: Final = 60.0
BACKOFF_HEALTHY_AFTER_S: Final = 60.0
# Nodes reconnect on purpose, which spreads the load over controllers.
RECONNECT_EVERY_S: Final = 3600.0
RECONNECT_JITTER_S: Final = 600.0

# A peer that has not sent its handshake by then is disconnected.
NODE_HANDSHAKE_TIMEOUT_S: Final = 10.0
# A half-open TCP connection is noticed by a ping without response, after half of this again.
NODE_PING_INTERVAL_S: Final = 20.0
# A peer that does not read for this long is disconnected.
NODE_SEND_TIMEOUT_S: Final = 10.0

# A connection to a controller that has not sent a whole request head by then is closed.
REQUEST_HEAD_TIMEOUT_S: Final = 10.0

# How long a proxy that orders its cluster's certificate may continue after its last step; then another proxy may order.
CERTIFICATE_LEASE_S: Final = 60.0

# A certificate is renewed this long before its end, or after two thirds of its life if that is later.
CERTIFICATE_RENEWAL_WINDOW_S: Final = 30 * 86400.0
# The wait after a failed order; it grows. Let's Encrypt allows five failures an hour.
CERTIFICATE_FAILURE_FIRST_S: Final = 30.0
CERTIFICATE_FAILURE_FACTOR: Final = 4.0
CERTIFICATE_FAILURE_CAP_S: Final = 3600.0
# How often a proxy checks whether a certificate is due: the machine's clock can jump in between.
CERTIFICATE_POLL_INTERVAL_S: Final = 60.0
# A controller's response to a request about the certificate.
CONTROLLER_RESPONSE_TIMEOUT_S: Final = 10.0
# Until the value of a challenge is visible, and for each step of an order. A challenge needs both within the lease.
TXT_VISIBLE_TIMEOUT_S: Final = 20.0
ACME_STEP_TIMEOUT_S: Final = 35.0
ACME_POLL_INTERVAL_S: Final = 0.5
TXT_POLL_INTERVAL_S: Final = 0.5
TXT_QUERY_TIMEOUT_S: Final = 2.0
# The wait where the zone's name servers cannot be found. Longer than a value is cached.
TXT_FIXED_WAIT_S: Final = 5.0
# How often a CA is queried for the time of a renewal, and the shortest interval it may set (RFC 9773, section 4.3).
RENEWAL_INFO_INTERVAL_S: Final = 6 * 3600.0
RENEWAL_INFO_MIN_INTERVAL_S: Final = 60.0

# How long a DNS server waits for a controller's response, and caches it: a value is new with each order.
TXT_RESPONSE_TIMEOUT_S: Final = 5.0
TXT_CACHE_TTL_S: Final = 1.0
# A TCP connection of a resolver without a query for this long is closed (RFC 7766, section 6.2.3).
DNS_TCP_IDLE_TIMEOUT_S: Final = 10.0

# Requests in flight when a controller, or a proxy, receives the signal to stop.
CONTROLLER_SHUTDOWN_GRACE_S: Final = 2.0
PROXY_SHUTDOWN_GRACE_S: Final = 10.0

# Not durations, but of the same kind: attempts at a key when a race is lost, and rows of one page of a replay.
CONNECT_ATTEMPTS: Final = 3
EVENT_REPLAY_PAGE: Final = 100
