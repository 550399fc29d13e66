-- name: renew_keys
-- Renews the leases of the keys of backends $1 for $2 seconds. Returns the backends whose keys were renewable. A lease is
-- only ever extended: now() is when the transaction began, and a later renewal may have been first while this one waited
-- for the lock of another row.
WITH renewable AS (
    SELECT id FROM backend_key WHERE id = ANY ($1::text[]) AND allow_renew ORDER BY id FOR NO KEY UPDATE
)
UPDATE backend_key SET expires_at = greatest(expires_at, now() + make_interval(secs => $2))
FROM renewable WHERE backend_key.id = renewable.id
RETURNING backend_key.id;

-- name: prevent_renewal
-- The key of backend $1 expires with its current lease. No row: the backend holds no key.
UPDATE backend_key SET allow_renew = false WHERE id = $1 RETURNING id;
