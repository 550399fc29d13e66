-- The database's clock and its timeline, as controllers have found them; and which drone is behind a name. An original
-- controller never looks at any of it.

-- One row.
CREATE TABLE plane_clock (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- The database's time when a controller last found that its clock runs as a steady one does.
    confirmed_at timestamptz NOT NULL DEFAULT now(),
    -- By how much the clock has stepped, and the stored times with it, in all.
    shifted_ms bigint NOT NULL DEFAULT 0,
    -- That controller's boot, and its steady clock (CLOCK_BOOTTIME, in ms) at `confirmed_at`.
    boot_id text,
    steady_ms bigint,
    -- The timeline on which keys are granted, and when grants begin on it.
    timeline text,
    grants_after timestamptz
);

-- The time by which it is decided what has expired: never more than three seconds past the last confirmation, so that
-- a clock that steps forward ends nothing. That is less than what lies between the end of a lease on a drone and in the
-- database (plane.timing).
-- In plpgsql, which keeps its plans for the session: a function in SQL is planned anew in each statement (90 us).
CREATE FUNCTION plane_now() RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN least(now(), (SELECT confirmed_at FROM plane_clock WHERE one) + interval '3 seconds');
END;
$$;

-- The server's timeline: another after each promotion of a standby and each restored backup. Null where the server does
-- not tell.
CREATE FUNCTION plane_timeline() RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN left(pg_walfile_name(pg_current_wal_lsn()), 8);
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END;
$$;

-- Whether a key may be granted: not while the server is on a timeline that no controller has looked at yet, nor for a
-- while after that.
CREATE FUNCTION plane_may_grant() RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN NOT EXISTS (
        SELECT FROM plane_clock
        WHERE timeline IS DISTINCT FROM plane_timeline() OR grants_after > plane_now()
    );
END;
$$;

-- Nobody writes a time while all are shifted.
CREATE FUNCTION plane_lock_times() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE controller, drone, backend, backend_key, acme_txt_entries IN SHARE ROW EXCLUSIVE MODE;
END;
$$;

INSERT INTO plane_clock (timeline) VALUES (plane_timeline());

-- plane.protocol.handshake.DroneIdentity of the drone that is registered under the name; null for an original.
ALTER TABLE drone
    ADD COLUMN plane_instance text,
    ADD COLUMN plane_clock text,
    ADD COLUMN plane_boot_id text,
    ADD COLUMN plane_machine_id text;
