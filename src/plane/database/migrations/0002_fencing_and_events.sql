-- What Plane in Python adds. An original controller never looks at it.

-- The highest fencing token ever given for a key that clients name, so that tokens rise even if the database's
-- clock steps back (page 3: "and above any earlier one of that key"). Random keys never come again and are not kept.
CREATE TABLE plane_key_fencing (
    namespace varchar(255) NOT NULL,
    key_name varchar(255) NOT NULL,
    fencing_token bigint NOT NULL,
    PRIMARY KEY (namespace, key_name)
);

-- Records an event and tells every controller (page 2, "Database notifications"). PostgreSQL refuses a notification
-- of 8,000 bytes or more: then the payload stays in the row, and the notification carries null for it (A6).
CREATE FUNCTION plane_emit(event_kind text, event_key text, event_payload jsonb) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    row event;
    message text;
BEGIN
    INSERT INTO event (kind, key, data) VALUES (event_kind, event_key, event_payload) RETURNING * INTO row;
    message := jsonb_build_object(
        'id', row.id, 'timestamp', row.created_at, 'kind', row.kind, 'key', row.key, 'payload', row.data
    )::text;
    IF octet_length(message) >= 8000 THEN
        message := jsonb_build_object(
            'id', row.id, 'timestamp', row.created_at, 'kind', row.kind, 'key', row.key, 'payload', NULL
        )::text;
    END IF;
    PERFORM pg_notify('plane_events', message);
    RETURN row.id;
END;
$$;
