-- name: record_states
-- Stores new states, in order: backend $1[i] has the status $2[i] (number $3[i], address $4[i], whole state $5[i]). Only
-- states by which the status rises are stored and emitted; returns their indexes. A terminated backend frees its key, but
-- if its end is not certain ($6[i]), the key expires with its current lease. Rows are locked in the order of their ids, so
-- that controllers cannot deadlock.
WITH given AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::jsonb[], $6::bool[])
        WITH ORDINALITY AS given (id, status, number, address, state, uncertain, place)
), known AS (
    SELECT id, coalesce(last_status_number, 0) AS number FROM backend
    WHERE id = ANY ($1::text[]) ORDER BY id FOR NO KEY UPDATE
), risen AS (
    SELECT later.* FROM (
        SELECT given.*, max(number) OVER (
            PARTITION BY id ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS number_before
        FROM given
    ) later
    JOIN known ON known.id = later.id
    WHERE later.number > greatest(known.number, later.number_before)
    ORDER BY place
), latest AS (
    SELECT DISTINCT ON (id) * FROM risen ORDER BY id, place DESC
), updated AS (
    UPDATE backend SET last_status = latest.status, last_status_number = latest.number, last_status_time = now(),
        cluster_address = latest.address, state = latest.state
    FROM latest WHERE backend.id = latest.id
), recorded AS (
    INSERT INTO backend_state (backend_id, state) SELECT id, state FROM risen ORDER BY place
), freed AS (
    DELETE FROM backend_key USING latest WHERE backend_key.id = latest.id AND latest.status = 'terminated'
        AND (NOT latest.uncertain OR backend_key.expires_at <= (SELECT plane_now()))
), expiring AS (
    UPDATE backend_key SET allow_renew = false FROM latest
    WHERE backend_key.id = latest.id AND latest.status = 'terminated'
        AND latest.uncertain AND backend_key.expires_at > (SELECT plane_now())
)
SELECT place, plane_emit('backend_state', id, state) AS event FROM risen ORDER BY place;

-- name: backend_state_now
-- The current state of backend $1, when it was stored, and the drone.
SELECT state, floor(extract(epoch FROM last_status_time) * 1000)::bigint AS time, drone_id
FROM backend WHERE id = $1;

-- name: backend_state_history
-- All states of backend $1, oldest first.
SELECT state, floor(extract(epoch FROM created_at) * 1000)::bigint AS time
FROM backend_state WHERE backend_id = $1 ORDER BY id;

-- name: keep_alive
-- Backends $1 are in use. Returns those that are known and not terminated.
WITH known AS (
    SELECT id FROM backend WHERE id = ANY ($1::text[]) AND last_status <> 'terminated' ORDER BY id FOR NO KEY UPDATE
)
UPDATE backend SET last_keepalive = now() FROM known WHERE backend.id = known.id
RETURNING backend.id;

-- name: backends_to_sweep
-- Backends of drones $1 that exceed their idle time or lifetime in less than $3 seconds, with the seconds until then
-- (negative: overdue). Excludes backends that are terminating (status number $2) or have a pending order to. Idle times
-- below $4 seconds count as $4, since keepalives of a backend in use are no more frequent.
SELECT id, drone_id, due_in_s FROM (
    SELECT b.id, b.drone_id, extract(epoch FROM least(
        b.expiration_time,
        b.last_keepalive + make_interval(secs => greatest(b.allowed_idle_seconds, CASE
            WHEN b.allowed_idle_seconds IS NOT NULL THEN $4::float8 END))
    ) - (SELECT plane_now()))::float8 AS due_in_s
    FROM backend b
    WHERE b.drone_id = ANY ($1::int[])
        AND b.last_status <> 'terminated'
        AND coalesce(b.last_status_number, 0) < $2
        AND (b.expiration_time IS NOT NULL OR b.allowed_idle_seconds IS NOT NULL)
) candidate
WHERE due_in_s < $3
    AND NOT EXISTS (
        SELECT FROM backend_action a
        WHERE a.backend_id = candidate.id AND a.drone_id = candidate.drone_id AND a.acked_at IS NULL
            AND a.action -> 'action' ? 'Terminate'
    );

-- name: routes_of_tokens
-- The backends of connection tokens $1, dynamic or static (with the prefix s.), and how long a dynamic token is still
-- valid. No row for a token that is unknown or expired.
SELECT given.place, route.*
FROM unnest($1::text[]) WITH ORDINALITY AS given (token, place)
CROSS JOIN LATERAL (
    SELECT b.id, b.cluster_address, b.last_status_number, b.cluster, b.subdomain,
        b.plane_rewrite_prefix, b.plane_token_in_cookie, t.secret_token, t.username, t.auth,
        floor(extract(epoch FROM t.expiration_time - now()) * 1000)::bigint AS expires_in_ms
    FROM token t JOIN backend b ON b.id = t.backend_id
    WHERE t.token = given.token AND t.expiration_time > (SELECT plane_now()) AND NOT starts_with(given.token, 's.')
    UNION ALL
    SELECT b.id, b.cluster_address, b.last_status_number, b.cluster, b.subdomain,
        b.plane_rewrite_prefix, b.plane_token_in_cookie, '', NULL, NULL, NULL
    FROM backend b
    WHERE b.static_token = given.token AND starts_with(given.token, 's.')
    ORDER BY last_status_number
    LIMIT 1
) route;

-- name: publish_metrics
-- Publishes the metrics $2[i] of backend $1[i]; nothing is stored.
SELECT pg_notify('plane_backend_metrics', jsonb_build_object(
    'kind', 'backend_metrics', 'key', id, 'timestamp', now(), 'payload', metrics
)::text)
FROM unnest($1::text[], $2::jsonb[]) AS given (id, metrics);
