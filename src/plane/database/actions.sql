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

-- name: drones_with_pending_actions
-- Those of drones $1 that have not acknowledged everything.
SELECT drone_id FROM unnest($1::int[]) AS asked (drone_id)
WHERE EXISTS (
    SELECT FROM backend_action WHERE backend_action.drone_id = asked.drone_id AND backend_action.acked_at IS NULL
);

-- name: acknowledge_actions
-- Drone $2[i] has applied action $1[i].
WITH applied AS (
    SELECT a.id FROM backend_action a
    JOIN unnest($1::text[], $2::int[]) AS said (id, drone_id) ON a.id = said.id AND a.drone_id = said.drone_id
    WHERE a.acked_at IS NULL ORDER BY a.id FOR NO KEY UPDATE OF a
)
UPDATE backend_action SET acked_at = now() FROM applied WHERE backend_action.id = applied.id;
