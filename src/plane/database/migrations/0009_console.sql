-- The secret of the console's sessions: one half of what signs them, the other being the hash of an API key in each
-- controller's key file. 244 random bits. An original controller never looks at it.

CREATE TABLE plane_console (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    session_secret text NOT NULL DEFAULT gen_random_uuid()::text || gen_random_uuid()::text
);
INSERT INTO plane_console DEFAULT VALUES;
