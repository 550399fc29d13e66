-- name: take_certificate_lease
-- Node $2 acquires the lease of the certificate of cluster $1. No row: another node has held it for less than $3 seconds.
INSERT INTO acme_txt_entries (cluster, leased_by) VALUES ($1, $2)
ON CONFLICT (cluster) DO UPDATE SET
    leased_at = now(), leased_by = excluded.leased_by, txt_value = NULL, plane_former_txt_value = NULL
    WHERE acme_txt_entries.leased_at < (SELECT plane_now()) - make_interval(secs => $3)
RETURNING cluster;

-- name: set_txt_value
-- Node $2, which holds the lease of cluster $1, sets the challenge's value $3; this renews the lease. No row: the node
-- does not hold the lease.
UPDATE acme_txt_entries
SET txt_value = $3, plane_former_txt_value = txt_value, leased_at = now()
WHERE cluster = $1 AND leased_by = $2
RETURNING cluster;

-- name: release_certificate_lease
-- Node $2 has finished its order for cluster $1, successfully or not.
DELETE FROM acme_txt_entries WHERE cluster = $1 AND leased_by = $2;

-- name: txt_values
-- The challenge's current and former values of cluster $1.
SELECT txt_value, plane_former_txt_value FROM acme_txt_entries WHERE cluster = $1 AND txt_value IS NOT NULL;
