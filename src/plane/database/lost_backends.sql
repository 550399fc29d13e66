-- name: try_reaper_lock
-- Only one controller reaps at a time: true if this transaction got the lock $1, or if that is held by a transaction that
-- began more than $2 seconds ago. The lock only saves work.
SELECT pg_try_advisory_xact_lock($1) OR EXISTS (
    SELECT FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database()
        AND l.classid = ($1::bigint >> 32)::oid AND l.objid = ($1::bigint & 4294967295)::oid
        AND a.xact_start < now() - make_interval(secs => $2)
) AS mine;

-- name: suspect_backends
-- Up to $4 backends that are not terminated, and whose drone has been silent for more than $1 seconds, or that have
-- been scheduled for more than $2 seconds, or whose key is missing or has been expired for $5 seconds without a hard
-- termination order in the last $6 seconds. $3: seconds from a key's hard deadline on the drone to its expiry. Backends
-- that may be lost come first. Locked ones are skipped, and the others locked.
WITH clock AS (
    SELECT plane_now() AS now
), drones AS (
    SELECT drone.id, coalesce(drone.last_heartbeat, node.last_connection_start_time, 'epoch') AS last_seen
    FROM drone JOIN node ON node.id = drone.id
), suspect AS (
    SELECT b.id FROM drones JOIN backend b ON b.drone_id = drones.id
    WHERE drones.last_seen < (SELECT now FROM clock) - make_interval(secs => $1) AND b.last_status <> 'terminated'
    UNION
    SELECT id FROM backend
    WHERE last_status = 'scheduled' AND last_status_time < (SELECT now FROM clock) - make_interval(secs => $2)
    UNION
    SELECT b.id FROM drones JOIN backend b ON b.drone_id = drones.id
    LEFT JOIN backend_key k ON k.id = b.id
    WHERE b.last_status <> 'terminated'
        AND coalesce(k.expires_at < (SELECT now FROM clock) - make_interval(secs => $5), true)
        AND NOT EXISTS (
            SELECT FROM backend_action a WHERE a.backend_id = b.id
                AND a.action #>> '{action,Terminate,kind}' = 'hard' AND a.created_at > now() - make_interval(secs => $6)
        )
)
SELECT b.id, b.drone_id, b.last_status,
    extract(epoch FROM (SELECT now FROM clock) - drones.last_seen)::float8 AS drone_silent_s,
    extract(epoch FROM (SELECT now FROM clock) - b.last_status_time)::float8 AS in_status_s,
    coalesce(k.expires_at - make_interval(secs => $3) < (SELECT now FROM clock), true) AS past_hard_deadline,
    coalesce(k.expires_at < (SELECT now FROM clock) - make_interval(secs => $5), true) AS key_gone,
    EXISTS (
        SELECT FROM backend_action a
        WHERE a.backend_id = b.id AND a.action -> 'action' ? 'Spawn' AND a.acked_at IS NOT NULL
    ) AS spawn_acknowledged,
    (
        SELECT extract(epoch FROM (SELECT now FROM clock) - min(a.created_at))::float8 FROM backend_action a
        WHERE a.backend_id = b.id AND a.action #>> '{action,Terminate,reason}' = 'lost'
    ) AS end_ordered_s
FROM suspect
JOIN backend b ON b.id = suspect.id
JOIN drones ON drones.id = b.drone_id
LEFT JOIN backend_key k ON k.id = b.id
ORDER BY drones.last_seen, past_hard_deadline DESC, spawn_acknowledged DESC
LIMIT $4 FOR NO KEY UPDATE OF b SKIP LOCKED;

-- name: resend_spawn_actions
-- Marks the spawn actions of backends $1 as unacknowledged and notifies their drones' controllers again.
WITH again AS (
    UPDATE backend_action SET acked_at = NULL
    WHERE backend_id = ANY ($1::text[]) AND action -> 'action' ? 'Spawn'
    RETURNING drone_id, action
)
SELECT plane_emit('backend_action', drone_id::text, action) AS event FROM again;
