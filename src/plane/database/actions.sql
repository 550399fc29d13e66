-- name: enqueue_actions
-- Stores the action $4[i] (id $1[i]) for backend $2[i] on drone $3[i] and notifies the drone's controller. Actions of
-- backends that no longer exist are skipped: the lock keeps a row from being deleted before its action is inserted.
WITH existing AS (
    SELECT given.* FROM unnest($1::text[], $2::text[], $3::int[], $4::jsonb[]) AS given (id, backend_id, drone_id, action)
    JOIN backend ON backend.id = given.backend_id
    ORDER BY backend.id FOR KEY SHARE OF backend
), stored AS (
    INSERT INTO backend_action (id, backend_id, drone_id, action) SELECT id, backend_id, drone_id, action FROM existing
    RETURNING drone_id, action
)
SELECT plane_emit('backend_action', drone_id::text, action) AS event FROM stored;

-- name: pending_actions
-- Up to $4 actions that drone $1 has not acknowledged, oldest first, after (time $2, id $3).
SELECT id, created_at, action FROM backend_action
WHERE drone_id = $1 AND acked_at IS NULL AND (created_at, id) > ($2::timestamptz, $3::text)
ORDER BY created_at, id
LIMIT $4;

-- name: drones_with_pending_actions
-- The drones among $1 that have unacknowledged actions.
SELECT drone_id FROM unnest($1::int[]) AS wanted (drone_id)
WHERE EXISTS (
    SELECT FROM backend_action WHERE backend_action.drone_id = wanted.drone_id AND backend_action.acked_at IS NULL
);

-- name: acknowledge_actions
-- Drone $2[i] has applied action $1[i].
WITH applied AS (
    SELECT a.id FROM backend_action a
    JOIN unnest($1::text[], $2::int[]) AS given (id, drone_id) ON a.id = given.id AND a.drone_id = given.drone_id
    WHERE a.acked_at IS NULL ORDER BY a.id FOR NO KEY UPDATE OF a
)
UPDATE backend_action SET acked_at = now() FROM applied WHERE backend_action.id = applied.id;
