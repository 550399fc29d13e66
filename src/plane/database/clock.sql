-- name: read_clock
-- The database's clock, what is known of it, the server's timeline and start, and how much it has written.
SELECT extract(epoch FROM clock_timestamp())::float8 AS database_s, shifted_ms,
    extract(epoch FROM confirmed_at)::float8 AS confirmed_s, boot_id, steady_ms,
    timeline AS known_timeline, plane_timeline() AS timeline, plane_written() AS written
FROM plane_clock WHERE one;

-- name: confirm_clock
-- The database's clock was correct at $1 (seconds), when the steady clock of boot $2 read $3 ms. Has no effect if the
-- stored times have been shifted since their total shift was $4 ms.
UPDATE plane_clock SET confirmed_at = to_timestamp($1::float8), boot_id = $2, steady_ms = $3
WHERE one AND shifted_ms = $4 AND confirmed_at < to_timestamp($1::float8);

-- name: begin_shift
-- The database's clock has stepped by $2 ms, and read $3 (seconds) afterwards. No row: another controller has handled
-- the step since the total shift was $1 ms.
UPDATE plane_clock SET shifted_ms = shifted_ms + $2, confirmed_at = to_timestamp($3::float8), boot_id = NULL
WHERE one AND shifted_ms = $1
RETURNING one;

-- name: lock_for_shift
-- Prevents writes of times until the transaction ends.
SELECT plane_lock_times();

-- name: shift_times
-- Moves all times by which expiry is decided by $1 seconds if positive. Rows may have been written after the step: no
-- lease ends later than $2 seconds from now, and no heartbeat lies in the future. After a step back, only these limits
-- are applied. Now is when all rows are locked: since the transaction began, others have written later times.
WITH moved AS (
    SELECT make_interval(secs => greatest($1::float8, 0)) AS by, now, now + make_interval(secs => $2) AS lease_end
    FROM clock_timestamp() AS now
), grants AS (
    UPDATE plane_clock SET grants_after = least(grants_after + moved.by, moved.lease_end) FROM moved
    WHERE grants_after IS NOT NULL
), keys AS (
    UPDATE backend_key SET expires_at = least(expires_at + moved.by, moved.lease_end) FROM moved
), drones AS (
    UPDATE drone SET last_heartbeat = least(last_heartbeat + moved.by, moved.now),
        plane_lost_heartbeat = CASE WHEN plane_lost_heartbeat IS NOT NULL THEN
            least(plane_lost_heartbeat + moved.by, moved.now) END
    FROM moved WHERE last_heartbeat IS NOT NULL
), controllers AS (
    UPDATE controller SET last_heartbeat = least(last_heartbeat + moved.by, moved.now) FROM moved
), certificates AS (
    UPDATE acme_txt_entries SET leased_at = least(leased_at + moved.by, moved.now) FROM moved
)
UPDATE backend SET last_status_time = least(last_status_time + moved.by, moved.now),
    last_keepalive = least(last_keepalive + moved.by, moved.now)
FROM moved WHERE last_status <> 'terminated';

-- name: shift_lifetimes
-- Moves the ends of backends' lifetimes by $1 seconds, except for backends that were scheduled in the last $2 seconds,
-- after the step.
UPDATE backend SET expiration_time = expiration_time + make_interval(secs => $1)
WHERE last_status <> 'terminated' AND expiration_time IS NOT NULL AND NOT EXISTS (
    SELECT FROM backend_state s WHERE s.backend_id = backend.id
        AND s.created_at BETWEEN now() - make_interval(secs => $2) AND now()
        AND s.state ->> 'status' = 'scheduled'
);

-- name: missing_events
-- The number of received events (id $1[i], recorded at $2[i]) and of stored backends $3 that are missing here.
SELECT (
    SELECT count(*) FROM unnest($1::int[], $2::timestamptz[]) AS received (id, at)
    WHERE NOT EXISTS (SELECT FROM event WHERE event.id = received.id AND event.created_at = received.at)
) + (
    SELECT count(*) FROM unnest($3::text[]) AS stored (id)
    WHERE NOT EXISTS (SELECT FROM backend WHERE backend.id = stored.id)
) AS missing;

-- name: accept_restart
-- The server was restarted by the only program with access to its files: nothing is lost.
UPDATE plane_clock SET timeline = plane_timeline() WHERE left(timeline, 8) = left(plane_timeline(), 8);

-- name: record_failover
-- The server is on timeline $1. No key is granted for $2 seconds. This server may have missed the renewal of any lease:
-- none ends sooner than in $3 seconds, and no drone counts as silent for longer than that.
WITH clock AS (
    UPDATE plane_clock SET timeline = $1,
        grants_after = greatest(grants_after, now() + make_interval(secs => $2))
    WHERE one
), keys AS (
    UPDATE backend_key SET expires_at = greatest(expires_at, now() + make_interval(secs => $3))
)
UPDATE drone SET last_heartbeat = greatest(last_heartbeat, now() - make_interval(secs => $3)),
    plane_lost_heartbeat = CASE WHEN plane_lost_heartbeat IS NOT NULL THEN
        greatest(plane_lost_heartbeat, now() - make_interval(secs => $3)) END
WHERE last_heartbeat IS NOT NULL;
