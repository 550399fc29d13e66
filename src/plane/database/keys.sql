-- name: renew_key
-- Extends the lease of backend $1's key by $2 seconds. No row: it may not be renewed, or is gone.
UPDATE backend_key SET expires_at = now() + make_interval(secs => $2)
WHERE id = $1 AND allow_renew
RETURNING expires_at;

-- name: prevent_renewal
-- The key of backend $1 ends with its present lease. No row: it holds none.
UPDATE backend_key SET allow_renew = false WHERE id = $1 RETURNING id;
