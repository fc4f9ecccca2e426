        -- A statement's rows: it may only name the transition tables that its own trigger has.
        changed := (SELECT count(*) FROM (SELECT FROM @counted LIMIT most + 1) s);
        IF changed BETWEEN 1 AND most THEN
            INSERT INTO @changes (relation, op, columns, keys, rows)
            SELECT @relation, lower(TG_OP), @columns::text[], count(*), jsonb_agg(c.item)
            FROM (
                SELECT d.item, (row_number() OVER () - 1) / @keys AS chunk
                FROM (@items) d
            ) c
            GROUP BY c.chunk;
        END IF;