-- Indexes for what the original never asks. An original controller never notices them.

-- Revocation, and the deletion of old backends.
CREATE INDEX idx_plane_token_backend ON token (backend_id);
-- Expired tokens: the rows lie in the order in which they expire, so an index of block ranges costs next to nothing.
CREATE INDEX idx_plane_token_expiration ON token USING brin (expiration_time);
-- Old terminated backends; backends that stay `scheduled`.
CREATE INDEX idx_plane_backend_terminated ON backend (last_status_time) WHERE last_status = 'terminated';
CREATE INDEX idx_plane_backend_scheduled ON backend (last_status_time) WHERE last_status = 'scheduled';
