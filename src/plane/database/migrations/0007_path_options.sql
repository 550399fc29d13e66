-- Options of the spawn config that change how the proxy serves a backend. An original controller never looks at them.

ALTER TABLE backend
    ADD COLUMN plane_rewrite_prefix boolean NOT NULL DEFAULT false,
    ADD COLUMN plane_token_in_cookie boolean NOT NULL DEFAULT false;
