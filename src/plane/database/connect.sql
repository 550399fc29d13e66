-- name: look_up_key
-- Connect, first trip: who holds the key ($1 namespace, $2 name)? If a live holder has the tag $3 and no static
-- token, it gets the dynamic token $4. An expired holder's row is deleted, if it is still expired. Without a live
-- holder, up to $9 random drones that may take a new backend in cluster $7 and pool $8 (none if $7 is null).
WITH held AS (
    SELECT k.id, k.tag, k.expires_at > now() AS live,
        b.cluster, b.last_status, b.static_token, b.subdomain
    FROM backend_key k JOIN backend b ON b.id = k.id
    WHERE k.namespace = $1 AND k.key_name = $2
), issued AS (
    INSERT INTO token (token, backend_id, expiration_time, username, auth, secret_token)
    SELECT $4, held.id, now() + make_interval(secs => $10), $5, $6, $11
    FROM held
    WHERE held.live AND held.tag = $3 AND held.static_token IS NULL
), removed AS (
    DELETE FROM backend_key
    WHERE namespace = $1 AND key_name = $2 AND expires_at <= now()
    RETURNING fencing_token
)
SELECT
    held.*,
    EXISTS (SELECT FROM removed) AS removed,
    floor(extract(epoch FROM now()) * 1000)::bigint AS db_now,
    greatest(
        (SELECT fencing_token FROM plane_key_fencing WHERE namespace = $1 AND key_name = $2),
        (SELECT fencing_token FROM removed)
    ) AS last_fencing_token,
    CASE WHEN $7::text IS NOT NULL AND NOT coalesce(held.live, false) THEN (
        SELECT jsonb_agg(jsonb_build_object(
            'id', fit.id, 'name', fit.name, 'local_time', fit.local_time, 'backend_count', (
                SELECT count(*) FROM backend b WHERE b.drone_id = fit.id AND b.last_status <> 'terminated'
            )
        ))
        FROM (
            SELECT drone.id, node.name, floor(extract(epoch FROM drone.last_local_time) * 1000)::bigint AS local_time
            FROM drone
            JOIN node ON node.id = drone.id
            JOIN controller ON controller.id = node.controller
            WHERE drone.ready AND NOT drone.draining
                AND node.cluster = $7 AND drone.pool = $8
                AND drone.last_local_time IS NOT NULL
                AND drone.last_heartbeat > now() - make_interval(secs => $12)
                AND controller.is_online
                AND controller.last_heartbeat > now() - make_interval(secs => $12)
            ORDER BY random()
            LIMIT $9
        ) fit
    ) END AS drones
FROM (SELECT) one LEFT JOIN held ON true;

-- name: spawn_backend
-- Connect, second trip: the backend, its key, its first state, its spawn action and its token, all or nothing.
-- No row: the fencing token $10 is not above one given meanwhile. A unique violation on idx_namespace_name: another
-- connect took the key; on backend_pkey: the id exists.
WITH fenced AS (
    INSERT INTO plane_key_fencing (namespace, key_name, fencing_token)
    SELECT $7, $8, $10 WHERE $11
    ON CONFLICT (namespace, key_name) DO UPDATE SET fencing_token = excluded.fencing_token
        WHERE plane_key_fencing.fencing_token < excluded.fencing_token
    RETURNING fencing_token
), go AS (
    SELECT FROM fenced UNION ALL SELECT WHERE NOT $11
), new_backend AS (
    INSERT INTO backend (
        id, cluster, last_status, last_status_number, last_status_time, drone_id, expiration_time,
        last_keepalive, allowed_idle_seconds, state, static_token, subdomain
    )
    SELECT $1, $2, 'scheduled', $20, now(), $3::int, now() + make_interval(secs => $4), now(), $5, $6, $12, $13
    FROM go
    RETURNING id
), new_key AS (
    INSERT INTO backend_key (id, namespace, key_name, tag, expires_at, fencing_token)
    SELECT id, $7, $8, $9, now() + make_interval(secs => $14), $10 FROM new_backend
), new_state AS (
    INSERT INTO backend_state (backend_id, state) SELECT id, $6 FROM new_backend
), new_action AS (
    INSERT INTO backend_action (id, backend_id, drone_id, action)
    SELECT $15, id, $3::int, $16 FROM new_backend
), new_token AS (
    INSERT INTO token (token, backend_id, expiration_time, username, auth, secret_token)
    SELECT $17, id, now() + make_interval(secs => $21), $18, $19, $22 FROM new_backend WHERE $12::text IS NULL
)
SELECT id, plane_emit('backend_state', id, $6) AS state_event, plane_emit('backend_action', $3::int::text, $16) AS action_event
FROM new_backend;
