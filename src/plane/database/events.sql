-- name: last_event
-- The id of the newest event, 0 if there is none.
SELECT coalesce(max(id), 0) AS id FROM event;

-- name: events_after
-- Up to $2 events after id $1, oldest first.
SELECT id, kind, key, created_at, data FROM event WHERE id > $1 ORDER BY id LIMIT $2;

-- name: event
-- The payload of an event, for a notification that was too large to carry it.
SELECT data FROM event WHERE id = $1;
