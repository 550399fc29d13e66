-- name: record_state
-- A drone's event: backend $1 has entered $2 (number $3, address $4, whole state $5). Nothing happens unless the
-- status rises. A terminated backend frees its key. No row: unknown backend, or no rise.
WITH risen AS (
    UPDATE backend
    SET last_status = $2, last_status_number = $3, last_status_time = now(), cluster_address = $4, state = $5
    WHERE id = $1 AND coalesce(last_status_number, 0) < $3
    RETURNING id
), recorded AS (
    INSERT INTO backend_state (backend_id, state) SELECT id, $5 FROM risen
), freed AS (
    DELETE FROM backend_key WHERE id IN (SELECT id FROM risen) AND $2 = 'terminated'
)
SELECT plane_emit('backend_state', id, $5) AS event FROM risen;

-- name: backend_state_now
-- The state of backend $1, and when the database heard of it.
SELECT state, floor(extract(epoch FROM last_status_time) * 1000)::bigint AS time, drone_id
FROM backend WHERE id = $1;

-- name: backend_state_history
-- All states that backend $1 has had, oldest first.
SELECT state, floor(extract(epoch FROM created_at) * 1000)::bigint AS time
FROM backend_state WHERE backend_id = $1 ORDER BY id;

-- name: keep_alive
-- Backend $1 is in use. No row: it is unknown or terminated.
UPDATE backend SET last_keepalive = now()
WHERE id = $1 AND last_status <> 'terminated'
RETURNING id;

-- name: backends_to_sweep
-- Backends of drone $1 that will be idle for too long, or past their lifetime, in less than $3 seconds, and in how
-- many (negative: they are so already). Not those that end already (status number $2) or were ordered to. An idle
-- time shorter than $4 seconds counts as that, since keepalives of one in use come no more often.
SELECT id, due_in_s FROM (
    SELECT b.id, extract(epoch FROM least(
        b.expiration_time,
        b.last_keepalive + make_interval(secs => greatest(b.allowed_idle_seconds, CASE
            WHEN b.allowed_idle_seconds IS NOT NULL THEN $4::float8 END))
    ) - now())::float8 AS due_in_s
    FROM backend b
    WHERE b.drone_id = $1
        AND b.last_status <> 'terminated'
        AND coalesce(b.last_status_number, 0) < $2
        AND (b.expiration_time IS NOT NULL OR b.allowed_idle_seconds IS NOT NULL)
) candidate
WHERE due_in_s < $3
    AND NOT EXISTS (
        SELECT FROM backend_action a
        WHERE a.backend_id = candidate.id AND a.drone_id = $1 AND a.acked_at IS NULL
            AND a.action -> 'action' ? 'Terminate'
    );

-- name: route_of_token
-- Where connection token $1 leads, dynamic or static, and for how long a dynamic one still opens connections.
SELECT b.id, b.cluster_address, b.last_status_number, b.cluster, b.subdomain,
    t.secret_token, t.username, t.auth,
    floor(extract(epoch FROM t.expiration_time - now()) * 1000)::bigint AS expires_in_ms
FROM token t JOIN backend b ON b.id = t.backend_id
WHERE t.token = $1 AND t.expiration_time > now() AND NOT $2::bool
UNION ALL
SELECT b.id, b.cluster_address, b.last_status_number, b.cluster, b.subdomain, '', NULL, NULL, NULL
FROM backend b
WHERE b.static_token = $1 AND $2::bool
ORDER BY last_status_number
LIMIT 1;

-- name: publish_metrics
-- Metrics $2 of backend $1 go to whoever listens; nothing is stored.
SELECT pg_notify('plane_backend_metrics', jsonb_build_object(
    'kind', 'backend_metrics', 'key', $1::text, 'timestamp', now(), 'payload', $2::jsonb
)::text);
