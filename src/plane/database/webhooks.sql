-- name: set_webhook
-- Stores webhook $1 with the URL $2 and the types $3. A new one gets the secret $4 and the events from now on; a known
-- one keeps its secret unless $5, and continues where it was, also if it was disabled. Does nothing if there are $6
-- webhooks already and this is none of them.
INSERT INTO plane_webhook (name, url, types, secret, cursor)
SELECT $1, $2, $3::text[], $4, plane_event_horizon()
WHERE EXISTS (SELECT FROM plane_webhook WHERE name = $1) OR (SELECT count(*) FROM plane_webhook) < $6::int
ON CONFLICT (name) DO UPDATE SET
    url = excluded.url, types = excluded.types, disabled_reason = NULL, failures = 0, retry_at = NULL,
    secret = CASE WHEN $5::bool THEN excluded.secret ELSE plane_webhook.secret END
RETURNING xmax = 0 AS created;

-- name: delete_webhook
-- Deletes webhook $1 with its pending events. No row: there is no such webhook.
DELETE FROM plane_webhook WHERE name = $1 RETURNING name;

-- name: list_webhooks
-- Webhook $1 (null: all), with the numbers of its pending events, and of those of its types among the next $2 events.
SELECT w.name, w.url, w.types, w.disabled_reason, w.delivered, w.abandoned, w.failures, w.last_error, w.cursor,
    floor(extract(epoch FROM w.created_at) * 1000)::bigint AS created_at,
    floor(extract(epoch FROM w.retry_at) * 1000)::bigint AS retry_at,
    floor(extract(epoch FROM w.last_delivery_at) * 1000)::bigint AS last_delivery_at,
    floor(extract(epoch FROM w.last_error_at) * 1000)::bigint AS last_error_at,
    (SELECT count(*) FROM plane_webhook_pending p WHERE p.webhook = w.name) AS pending,
    (
        SELECT count(*) FROM (SELECT type FROM plane_event e WHERE e.id > w.cursor ORDER BY e.id LIMIT $2) ahead
        WHERE ahead.type LIKE ANY (ARRAY(SELECT replace(pattern, '*', '%') FROM unnest(w.types) AS pattern))
    ) AS behind
FROM plane_webhook w
WHERE $1::text IS NULL OR w.name = $1
ORDER BY w.name;

-- name: webhook_target
-- The URL and the secret of webhook $1.
SELECT url, secret FROM plane_webhook WHERE name = $1;

-- name: claim_webhooks
-- Controller $1 delivers the webhooks that it delivered before, or that nobody delivers, for the next $2 seconds.
-- Returns them with their epochs. An epoch ends when the lease does, even if the same controller claims it again.
UPDATE plane_webhook SET holder = $1, lease_ends_at = now() + make_interval(secs => $2),
    epoch = CASE WHEN holder = $1 AND lease_ends_at > now() THEN epoch ELSE epoch + 1 END
WHERE name IN (
    SELECT name FROM plane_webhook
    WHERE disabled_reason IS NULL AND (holder = $1 OR lease_ends_at IS NULL OR lease_ends_at <= now())
    ORDER BY name FOR UPDATE SKIP LOCKED
)
RETURNING name, epoch;

-- name: release_webhooks
-- Controller $1 stops delivering.
UPDATE plane_webhook SET holder = NULL, lease_ends_at = NULL WHERE holder = $1;

-- name: webhook_state
-- What the holder of epoch $2 of webhook $1 needs for a round, and the database's time. No row: it is not the holder any more.
SELECT url, types, secret, cursor, failures, extract(epoch FROM retry_at - now())::float8 AS retry_in_s,
    floor(extract(epoch FROM now()) * 1000)::bigint AS now
FROM plane_webhook WHERE name = $1 AND epoch = $2 AND disabled_reason IS NULL;

-- name: pending_events
-- The pending events of webhook $1. Those that the feed does not have any more are marked.
SELECT p.event_id, p.subject, p.attempts, extract(epoch FROM p.retry_at - now())::float8 AS due_in_s,
    NOT EXISTS (SELECT FROM plane_event e WHERE e.id = p.event_id) AS deleted
FROM plane_webhook_pending p WHERE p.webhook = $1 ORDER BY p.event_id;

-- name: events_to_send
-- The events $1.
SELECT id, floor(extract(epoch FROM created_at) * 1000)::bigint AS time, type, cluster, backend_id, namespace, key_name,
    username, drone, data
FROM plane_event WHERE id = ANY ($1::bigint[]) ORDER BY id;

-- name: store_progress
-- Stores a round of epoch $2 of webhook $1, whose cursor was $3: the new cursor $4, $5 events delivered and $6 abandoned,
-- $7 failures in a row, the next attempt in $8 seconds (null: at once), the last error $9 (null: none in this round), and
-- why the webhook is disabled $10 (null: it is not). No row: another epoch has begun, and nothing may be stored.
UPDATE plane_webhook SET cursor = $4, delivered = delivered + $5, abandoned = abandoned + $6, failures = $7,
    retry_at = now() + make_interval(secs => $8), disabled_reason = $10,
    last_delivery_at = CASE WHEN $5 > 0 THEN now() ELSE last_delivery_at END,
    last_error = coalesce($9, last_error), last_error_at = CASE WHEN $9 IS NULL THEN last_error_at ELSE now() END
WHERE name = $1 AND epoch = $2 AND cursor = $3 AND disabled_reason IS NULL
RETURNING name;

-- name: delete_pending
-- Events $2 of webhook $1 are done.
DELETE FROM plane_webhook_pending WHERE webhook = $1 AND event_id = ANY ($2::bigint[]);

-- name: store_pending
-- Event $2[i] of webhook $1, with subject $3[i], was sent $4[i] times and is due in $5[i] seconds.
INSERT INTO plane_webhook_pending (webhook, event_id, subject, attempts, retry_at)
SELECT $1, event_id, subject, attempts, now() + make_interval(secs => due_in_s)
FROM unnest($2::bigint[], $3::text[], $4::int[], $5::float8[]) AS given (event_id, subject, attempts, due_in_s)
ON CONFLICT (webhook, event_id) DO UPDATE SET attempts = excluded.attempts, retry_at = excluded.retry_at;
