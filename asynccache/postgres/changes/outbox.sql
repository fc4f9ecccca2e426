-- The outbox: what triggers have recorded, in the transactions that changed it. By transaction first, since that is how
-- it is read; ids tell changes of one transaction apart.
CREATE TABLE IF NOT EXISTS @changes (
    id bigint GENERATED ALWAYS AS IDENTITY,
    xid xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    relation text NOT NULL,
    op text NOT NULL,
    columns text[] NOT NULL,
    keys integer NOT NULL,
    rows jsonb, -- arrays of texts, in the order of columns; null: the whole table
    PRIMARY KEY (xid, id)
);

-- How far each listener has come, and which process is it.
CREATE TABLE IF NOT EXISTS @listeners (
    name text,
    namespace text,
    mapping text,
    relations text[] NOT NULL,
    position pg_snapshot NOT NULL,
    cleared boolean NOT NULL,
    server text NOT NULL,
    owner uuid,
    lease_until timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (name, namespace, mapping)
) WITH (fillfactor = 50);
