-- name: order_backend
-- Stores the action $4 (id $1) for backend $2 on drone $3 and tells the drone's controller.
WITH stored AS (
    INSERT INTO backend_action (id, backend_id, drone_id, action) VALUES ($1, $2, $3::int, $4)
    RETURNING drone_id, action
)
SELECT plane_emit('backend_action', drone_id::text, action) AS event FROM stored;

-- name: pending_actions
-- Up to $4 actions that drone $1 has not acknowledged, oldest first, after ($2 time, $3 id).
SELECT id, created_at, action FROM backend_action
WHERE drone_id = $1 AND acked_at IS NULL AND (created_at, id) > ($2::timestamptz, $3::text)
ORDER BY created_at, id
LIMIT $4;

-- name: acknowledge_action
-- Drone $2 has applied action $1.
UPDATE backend_action SET acked_at = now() WHERE id = $1 AND drone_id = $2 AND acked_at IS NULL;
