-- When the current connection of a node began. The function is volatile, so each call reads the node's row as it is at that
-- moment: a statement that has waited for the drone's row sees the node's row as it was before it waited.

CREATE FUNCTION plane_connected_at(node_id integer) RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
    SELECT last_connection_start_time FROM node WHERE id = node_id
$$;
