-- name: feed_window
-- The limits of the feed: events up to `through` were deleted, events up to `horizon` are complete, and no id after
-- `newest` was taken before. A later statement reads the events.
SELECT plane_event_horizon() AS horizon, through, (SELECT last_value FROM plane_event_id) AS newest
FROM plane_event_pruned;

-- name: oldest_writer
-- The transaction that has been open for longest among those that hold the horizon back.
SELECT pid, application_name, extract(epoch FROM now() - xact_start)::float8 AS open_s
FROM pg_stat_activity
WHERE pid IN (
    SELECT pid FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND classid::bigint >> 16 = 20556
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
ORDER BY xact_start
LIMIT 1;

-- name: events_after
-- Looks at the first $5 events after $1 and up to $2, with $4 only at those of the key named $4, with $6 only at those of
-- admin calls. Returns the first $7 that have a type of $3 (null: any), oldest first, with the number of events that
-- were looked at and the id of the last one; one row without an event if there is none.
WITH looked_at AS (
    (SELECT * FROM plane_event WHERE $4::text IS NULL AND NOT $6::bool AND id > $1 AND id <= $2 ORDER BY id LIMIT $5)
    UNION ALL
    (SELECT * FROM plane_event WHERE NOT $6 AND key_name = $4 AND id > $1 AND id <= $2 ORDER BY id LIMIT $5)
    UNION ALL
    (SELECT * FROM plane_event WHERE $6 AND type LIKE 'admin.%' AND id > $1 AND id <= $2 ORDER BY id LIMIT $5)
)
SELECT looked_at.count, looked_at.reached, found.id,
    floor(extract(epoch FROM found.created_at) * 1000)::bigint AS time, found.type, found.cluster, found.backend_id,
    found.namespace, found.key_name, found.username, found.drone, found.data
FROM (SELECT count(*), max(id) AS reached FROM looked_at) looked_at
LEFT JOIN (
    SELECT * FROM looked_at WHERE $3::text[] IS NULL OR type = ANY ($3) ORDER BY id LIMIT $7
) found ON true
ORDER BY found.id;

-- name: events_before
-- Like `events_after`, for the last $5 events up to $1 and after $2; returns the last $7, the newest first.
WITH looked_at AS (
    (SELECT * FROM plane_event WHERE $4::text IS NULL AND NOT $6::bool AND id <= $1 AND id > $2 ORDER BY id DESC LIMIT $5)
    UNION ALL
    (SELECT * FROM plane_event WHERE NOT $6 AND key_name = $4 AND id <= $1 AND id > $2 ORDER BY id DESC LIMIT $5)
    UNION ALL
    (SELECT * FROM plane_event WHERE $6 AND type LIKE 'admin.%' AND id <= $1 AND id > $2 ORDER BY id DESC LIMIT $5)
)
SELECT looked_at.count, looked_at.reached, found.id,
    floor(extract(epoch FROM found.created_at) * 1000)::bigint AS time, found.type, found.cluster, found.backend_id,
    found.namespace, found.key_name, found.username, found.drone, found.data
FROM (SELECT count(*), min(id) AS reached FROM looked_at) looked_at
LEFT JOIN (
    SELECT * FROM looked_at WHERE $3::text[] IS NULL OR type = ANY ($3) ORDER BY id DESC LIMIT $7
) found ON true
ORDER BY found.id DESC;

-- name: record_call
-- A call of the control API that changes something: its type $1, the cluster $2 and the drone $3 if it is about one, and
-- who sent what $4.
SELECT plane_add_event($1, $2, $3, $4::jsonb) AS id;

-- name: prune_events
-- Deletes those of the $2 oldest events that are more than $1 days old. Returns their number. Nobody else locks these
-- rows; the one row of plane_event_pruned is locked until the commit, so one controller prunes at a time. The search begins
-- after what was deleted before, whose index entries may still be there.
WITH locked AS (
    SELECT through FROM plane_event_pruned FOR UPDATE SKIP LOCKED
), old AS (
    SELECT id FROM (
        SELECT id, created_at FROM plane_event WHERE id > (SELECT through FROM locked) ORDER BY id LIMIT $2
    ) oldest WHERE created_at < (SELECT plane_now()) - make_interval(days => $1)
), deleted AS (
    DELETE FROM plane_event USING old WHERE plane_event.id = old.id RETURNING plane_event.id
), moved AS (
    UPDATE plane_event_pruned SET through = greatest(through, (SELECT max(id) FROM old)) WHERE EXISTS (SELECT FROM old)
)
SELECT count(*) AS number FROM deleted;

-- name: silent_drones
-- Up to $2 drones without a heartbeat for more than $1 seconds whose silence is no event yet, and whether each announced
-- that it would stop and has backends that are not terminated.
SELECT drone.id, node.name, NOT drone.ready AS stopped,
    EXISTS (SELECT FROM backend WHERE backend.drone_id = drone.id AND last_status <> 'terminated') AS has_backends
FROM drone JOIN node ON node.id = drone.id
WHERE drone.last_heartbeat < (SELECT plane_now()) - make_interval(secs => $1)
    AND drone.plane_lost_heartbeat IS DISTINCT FROM drone.last_heartbeat
LIMIT $2;

-- name: record_lost_drones
-- The silence of drones $1 is over for the feed; those of them in $2 are lost. A drone that has sent a heartbeat
-- meanwhile, within $3 seconds, is skipped.
WITH silent AS (
    UPDATE drone SET plane_lost_heartbeat = last_heartbeat
    WHERE id = ANY ($1::int[]) AND last_heartbeat < (SELECT plane_now()) - make_interval(secs => $3)
    RETURNING id
)
SELECT plane_add_event('drone.lost', node.cluster, node.name, NULL) AS event
FROM silent JOIN node ON node.id = silent.id WHERE silent.id = ANY ($2::int[]);
