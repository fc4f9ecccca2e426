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
        changed := (SELECT count(*) FROM (SELECT FROM new_rows LIMIT most + 1) s);
        IF changed BETWEEN 1 AND most THEN
            INSERT INTO @changes (relation, op, columns, keys, rows)
            SELECT @relation, 'insert', @columns::text[], count(*), jsonb_agg(c.item)
            FROM (
                SELECT d.item, (row_number() OVER () - 1) / @keys AS chunk
                FROM (SELECT DISTINCT jsonb_build_array(@values) AS item FROM new_rows r) d
            ) c
            GROUP BY c.chunk;
        END IF;
    ELSIF TG_OP = 'UPDATE' THEN
        changed := (SELECT count(*) FROM (SELECT FROM new_rows LIMIT most + 1) s);
        IF changed BETWEEN 1 AND most THEN
            INSERT INTO @changes (relation, op, columns, keys, rows)
            SELECT @relation, 'update', @columns::text[], count(*), jsonb_agg(c.item)
            FROM (
                SELECT d.item, (row_number() OVER () - 1) / @keys AS chunk
                FROM (
                    SELECT jsonb_build_array(@values) AS item FROM old_rows r
                    UNION SELECT jsonb_build_array(@values) FROM new_rows r
                ) d
            ) c
            GROUP BY c.chunk;
        END IF;
    ELSE
        changed := (SELECT count(*) FROM (SELECT FROM old_rows LIMIT most + 1) s);
        IF changed BETWEEN 1 AND most THEN
            INSERT INTO @changes (relation, op, columns, keys, rows)
            SELECT @relation, 'delete', @columns::text[], count(*), jsonb_agg(c.item)
            FROM (
                SELECT d.item, (row_number() OVER () - 1) / @keys AS chunk
                FROM (SELECT DISTINCT jsonb_build_array(@values) AS item FROM old_rows r) d
            ) c
            GROUP BY c.chunk;
        END IF;
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
