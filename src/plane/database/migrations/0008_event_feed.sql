-- The event feed and webhooks. An original controller never looks at any of it, yet what it changes is in the feed:
-- triggers write the events. See docs/decisions/0020-event-feed.md.

-- The user of the connect request that spawned the backend; null for one of an original controller.
ALTER TABLE backend ADD COLUMN plane_user text;

-- `last_heartbeat` of the drone when it was last found to be lost, so that each silence is one event.
ALTER TABLE drone ADD COLUMN plane_lost_heartbeat timestamptz;
UPDATE drone SET plane_lost_heartbeat = last_heartbeat WHERE last_heartbeat < now() - interval '2 minutes';

CREATE SEQUENCE plane_event_id;
-- Id 1 is never used: the last value of a sequence is then always below the ids that follow.
SELECT setval('plane_event_id', 1);

CREATE TABLE plane_event (
    id bigint PRIMARY KEY DEFAULT nextval('plane_event_id'),
    created_at timestamptz NOT NULL DEFAULT now(),
    type text NOT NULL,
    cluster text,
    backend_id text,
    namespace text,
    key_name text,
    username text,
    drone text,
    data jsonb
);
CREATE INDEX idx_plane_event_key ON plane_event (key_name, id) WHERE key_name IS NOT NULL;
CREATE INDEX idx_plane_event_admin ON plane_event (id) WHERE type LIKE 'admin.%';

-- One row: events up to this id were deleted, since they were older than the retention.
CREATE TABLE plane_event_pruned (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    through bigint NOT NULL DEFAULT 0
);
INSERT INTO plane_event_pruned DEFAULT VALUES;

-- Before a statement takes ids of events, its transaction takes an advisory lock whose number is below these ids, and
-- holds it until its end; the upper 16 bits of the lock's number are 0x504C. The lock is shared: nobody waits for it.
CREATE FUNCTION plane_open_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared((20556::bigint << 48) | last_value) FROM plane_event_id;
    RETURN NULL;
END;
$$;
CREATE TRIGGER plane_open_events BEFORE INSERT ON plane_event
    FOR EACH STATEMENT EXECUTE FUNCTION plane_open_events();

-- The id up to which the feed is complete: no transaction that is still open has taken an id up to it. Ids are taken
-- before the commit, so a lower id may otherwise become visible after a higher one. A later statement reads the events,
-- since the snapshot of this one may be older than its result.
CREATE FUNCTION plane_event_horizon() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    newest bigint;
    open bigint;
BEGIN
    -- First the newest id, then the locks: whoever took an id up to it has held its lock before.
    SELECT last_value INTO newest FROM plane_event_id;
    SELECT min(((classid::bigint << 32) | objid::bigint) & ((1::bigint << 48) - 1)) INTO open
    FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND classid::bigint >> 16 = 20556
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database());
    RETURN least(newest, open);
END;
$$;

CREATE FUNCTION plane_add_event(
    event_type text, event_cluster text, event_drone text, event_data jsonb
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    added bigint;
BEGIN
    INSERT INTO plane_event (type, cluster, drone, data)
    VALUES (event_type, event_cluster, event_drone, event_data) RETURNING id INTO added;
    RETURN added;
END;
$$;

-- One call per statement, however many states that stores. The row of a backend is locked until the commit when its
-- state is stored, so ids of one backend's events rise in the order of its states. The key of a terminated backend is
-- free already, but its spawn action names it. Of a message, the first line, without the backend's output.
CREATE FUNCTION plane_events_of_states() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Most statements store only states that are no events.
    IF NOT EXISTS (SELECT FROM added WHERE state ->> 'status' IN ('scheduled', 'ready', 'terminated')) THEN
        RETURN NULL;
    END IF;
    INSERT INTO plane_event (type, cluster, backend_id, namespace, key_name, username, drone, data)
    SELECT 'backend.' || (added.state ->> 'status'), backend.cluster, backend.id,
        coalesce(held.namespace, spawned.key ->> 'namespace'), coalesce(held.key_name, spawned.key ->> 'name'),
        backend.plane_user, node.name,
        CASE WHEN added.state ->> 'status' = 'terminated' THEN jsonb_strip_nulls(jsonb_build_object(
            'termination_reason', added.state -> 'reason',
            'termination_kind', added.state -> 'termination',
            'exit_code', added.state -> 'exit_code',
            'message', left(regexp_replace(split_part(added.state ->> 'message', E'\n', 1), '; its last output:$', ''), 1000)
        )) END
    FROM added
    JOIN backend ON backend.id = added.backend_id
    JOIN node ON node.id = backend.drone_id
    LEFT JOIN backend_key held ON held.id = backend.id
    LEFT JOIN LATERAL (
        SELECT action #> '{action,Spawn,key,key}' AS key FROM backend_action
        WHERE held.id IS NULL AND backend_action.backend_id = backend.id AND action -> 'action' ? 'Spawn'
        ORDER BY created_at LIMIT 1
    ) spawned ON true
    WHERE added.state ->> 'status' IN ('scheduled', 'ready', 'terminated')
    ORDER BY added.id;
    RETURN NULL;
END;
$$;
CREATE TRIGGER plane_events AFTER INSERT ON backend_state REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION plane_events_of_states();

CREATE FUNCTION plane_event_of_connection() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM plane_add_event('drone.connected', NEW.cluster, NEW.name, jsonb_build_object(
        'version', NEW.plane_version, 'address', host(NEW.ip)
    ));
    RETURN NULL;
END;
$$;
CREATE TRIGGER plane_event_of_first_connection AFTER INSERT ON node
    FOR EACH ROW WHEN (NEW.kind = 'Drone') EXECUTE FUNCTION plane_event_of_connection();
CREATE TRIGGER plane_event_of_connection AFTER UPDATE OF last_connection_start_time ON node
    FOR EACH ROW WHEN (
        NEW.kind = 'Drone' AND NEW.last_connection_start_time IS DISTINCT FROM OLD.last_connection_start_time
    ) EXECUTE FUNCTION plane_event_of_connection();

CREATE FUNCTION plane_event_of_draining() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM plane_add_event(
        CASE WHEN NEW.draining THEN 'drone.draining' ELSE 'drone.undrained' END, node.cluster, node.name, NULL
    ) FROM node WHERE node.id = NEW.id;
    RETURN NULL;
END;
$$;
CREATE TRIGGER plane_event_of_draining AFTER UPDATE OF draining ON drone
    FOR EACH ROW WHEN (NEW.draining <> OLD.draining) EXECUTE FUNCTION plane_event_of_draining();

CREATE TABLE plane_webhook (
    name text PRIMARY KEY,
    url text NOT NULL,
    -- Types of events as the operator named them, perhaps with a star at the end.
    types text[] NOT NULL,
    secret text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Null: it is enabled.
    disabled_reason text,
    -- Events up to this id are delivered, abandoned, or in plane_webhook_pending.
    cursor bigint NOT NULL,
    -- The controller that delivers, and until when. Each lease begins an epoch, and progress is stored only by the epoch
    -- that made it. The first one is a time: a webhook that is deleted and made again has no epoch twice.
    holder text,
    lease_ends_at timestamptz,
    epoch bigint NOT NULL DEFAULT floor(extract(epoch FROM clock_timestamp()) * 1000),
    -- Failed attempts since the last success, and when the next one is due.
    failures integer NOT NULL DEFAULT 0,
    retry_at timestamptz,
    delivered bigint NOT NULL DEFAULT 0,
    abandoned bigint NOT NULL DEFAULT 0,
    last_delivery_at timestamptz,
    last_error text,
    last_error_at timestamptz
);

-- Events that could not be delivered at first, and later ones of the same backend, which wait behind them.
CREATE TABLE plane_webhook_pending (
    webhook text NOT NULL REFERENCES plane_webhook (name) ON DELETE CASCADE,
    event_id bigint NOT NULL,
    -- Events of one subject, for example a backend, are delivered in order.
    subject text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    retry_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (webhook, event_id)
);
