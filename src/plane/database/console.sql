-- name: session_secret
-- The secret of the console's sessions.
SELECT session_secret FROM plane_console WHERE one;

-- name: status_counts
-- How many backends of each cluster are in each status, except terminated ones.
SELECT cluster, last_status AS status, count(*) AS number FROM backend
WHERE last_status <> 'terminated'
GROUP BY cluster, last_status
ORDER BY cluster, last_status;

-- name: pending_actions
-- How many orders no drone has acknowledged, and the age of the oldest in seconds (null: there is none).
SELECT count(*) AS number, floor(extract(epoch FROM now() - min(created_at)))::bigint AS oldest_s
FROM backend_action WHERE acked_at IS NULL;

-- name: page_of_backends
-- Up to $8 backends, the latest change first, with status $1 ('live': all but terminated; 'all'), of cluster $2 and on
-- drone $3 ('': any), whose key's name contains $4 or whose id begins with it ('': any), after the row with the status
-- time $5 (microseconds since 1970; null: from the start) and the id $6. Of terminated ones, a search reads the
-- latest $7 only: their keys have no index.
SELECT page.id, page.cluster, page.status, page.since_us, node.name AS drone, drone.pool, page.state,
    coalesce(k.key_name, spawn.key ->> 'name') AS key_name, coalesce(k.namespace, spawn.key ->> 'namespace') AS namespace
FROM (
    (
        SELECT b.id, b.cluster, b.last_status AS status, b.drone_id, b.state, b.last_status_time,
            (extract(epoch FROM b.last_status_time) * 1000000)::bigint AS since_us
        FROM backend b
        JOIN node ON node.id = b.drone_id
        LEFT JOIN backend_key k ON k.id = b.id
        WHERE b.last_status <> 'terminated' AND $1::text <> 'terminated'
            AND ($1::text IN ('live', 'all') OR b.last_status = $1)
            AND ($2::text = '' OR b.cluster = $2) AND ($3::text = '' OR node.name = $3)
            AND ($4::text = '' OR starts_with(b.id, $4) OR position(lower($4) IN lower(k.key_name)) > 0)
            AND ($5::bigint IS NULL
                OR (b.last_status_time, b.id) < (timestamptz 'epoch' + $5 * interval '1 microsecond', $6::text))
        ORDER BY b.last_status_time DESC, b.id DESC
        LIMIT $8
    )
    UNION ALL
    (
        SELECT ended.id, ended.cluster, ended.last_status, ended.drone_id, ended.state, ended.last_status_time,
            (extract(epoch FROM ended.last_status_time) * 1000000)::bigint
        FROM (
            SELECT * FROM backend b
            WHERE b.last_status = 'terminated' AND $1::text IN ('all', 'terminated')
                AND ($5::bigint IS NULL
                    OR (b.last_status_time, b.id) < (timestamptz 'epoch' + $5 * interval '1 microsecond', $6::text))
            ORDER BY b.last_status_time DESC
            LIMIT $7
        ) ended
        JOIN node ON node.id = ended.drone_id
        LEFT JOIN LATERAL (
            SELECT a.action #>> '{action,Spawn,key,key,name}' AS name FROM backend_action a
            WHERE $4::text <> '' AND a.backend_id = ended.id AND a.action -> 'action' ? 'Spawn'
            ORDER BY a.created_at LIMIT 1
        ) spawned ON true
        WHERE ($2::text = '' OR ended.cluster = $2) AND ($3::text = '' OR node.name = $3)
            AND ($4::text = '' OR starts_with(ended.id, $4) OR position(lower($4) IN lower(spawned.name)) > 0)
        ORDER BY ended.last_status_time DESC, ended.id DESC
        LIMIT $8
    )
    ORDER BY last_status_time DESC, id DESC
    LIMIT $8
) page
JOIN drone ON drone.id = page.drone_id
JOIN node ON node.id = drone.id
LEFT JOIN backend_key k ON k.id = page.id
LEFT JOIN LATERAL (
    SELECT a.action #> '{action,Spawn,key,key}' AS key FROM backend_action a
    WHERE a.backend_id = page.id AND a.action -> 'action' ? 'Spawn'
    ORDER BY a.created_at LIMIT 1
) spawn ON true
ORDER BY page.last_status_time DESC, page.id DESC;

-- name: states_of_backends
-- The current states of backends $1.
SELECT b.id, b.last_status AS status, b.state, (extract(epoch FROM b.last_status_time) * 1000000)::bigint AS since_us
FROM backend b WHERE b.id = ANY ($1::text[]);

-- name: users_of_backend
-- Up to $2 users who have valid tokens of backend $1, with the number of their tokens.
SELECT t.username, count(*) AS tokens FROM token t
WHERE t.backend_id = $1 AND t.username IS NOT NULL AND t.expiration_time > now()
GROUP BY t.username
ORDER BY t.username
LIMIT $2;
