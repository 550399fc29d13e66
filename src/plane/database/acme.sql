-- name: take_certificate_lease
-- Node $2 wants to order the certificate of cluster $1. No row: another has had the lease for less than $3 seconds.
INSERT INTO acme_txt_entries (cluster, leased_by) VALUES ($1, $2)
ON CONFLICT (cluster) DO UPDATE SET
    leased_at = now(), leased_by = excluded.leased_by, txt_value = NULL, plane_former_txt_value = NULL
    WHERE acme_txt_entries.leased_at < (SELECT plane_now()) - make_interval(secs => $3)
RETURNING cluster;

-- name: set_txt_value
-- Node $2, which holds the lease of cluster $1, sets the value $3 of the challenge; its lease begins anew, since it is
-- at work. No row: it does not hold the lease.
UPDATE acme_txt_entries
SET txt_value = $3, plane_former_txt_value = txt_value, leased_at = now()
WHERE cluster = $1 AND leased_by = $2
RETURNING cluster;

-- name: release_certificate_lease
-- Node $2 has ended its order for cluster $1, well or not.
DELETE FROM acme_txt_entries WHERE cluster = $1 AND leased_by = $2;

-- name: txt_values
-- What the challenge of cluster $1 is answered with.
SELECT txt_value, plane_former_txt_value FROM acme_txt_entries WHERE cluster = $1 AND txt_value IS NOT NULL;
