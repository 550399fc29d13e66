-- name: delete_expired_tokens
-- Deletes up to $1 expired dynamic tokens. Returns them.
DELETE FROM token WHERE token IN (SELECT token FROM token WHERE expiration_time < (SELECT plane_now()) LIMIT $1)
RETURNING token;

-- name: delete_old_backends
-- Deletes up to $2 backends that terminated more than $1 days ago, with all dependent rows. Returns their ids. A backend
-- whose end is not certain holds its key until the lease ends, and is not deleted before.
WITH old AS (
    SELECT id FROM backend
    WHERE last_status = 'terminated' AND last_status_time < (SELECT plane_now()) - make_interval(days => $1)
        AND NOT EXISTS (SELECT FROM backend_key k WHERE k.id = backend.id AND k.expires_at > (SELECT plane_now()))
    ORDER BY last_status_time LIMIT $2 FOR UPDATE SKIP LOCKED
), tokens AS (
    DELETE FROM token USING old WHERE token.backend_id = old.id
), actions AS (
    DELETE FROM backend_action USING old WHERE backend_action.backend_id = old.id
), keys AS (
    DELETE FROM backend_key USING old WHERE backend_key.id = old.id
), states AS (
    DELETE FROM backend_state USING old WHERE backend_state.backend_id = old.id
)
DELETE FROM backend USING old WHERE backend.id = old.id
RETURNING backend.id;

-- name: delete_old_events
-- Deletes up to $2 events older than $1 days. Returns their ids.
DELETE FROM event WHERE id IN (
    SELECT id FROM event WHERE created_at < (SELECT plane_now()) - make_interval(days => $1) ORDER BY created_at LIMIT $2
)
RETURNING id;

-- name: delete_old_fencing_tokens
-- Deletes up to $2 fencing tokens that were given more than $1 days ago for keys that are not held. Returns their keys.
-- Tokens are times, so later ones are higher without the old ones, unless the database's clock steps back that far.
DELETE FROM plane_key_fencing WHERE (namespace, key_name) IN (
    SELECT namespace, key_name FROM plane_key_fencing f
    WHERE f.fencing_token < floor(extract(epoch FROM (SELECT plane_now()) - make_interval(days => $1)) * 1000)
        AND NOT EXISTS (SELECT FROM backend_key k WHERE k.namespace = f.namespace AND k.key_name = f.key_name)
    LIMIT $2
)
RETURNING namespace, key_name;
