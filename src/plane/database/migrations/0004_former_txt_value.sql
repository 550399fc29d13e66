-- The value that a cluster's challenge had before the present one. The challenges of the apex and of the wildcard have
-- one name: a resolver that asks for either finds both. An original controller never looks at it.
ALTER TABLE acme_txt_entries ADD COLUMN plane_former_txt_value varchar(255);
