-- name: notify_logs
-- A question for logs, or its answer ($1 the kind), for whoever listens for key $2; nothing is stored.
SELECT pg_notify('plane_logs', jsonb_build_object(
    'kind', $1::text, 'key', $2::text, 'timestamp', now(), 'payload', $3::jsonb
)::text);
