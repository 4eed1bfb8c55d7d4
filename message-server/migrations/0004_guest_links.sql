-- The link a guest came by, so that it can be taken back when a host removes the guest. Empty: who came before this was noted.
ALTER TABLE guests ADD COLUMN link_hash TEXT NOT NULL DEFAULT '';
