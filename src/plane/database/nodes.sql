-- name: controller_heartbeat
-- Heartbeat of controller $1 with version $3 and hash $4; it is online or ($2 false) about to stop.
INSERT INTO controller (id, last_heartbeat, is_online, plane_version, plane_hash, ip)
VALUES ($1, now(), $2, $3, $4, inet_client_addr())
ON CONFLICT (id) DO UPDATE SET
    last_heartbeat = now(), is_online = excluded.is_online, plane_version = excluded.plane_version,
    plane_hash = excluded.plane_hash, ip = excluded.ip;

-- name: register_node
-- Node $3 of kind $1 in cluster $2, with version $4 and hash $5, has connected to controller $6 from address $7.
WITH node_row AS (
    INSERT INTO node (
        kind, cluster, name, plane_version, plane_hash, controller, ip, last_connection_start_time
    )
    VALUES ($1, $2, $3, $4, $5, $6, $7, now())
    ON CONFLICT (cluster, name) DO UPDATE SET
        plane_version = excluded.plane_version, plane_hash = excluded.plane_hash, controller = excluded.controller,
        ip = excluded.ip, last_connection_start_time = excluded.last_connection_start_time
    RETURNING id, last_connection_start_time
)
SELECT id, last_connection_start_time,
    plane_emit('node_connection', NULL, jsonb_build_object('node_id', id, 'connected', true)) AS event
FROM node_row;

-- name: register_node_of_no_cluster
-- Node $2 of kind $1, with version $3 and hash $4, has connected to controller $5 from address $6. The unique index does
-- not cover nodes without a cluster, so the statement looks for the row.
WITH known AS (
    UPDATE node SET plane_version = $3, plane_hash = $4, controller = $5, ip = $6, last_connection_start_time = now()
    WHERE id = (SELECT max(id) FROM node WHERE cluster IS NULL AND kind = $1 AND name = $2)
    RETURNING id, last_connection_start_time
), new AS (
    INSERT INTO node (kind, cluster, name, plane_version, plane_hash, controller, ip, last_connection_start_time)
    SELECT $1, NULL, $2, $3, $4, $5, $6, now() WHERE NOT EXISTS (SELECT FROM known)
    RETURNING id, last_connection_start_time
), node_row AS (
    SELECT * FROM known UNION ALL SELECT * FROM new
)
SELECT id, last_connection_start_time,
    plane_emit('node_connection', NULL, jsonb_build_object('node_id', id, 'connected', true)) AS event
FROM node_row;

-- name: disconnect_node
-- The connection of node $1 to controller $2 that began at $3 has ended. The node row keeps its controller if the node
-- has connected again since.
WITH cleared AS (
    UPDATE node SET controller = NULL
    WHERE id = $1 AND controller = $2 AND last_connection_start_time = $3
)
SELECT plane_emit('node_connection', NULL, jsonb_build_object('node_id', $1::int, 'connected', false)) AS event;

-- name: lock_drone_name
-- Prevents others from registering a drone named $3 in cluster $2 until the transaction ends. $1: the lock's class.
SELECT pg_advisory_xact_lock($1::int, hashtext($2::text || ' ' || $3::text));

-- name: registered_drone
-- The drone that was last registered under name $2 in cluster $1, locked. A controller without a heartbeat for $3 seconds
-- counts as dead.
SELECT drone.plane_instance AS instance, drone.plane_clock AS clock, drone.plane_boot_id AS boot_id,
    drone.plane_machine_id AS machine_id, extract(epoch FROM plane_now() - drone.last_heartbeat)::float8 AS silent_s,
    NOT coalesce(
        controller.is_online AND controller.last_heartbeat > plane_now() - make_interval(secs => $3), false
    ) AS disconnected
FROM node JOIN drone ON drone.id = node.id LEFT JOIN controller ON controller.id = node.controller
WHERE node.cluster = $1 AND node.name = $2
FOR UPDATE OF drone;

-- name: register_drone
-- Node $1 is a drone of pool $2 with the identity $3 to $6; `draining` is kept. The drone's clock is unknown until its
-- first heartbeat.
INSERT INTO drone (id, ready, pool, plane_instance, plane_clock, plane_boot_id, plane_machine_id)
VALUES ($1, true, $2, $3, $4, $5, $6)
ON CONFLICT (id) DO UPDATE SET
    ready = true, pool = excluded.pool, last_local_time = NULL, plane_instance = excluded.plane_instance,
    plane_clock = excluded.plane_clock, plane_boot_id = excluded.plane_boot_id,
    plane_machine_id = excluded.plane_machine_id;

-- name: void_spawn_actions
-- Acknowledges the pending spawn actions of drone $1, which are void. Returns their backends.
UPDATE backend_action SET acked_at = now()
WHERE drone_id = $1 AND acked_at IS NULL AND action -> 'action' ? 'Spawn'
RETURNING backend_id;

-- name: mark_drone_stopping
-- Drone $1 is about to stop and gets no more backends until it connects again.
UPDATE drone SET ready = false WHERE id = $1;

-- name: set_draining
-- Sets `draining` of the drone named $2 in cluster $1 to $3. Returns whether this changed anything; no row: there is no
-- such drone.
WITH before AS (
    SELECT drone.id, drone.draining FROM drone JOIN node ON node.id = drone.id
    WHERE node.cluster = $1 AND node.name = $2
    FOR UPDATE OF drone
)
UPDATE drone SET draining = $3 FROM before WHERE drone.id = before.id
RETURNING before.draining <> $3 AS updated;

-- name: drone_heartbeats
-- Heartbeats of drones $1, with the drone's time $2[i] (milliseconds since the epoch), over the connection that began at
-- $3[i]. Heartbeats of earlier connections are ignored: the drone may have another clock since. That is checked again when
-- the drone's row is locked, since the drone may have registered again while this statement waited for it.
WITH received AS (
    SELECT drone.id, given.local_time, given.connected_at FROM drone
    JOIN unnest($1::int[], $2::bigint[], $3::timestamptz[]) AS given (id, local_time, connected_at) ON drone.id = given.id
    JOIN node ON node.id = drone.id AND node.last_connection_start_time = given.connected_at
    ORDER BY drone.id FOR NO KEY UPDATE OF drone
)
UPDATE drone SET last_heartbeat = now(), last_local_time = to_timestamp(received.local_time / 1000.0)
FROM received WHERE drone.id = received.id AND plane_connected_at(received.id) = received.connected_at;

-- name: ping
-- Health check.
SELECT 1 AS one;

-- name: drones_of_cluster
-- Drones of cluster $1 that are connected to a controller.
SELECT drone.ready, drone.draining, node.name, node.plane_version, node.plane_hash, node.controller,
    coalesce(floor(extract(epoch FROM now() - drone.last_heartbeat)), 0)::int AS heartbeat_age_s,
    floor(extract(epoch FROM now() - controller.last_heartbeat))::int AS controller_heartbeat_age_s,
    (SELECT count(*) FROM backend b WHERE b.drone_id = drone.id AND b.last_status <> 'terminated') AS backend_count
FROM drone
JOIN node ON node.id = drone.id
JOIN controller ON controller.id = node.controller
WHERE node.cluster = $1 AND drone.last_local_time IS NOT NULL
ORDER BY drone.id;

-- name: proxies_of_cluster
-- Proxies of cluster $1 that are connected to a controller.
SELECT node.name, node.plane_version, node.plane_hash, node.controller,
    floor(extract(epoch FROM now() - controller.last_heartbeat))::int AS controller_heartbeat_age_s
FROM node
JOIN controller ON controller.id = node.controller
WHERE node.cluster = $1 AND node.kind = 'Proxy'
ORDER BY node.id;
