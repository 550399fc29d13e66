-- name: revoke_tokens
-- Deletes all dynamic tokens of user $2 for backend $1 and notifies the controllers of all proxies. Returns their number.
-- Also without any if the backend lives: tokens that have expired are deleted, and their connections are still open.
WITH revoked AS (
    DELETE FROM token WHERE backend_id = $1 AND username = $2 RETURNING token
), listed AS (
    SELECT coalesce(jsonb_agg(token), '[]') AS tokens, count(*) AS number FROM revoked
)
SELECT number, CASE WHEN number > 0 OR EXISTS (SELECT FROM backend WHERE id = $1 AND last_status <> 'terminated') THEN
    plane_emit('tokens_revoked', $1, jsonb_build_object('backend', $1::text, 'tokens', tokens, 'user', $2::text))
END AS event
FROM listed;

-- name: recent_revocations
-- The revocations of the last $1 seconds, oldest first, as they were announced, with their backends.
SELECT key AS backend_id, data FROM event WHERE created_at > now() - make_interval(secs => $1) AND kind = 'tokens_revoked' ORDER BY created_at;
