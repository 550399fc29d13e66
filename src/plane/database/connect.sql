-- name: reuse_keys
-- The only statement of connects whose keys are held: returns the live holder of each key ($1[i] namespace, $2[i] name).
-- A holder with the tag $3[i] and no static token gets the dynamic token $4[i] (secret $5[i], user $6[i], auth $7[i])
-- for $8 seconds. There is no row for a key without a live holder, or whose holder is terminated.
WITH held AS (
    SELECT query.*, k.id, k.tag, b.cluster, b.last_status, b.static_token, b.subdomain
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::jsonb[])
        WITH ORDINALITY AS query (namespace, key_name, wanted_tag, token, secret_token, username, auth, place)
    JOIN backend_key k ON k.namespace = query.namespace AND k.key_name = query.key_name AND k.expires_at > now()
    JOIN backend b ON b.id = k.id AND b.last_status <> 'terminated'
), issued AS (
    INSERT INTO token (token, backend_id, expiration_time, username, auth, secret_token)
    SELECT token, id, now() + make_interval(secs => $8), username, auth, secret_token
    FROM held WHERE tag = wanted_tag AND static_token IS NULL
)
SELECT place, id, tag, cluster, last_status, static_token, subdomain FROM held;

-- name: look_up_keys
-- The first statement of connects: returns the holder of each key ($1[i] namespace, $2[i] name), if any. A live holder
-- with the tag $3[i] and no static token gets the dynamic token $4[i] (secret $5[i], user $6[i], auth $7[i]) for $8
-- seconds. An expired holder's row is deleted if it is still expired. The first row also has, for each of the clusters
-- $9 and pools $10 in which a request without a live holder may spawn ($11[i] is the index of its pair), up to $12 random
-- drones that may take a new backend, with heartbeats of drone and controller within $13 seconds. At most $14 backends
-- of a drone are counted. Expiry is decided by `plane_now`, since the database's clock may have stepped forward.
WITH clock AS (
    SELECT plane_now() AS now
), held AS (
    SELECT query.*, holder.*
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $11::int[])
        WITH ORDINALITY AS query (namespace, key_name, wanted_tag, token, secret_token, username, auth, wants, place)
    LEFT JOIN LATERAL (
        SELECT k.id, k.tag, k.expires_at > (SELECT now FROM clock) AS live, extract(epoch FROM k.expires_at - now())::float8 AS lease_left_s,
            b.cluster, b.last_status, b.static_token, b.subdomain
        FROM backend_key k JOIN backend b ON b.id = k.id
        WHERE k.namespace = query.namespace AND k.key_name = query.key_name
        LIMIT 1
    ) holder ON true
), issued AS (
    INSERT INTO token (token, backend_id, expiration_time, username, auth, secret_token)
    SELECT token, id, now() + make_interval(secs => $8), username, auth, secret_token
    FROM held WHERE live AND tag = wanted_tag AND static_token IS NULL AND last_status <> 'terminated'
), expired AS (
    SELECT id FROM backend_key WHERE id = ANY (ARRAY(SELECT id FROM held WHERE NOT live))
        AND expires_at <= (SELECT now FROM clock)
    ORDER BY id FOR UPDATE
), removed AS (
    DELETE FROM backend_key WHERE id = ANY (ARRAY(SELECT id FROM expired))
    RETURNING id, fencing_token
), fit AS (
    SELECT wanted.place AS wanted, drone.*
    FROM unnest($9::text[], $10::text[]) WITH ORDINALITY AS wanted (cluster, pool, place)
    CROSS JOIN LATERAL (
        SELECT drone.id, node.name, floor(extract(epoch FROM drone.last_local_time) * 1000)::bigint AS local_time,
            drone.plane_clock AS clock
        FROM drone
        JOIN node ON node.id = drone.id
        JOIN controller ON controller.id = node.controller
        WHERE drone.ready AND NOT drone.draining
            AND node.cluster = wanted.cluster AND drone.pool = wanted.pool
            AND drone.last_local_time IS NOT NULL
            AND drone.last_heartbeat > (SELECT now FROM clock) - make_interval(secs => $13)
            AND controller.is_online
            AND controller.last_heartbeat > (SELECT now FROM clock) - make_interval(secs => $13)
        ORDER BY random()
        LIMIT $12
    ) drone
    WHERE wanted.place = ANY (ARRAY(SELECT wants FROM held WHERE live IS NOT TRUE))
)
SELECT
    held.id, held.tag, held.live, held.lease_left_s, held.cluster, held.last_status, held.static_token, held.subdomain,
    held.id IN (SELECT id FROM removed) AS removed,
    floor(extract(epoch FROM now()) * 1000)::bigint AS db_now,
    CASE WHEN held.live IS NOT TRUE THEN (SELECT plane_may_grant()) ELSE true END AS may_grant,
    CASE WHEN held.live IS NOT TRUE THEN greatest(
        (SELECT fencing_token FROM plane_key_fencing f WHERE f.namespace = held.namespace AND f.key_name = held.key_name),
        (SELECT fencing_token FROM removed WHERE removed.id = held.id)
    ) END AS last_fencing_token,
    CASE WHEN held.place = 1 THEN (
        SELECT jsonb_agg(jsonb_build_object(
            'wanted', fit.wanted, 'id', fit.id, 'name', fit.name, 'local_time', fit.local_time, 'clock', fit.clock,
            'backend_count', (
                SELECT count(*) FROM (
                    SELECT FROM backend b WHERE b.drone_id = fit.id AND b.last_status <> 'terminated' LIMIT $14
                ) counted
            )
        ))
        FROM fit
    ) END AS drones
FROM held
ORDER BY place;

-- name: spawn_backends
-- The second statement of connects with new keys: stores each request's backend, key, first state, spawn action and
-- token, all or none of them. Returns the ids of the stored backends. A backend is not stored if another request took
-- the key concurrently or was given an equal or higher fencing token, if no keys are granted now, if the drone drains, or
-- if it has connected again since its clock read $23[i] (milliseconds since the epoch), the start of the lease. A unique
-- violation means that a backend's id exists. Rows are sorted by key, so that controllers cannot deadlock.
WITH given AS (
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::int[], $4::int[], $5::int[], $6::text[], $7::text[], $8::text[], $9::bigint[], $10::bool[],
        $11::text[], $12::text[], $13::text[], $14::jsonb[], $15::text[], $16::text[], $17::text[], $18::jsonb[],
        $23::bigint[], $24::bool[], $25::bool[]
    ) AS given (
        backend_id, cluster, drone_id, lifetime_s, idle_s, namespace, key_name, tag, fencing_token, key_is_random,
        static_token, subdomain, action_id, action, token, secret_token, username, auth, leased_at,
        rewrite_prefix, token_in_cookie
    )
    WHERE (SELECT plane_may_grant()) AND EXISTS (
        SELECT FROM drone WHERE drone.id = given.drone_id AND drone.ready AND NOT drone.draining
            AND drone.last_local_time >= to_timestamp(given.leased_at / 1000.0)
    )
), fenced AS (
    INSERT INTO plane_key_fencing (namespace, key_name, fencing_token)
    SELECT namespace, key_name, fencing_token FROM given WHERE NOT key_is_random
    ON CONFLICT (namespace, key_name) DO UPDATE SET fencing_token = excluded.fencing_token
        WHERE plane_key_fencing.fencing_token < excluded.fencing_token
    RETURNING namespace, key_name
), new_key AS (
    INSERT INTO backend_key (id, namespace, key_name, tag, expires_at, fencing_token)
    SELECT backend_id, namespace, key_name, tag, now() + make_interval(secs => $19), fencing_token
    FROM given WHERE key_is_random OR (namespace, key_name) IN (SELECT namespace, key_name FROM fenced)
    ON CONFLICT (namespace, key_name) DO NOTHING
    RETURNING id
), new AS (
    SELECT given.* FROM given JOIN new_key ON new_key.id = given.backend_id
), new_backend AS (
    INSERT INTO backend (
        id, cluster, last_status, last_status_number, last_status_time, drone_id, expiration_time,
        last_keepalive, allowed_idle_seconds, state, static_token, subdomain, plane_rewrite_prefix, plane_token_in_cookie,
        plane_user
    )
    SELECT backend_id, cluster, 'scheduled', $20, now(), drone_id, now() + make_interval(secs => lifetime_s),
        now(), idle_s, $21::jsonb, static_token, subdomain, rewrite_prefix, token_in_cookie, username
    FROM new
), new_state AS (
    INSERT INTO backend_state (backend_id, state) SELECT backend_id, $21 FROM new
), new_action AS (
    INSERT INTO backend_action (id, backend_id, drone_id, action) SELECT action_id, backend_id, drone_id, action FROM new
), new_token AS (
    INSERT INTO token (token, backend_id, expiration_time, username, auth, secret_token)
    SELECT token, backend_id, now() + make_interval(secs => $22), username, auth, secret_token
    FROM new WHERE static_token IS NULL
)
SELECT backend_id, plane_emit('backend_state', backend_id, $21) AS state_event,
    plane_emit('backend_action', drone_id::text, action) AS action_event
FROM new;
