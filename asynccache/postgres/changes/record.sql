
DECLARE
    most CONSTANT bigint := @most;
    changed bigint; -- null: the whole table
BEGIN
    -- A column that was dropped or renamed must not make the writer's statement fail.
    IF TG_OP = 'TRUNCATE' OR (
        SELECT count(*) FROM pg_attribute a
        WHERE a.attrelid = TG_RELID AND NOT a.attisdropped AND a.attname = ANY (@columns::name[])
    ) < cardinality(@columns::text[]) THEN
        changed := NULL;
    ELSIF TG_OP = 'INSERT' THEN
@insert
    ELSIF TG_OP = 'UPDATE' THEN
@update
    ELSE
@delete
    END IF;
    IF changed IS NULL OR changed > most THEN
        INSERT INTO @changes (relation, op, columns, keys, rows)
        VALUES (@relation, lower(TG_OP), @columns::text[], 0, NULL);
    END IF;
    IF @notify AND (changed IS NULL OR changed > 0) THEN
        PERFORM pg_notify(@channel, '');
    END IF;
    RETURN NULL;
END;
