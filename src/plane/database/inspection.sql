-- name: list_backends
-- Up to $5 backends, the latest change first, of cluster $1, with status $2, spawned for the key named $3 in namespace
-- $4 on drone $6; null matches any. The status may also be 'live' (all but terminated) or 'all'. Of terminated ones only
-- the latest $7 are read: there may be millions, and their keys have no index.
SELECT page.id, page.cluster, page.last_status AS status, page.drone_id, node.name AS drone, drone.pool,
    floor(extract(epoch FROM page.last_status_time) * 1000)::bigint AS since,
    floor(extract(epoch FROM now() - page.last_keepalive))::bigint AS quiet_s,
    spawn.key
FROM (
    (
        SELECT b.id, b.cluster, b.last_status, b.drone_id, b.last_status_time, b.last_keepalive
        FROM backend b
        JOIN node ON node.id = b.drone_id
        LEFT JOIN LATERAL (
            SELECT a.action #> '{action,Spawn,key,key}' AS key FROM backend_action a
            WHERE ($3::text IS NOT NULL OR $4::text IS NOT NULL) AND a.backend_id = b.id AND a.action -> 'action' ? 'Spawn'
            ORDER BY a.created_at LIMIT 1
        ) spawn ON true
        WHERE b.last_status <> 'terminated' AND $2::text <> 'terminated'
            AND ($2::text IN ('live', 'all') OR b.last_status = $2)
            AND ($1::text IS NULL OR b.cluster = $1) AND ($6::text IS NULL OR node.name = $6)
            AND ($3::text IS NULL OR spawn.key ->> 'name' = $3)
            AND ($4::text IS NULL OR spawn.key ->> 'namespace' = $4)
        ORDER BY b.last_status_time DESC, b.id
        LIMIT $5
    )
    UNION ALL
    (
        SELECT ended.id, ended.cluster, ended.last_status, ended.drone_id, ended.last_status_time, ended.last_keepalive
        FROM (
            SELECT * FROM backend b
            WHERE b.last_status = 'terminated' AND $2::text IN ('all', 'terminated')
            ORDER BY b.last_status_time DESC
            LIMIT $7
        ) ended
        JOIN node ON node.id = ended.drone_id
        LEFT JOIN LATERAL (
            SELECT a.action #> '{action,Spawn,key,key}' AS key FROM backend_action a
            WHERE ($3::text IS NOT NULL OR $4::text IS NOT NULL) AND a.backend_id = ended.id
                AND a.action -> 'action' ? 'Spawn'
            ORDER BY a.created_at LIMIT 1
        ) spawn ON true
        WHERE ($1::text IS NULL OR ended.cluster = $1) AND ($6::text IS NULL OR node.name = $6)
            AND ($3::text IS NULL OR spawn.key ->> 'name' = $3)
            AND ($4::text IS NULL OR spawn.key ->> 'namespace' = $4)
        ORDER BY ended.last_status_time DESC, ended.id
        LIMIT $5
    )
    ORDER BY last_status_time DESC, id
    LIMIT $5
) page
JOIN drone ON drone.id = page.drone_id
JOIN node ON node.id = page.drone_id
LEFT JOIN LATERAL (
    SELECT a.action #> '{action,Spawn,key,key}' AS key FROM backend_action a
    WHERE a.backend_id = page.id AND a.action -> 'action' ? 'Spawn'
    ORDER BY a.created_at LIMIT 1
) spawn ON true
ORDER BY page.last_status_time DESC, page.id;

-- name: terminated_after
-- The terminated backend after the latest $1, if there are more.
SELECT id FROM backend WHERE last_status = 'terminated' ORDER BY last_status_time DESC OFFSET $1::bigint LIMIT 1;

-- name: inspect_backend
-- Everything that is stored of backend $1.
SELECT b.id, b.cluster, b.last_status AS status, node.name AS drone, drone.pool, b.cluster_address AS address,
    b.subdomain, b.static_token IS NOT NULL AS static_token, b.allowed_idle_seconds AS max_idle_s,
    floor(extract(epoch FROM b.last_status_time) * 1000)::bigint AS since,
    floor(extract(epoch FROM now() - b.last_keepalive))::bigint AS quiet_s,
    floor(extract(epoch FROM b.expiration_time - now()))::bigint AS lifetime_ends_in_s,
    k.fencing_token, floor(extract(epoch FROM k.expires_at - now()))::bigint AS lease_ends_in_s,
    (SELECT a.action #> '{action,Spawn,key,key}' FROM backend_action a
        WHERE a.backend_id = b.id AND a.action -> 'action' ? 'Spawn' ORDER BY a.created_at LIMIT 1) AS key,
    (SELECT count(*) FROM token t WHERE t.backend_id = b.id AND t.expiration_time > now()) AS tokens,
    (SELECT count(*) FROM backend_action a WHERE a.backend_id = b.id AND a.acked_at IS NULL) AS pending_actions
FROM backend b
JOIN drone ON drone.id = b.drone_id
JOIN node ON node.id = drone.id
LEFT JOIN backend_key k ON k.id = b.id
WHERE b.id = $1;

-- name: list_nodes
-- Up to $3 nodes of cluster $1 (null: all), connected ones first; with $2 also disconnected ones.
SELECT node.id, node.kind, node.name, node.cluster, node.controller, node.plane_version, node.plane_hash,
    host(node.ip) AS ip, drone.ready, drone.draining, drone.pool,
    floor(extract(epoch FROM now() - node.last_connection_start_time))::bigint AS connected_s,
    floor(extract(epoch FROM now() - drone.last_heartbeat))::bigint AS heartbeat_age_s,
    CASE WHEN drone.id IS NOT NULL THEN (
        SELECT count(*) FROM backend b WHERE b.drone_id = drone.id AND b.last_status <> 'terminated'
    ) END AS backends
FROM node LEFT JOIN drone ON drone.id = node.id
WHERE ($1::text IS NULL OR node.cluster = $1) AND ($2::bool OR node.controller IS NOT NULL)
ORDER BY node.controller IS NULL, node.cluster NULLS LAST, node.kind, node.name
LIMIT $3;

-- name: drone_id
-- The node id of drone $2 in cluster $1.
SELECT node.id FROM node JOIN drone ON drone.id = node.id WHERE node.cluster = $1 AND node.name = $2;

-- name: termination_candidates
-- Backends of drone $1 that are not terminated and exceed their idle time or lifetime in less than $2 seconds: the
-- seconds until then (negative: overdue), and the seconds since the first order to terminate them. Idle times below $3
-- seconds count as $3; see backends_to_sweep.
SELECT candidate.id, candidate.last_status, candidate.due_in_s, sent.ordered_s, coalesce(sent.acknowledged, false) AS acknowledged
FROM (
    SELECT b.id, b.drone_id, b.last_status, extract(epoch FROM least(
        b.expiration_time,
        b.last_keepalive + make_interval(secs => greatest(b.allowed_idle_seconds, CASE
            WHEN b.allowed_idle_seconds IS NOT NULL THEN $3::float8 END))
    ) - (SELECT plane_now()))::float8 AS due_in_s
    FROM backend b
    WHERE b.drone_id = $1 AND b.last_status <> 'terminated'
        AND (b.expiration_time IS NOT NULL OR b.allowed_idle_seconds IS NOT NULL)
) candidate
CROSS JOIN LATERAL (
    SELECT extract(epoch FROM now() - min(a.created_at))::float8 AS ordered_s, bool_or(a.acked_at IS NOT NULL) AS acknowledged
    FROM backend_action a
    WHERE a.backend_id = candidate.id AND a.drone_id = candidate.drone_id AND a.action -> 'action' ? 'Terminate'
) sent
WHERE candidate.due_in_s < $2
ORDER BY candidate.due_in_s, candidate.id;
