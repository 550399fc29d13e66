-- name: notify_logs
-- Publishes a log request or its response (kind $1) for key $2; nothing is stored.
SELECT pg_notify('plane_logs', jsonb_build_object(
    'kind', $1::text, 'key', $2::text, 'timestamp', now(), 'payload', $3::jsonb
)::text);
