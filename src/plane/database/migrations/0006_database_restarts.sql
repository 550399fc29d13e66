-- A server that was restarted may run on an older copy of its files, on the same timeline. Its start belongs to what
-- controllers have looked at before keys are granted.

CREATE OR REPLACE FUNCTION plane_timeline() RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN left(pg_walfile_name(pg_current_wal_lsn()), 8) || ' '
        || (extract(epoch FROM pg_postmaster_start_time()) * 1000)::bigint;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END;
$$;

-- How much the server has ever written, in bytes; less than before: its memory and files are those of an earlier time.
-- Null where the server does not tell.
CREATE FUNCTION plane_written() RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0');
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END;
$$;

UPDATE plane_clock SET timeline = plane_timeline() WHERE timeline = left(plane_timeline(), 8);
