-- name: revoke_tokens
-- Deletes all dynamic tokens of user $2 for backend $1 and notifies the controllers of all proxies. Returns their number.
WITH revoked AS (
    DELETE FROM token WHERE backend_id = $1 AND username = $2 RETURNING token
), listed AS (
    SELECT jsonb_agg(token) AS tokens, count(*) AS number FROM revoked
)
SELECT number, CASE WHEN number > 0 THEN
    plane_emit('tokens_revoked', $1, jsonb_build_object('backend', $1::text, 'tokens', tokens))
END AS event
FROM listed;
