-- The tables of Plane 0.5.5, column for column. On a database that an original controller made, everything here
-- exists already and nothing is changed.

CREATE TABLE IF NOT EXISTS controller (
    id varchar(255) PRIMARY KEY,
    first_seen timestamptz NOT NULL DEFAULT now(),
    last_heartbeat timestamptz NOT NULL,
    is_online boolean NOT NULL,
    plane_version varchar(255) NOT NULL,
    plane_hash varchar(255) NOT NULL,
    ip inet
);

CREATE TABLE IF NOT EXISTS node (
    id serial PRIMARY KEY,
    kind varchar(255) NOT NULL,
    name varchar(255) NOT NULL,
    cluster varchar(255),
    plane_version varchar(255) NOT NULL,
    plane_hash varchar(255) NOT NULL,
    controller varchar(255) REFERENCES controller (id),
    ip inet NOT NULL,
    last_connection_start_time timestamptz
);
CREATE UNIQUE INDEX IF NOT EXISTS idx_cluster_name ON node (cluster, name);

CREATE TABLE IF NOT EXISTS drone (
    id serial PRIMARY KEY REFERENCES node (id),
    ready boolean NOT NULL,
    draining boolean NOT NULL DEFAULT false,
    last_heartbeat timestamptz,
    last_local_time timestamptz,
    pool varchar(255) NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS idx_drone_last_heartbeat ON drone (last_heartbeat);

CREATE TABLE IF NOT EXISTS backend (
    id varchar(255) PRIMARY KEY,
    cluster varchar(255) NOT NULL,
    last_status varchar(255) NOT NULL,
    last_status_time timestamptz NOT NULL,
    cluster_address varchar(255),
    drone_id integer NOT NULL REFERENCES drone (id),
    expiration_time timestamptz,
    last_keepalive timestamptz NOT NULL,
    allowed_idle_seconds integer,
    state jsonb NOT NULL,
    static_token varchar(256),
    subdomain varchar(255),
    last_status_number integer
);
CREATE INDEX IF NOT EXISTS idx_backend_drone_id ON backend (drone_id) WHERE last_status <> 'terminated';
CREATE INDEX IF NOT EXISTS idx_backend_static_token ON backend (static_token);

CREATE TABLE IF NOT EXISTS backend_state (
    id serial PRIMARY KEY,
    backend_id varchar(255) NOT NULL REFERENCES backend (id),
    state jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS idx_backend_state_created_at ON backend_state (backend_id, created_at);

CREATE TABLE IF NOT EXISTS backend_key (
    id varchar(255) PRIMARY KEY REFERENCES backend (id),
    namespace varchar(255) NOT NULL,
    key_name varchar(255) NOT NULL,
    tag varchar(255) NOT NULL,
    expires_at timestamptz NOT NULL,
    fencing_token bigint NOT NULL,
    allow_renew boolean NOT NULL DEFAULT true
);
CREATE UNIQUE INDEX IF NOT EXISTS idx_namespace_name ON backend_key (namespace, key_name);

CREATE TABLE IF NOT EXISTS backend_action (
    id varchar(255) PRIMARY KEY,
    backend_id varchar(255) REFERENCES backend (id),
    drone_id integer NOT NULL REFERENCES drone (id),
    action jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    acked_at timestamptz
);
CREATE INDEX IF NOT EXISTS idx_backend_action_backend ON backend_action (backend_id);
CREATE INDEX IF NOT EXISTS idx_backend_action_created_at ON backend_action (created_at);
CREATE INDEX IF NOT EXISTS idx_backend_action_pending ON backend_action (drone_id, created_at) WHERE acked_at IS NULL;

CREATE TABLE IF NOT EXISTS token (
    token varchar(255) PRIMARY KEY,
    backend_id varchar(255) NOT NULL REFERENCES backend (id),
    expiration_time timestamptz NOT NULL,
    username varchar(255),
    auth jsonb NOT NULL,
    secret_token varchar(255) NOT NULL
);

CREATE TABLE IF NOT EXISTS event (
    id serial PRIMARY KEY,
    kind varchar(255) NOT NULL,
    key varchar(255),
    created_at timestamptz NOT NULL DEFAULT now(),
    data jsonb NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_event_created_at ON event (created_at);

CREATE TABLE IF NOT EXISTS acme_txt_entries (
    cluster varchar(255) PRIMARY KEY,
    leased_at timestamptz NOT NULL DEFAULT now(),
    leased_by integer NOT NULL REFERENCES node (id),
    txt_value varchar(255)
);
