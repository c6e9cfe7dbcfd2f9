--
-- The interface on a lone primary: arguments, answers, errors, privileges.
--
-- an older installation, brought up to date
CREATE EXTENSION lsn_tracker VERSION '1.0';
SELECT lsn_wait('0/1'), lsn_replicated('0/1');
SELECT pid, target FROM lsn_waiters();
ALTER EXTENSION lsn_tracker UPDATE TO '1.1';
SELECT pid, target, timeline, xid FROM lsn_waiters();
ALTER EXTENSION lsn_tracker UPDATE;

-- every object has a comment (but for views' row types, which newer servers count among them)
SELECT pg_describe_object(classid, objid, objsubid)
FROM pg_depend
WHERE refobjid = (SELECT oid FROM pg_extension WHERE extname = 'lsn_tracker')
  AND deptype = 'e' AND classid <> 'pg_type'::regclass AND obj_description(objid, classid::regclass::name) IS NULL;

-- all are volatile and parallel unsafe, and all but one for everybody
SELECT p.oid::regprocedure, p.provolatile, p.proparallel, has_function_privilege('public', p.oid, 'EXECUTE') AS everybody
FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'lsn_tracker')
  AND d.deptype = 'e'
ORDER BY p.oid::regprocedure::text COLLATE "C";

--
-- A primary answers at once.
--
SELECT lsn_wait('0/1');
SELECT lsn_wait(pg_current_wal_insert_lsn(), 0);
SELECT lsn_wait(target => '0/1', timeout => 9223372036854775807);
SELECT lsn_require('0/1') IS NULL AS is_null;
SELECT lsn_replicated('0/1');
SELECT lsn_replicated(pg_current_wal_insert_lsn());
SELECT lsn_last_replay() IS NULL AS is_null;
SELECT lsn_staleness();

-- NULL in, NULL out
SELECT lsn_wait(NULL) IS NULL AS is_null;
SELECT lsn_require(NULL, 10) IS NULL AS is_null;
SELECT lsn_replicated(NULL) IS NULL AS is_null;
SELECT lsn_wait('0/1', NULL);

-- nothing to watch
SELECT lsn_watch('0/1', 10);
SELECT lsn_watch(NULL);

-- asking now and waiting later
SELECT lsn_await_notification();
SELECT lsn_request_notification('0/1');
SELECT lsn_await_notification();
SELECT lsn_await_notification(10);
-- a NULL target leaves an earlier request alone
SELECT lsn_request_notification('0/1');
DISCARD PLANS;
SELECT lsn_await_notification(10);
SELECT lsn_request_notification('0/1');
DISCARD ALL;
SELECT lsn_await_notification(10);
SELECT lsn_request_notification('0/1');
SELECT lsn_request_notification(NULL) IS NULL AS is_null;
SELECT lsn_await_notification(NULL);
-- a request outlives its transaction
BEGIN;
SELECT lsn_request_notification('0/1');
ROLLBACK;
SELECT lsn_await_notification(10);

-- nobody waits
SELECT * FROM lsn_waiters();

--
-- Beyond this server's WAL
--
\set VERBOSITY terse
SELECT lsn_wait('FFFFFFFF/FFFFFFFF', 10);
SELECT lsn_require('FFFFFFFF/FFFFFFFF', 10);
SELECT lsn_replicated('FFFFFFFF/FFFFFFFF');
SELECT lsn_request_notification('FFFFFFFF/FFFFFFFF');
\set VERBOSITY default
DO $$
DECLARE
	state text; detail text;
BEGIN
	PERFORM lsn_replicated('FFFFFFFF/FFFFFFFF');
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, detail = PG_EXCEPTION_DETAIL;
	RAISE NOTICE USING MESSAGE = state || ': ' || regexp_replace(detail, '[0-9A-F]+/[0-9A-F]+', 'X/X');
END $$;

-- bad arguments
SELECT lsn_wait('0/1', -1);
SELECT lsn_require('0/1', -1);
SELECT lsn_watch('0/1', -1);
SELECT lsn_await_notification(-9223372036854775808);
SELECT lsn_wait('nonsense');
SELECT lsn_wait('');
SELECT lsn_wait('0/1', 'soon');

-- settings
SHOW lsn_tracker.default_timeout;
SHOW lsn_tracker.wakeup;
SHOW lsn_tracker.poll_interval;
SHOW lsn_tracker.log_waits;
SHOW lsn_tracker.allow_held_snapshot;
SHOW lsn_tracker.fail_fast;
SHOW lsn_tracker.enabled;
SET lsn_tracker.default_timeout = '1min';
SHOW lsn_tracker.default_timeout;
RESET lsn_tracker.default_timeout;
SET lsn_tracker.wakeup = 'poll';
SET lsn_tracker.enabled = off;
SET lsn_tracker.no_such_setting = 1;

--
-- Where it can be called.  The rule is the same on a primary.
--
SELECT lsn_wait('0/1') FROM generate_series(1, 3);
SELECT lsn_wait('0/1'), lsn_wait('0/2');
SELECT * FROM lsn_wait('0/1');
SELECT (SELECT lsn_wait('0/1')), count(lsn_wait('0/1')) FROM generate_series(1, 2);
WITH w AS MATERIALIZED (SELECT lsn_wait('0/1') AS ok) SELECT CASE WHEN ok THEN 'yes' END FROM w;
SELECT 1 WHERE lsn_wait('0/1');
SELECT 1 ORDER BY lsn_wait('0/1') LIMIT 1;

CREATE TABLE t (i int);
INSERT INTO t VALUES (1), (2);

-- the statement reads a relation
SELECT lsn_wait('0/1') FROM t;
SELECT lsn_wait('0/1'), (SELECT max(i) FROM t);
\set VERBOSITY terse
SELECT i FROM t WHERE lsn_wait('0/1');
INSERT INTO t SELECT 3 WHERE lsn_wait('0/1');
INSERT INTO t VALUES (3) RETURNING lsn_wait('0/1');
CREATE VIEW v AS SELECT i FROM t;
SELECT lsn_wait('0/1') FROM v;
CREATE VIEW waits AS SELECT lsn_wait('0/1') AS waited, 1 AS i;
CREATE VIEW waits_twice AS SELECT a.waited, b.waited AS again FROM waits a JOIN waits b USING (i);
SELECT * FROM waits;
SELECT * FROM waits_twice;
SELECT * FROM waits, v;
DROP VIEW waits_twice, waits;

-- one snapshot for the whole transaction
\set VERBOSITY default
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT lsn_wait('0/1');
ROLLBACK;
\set VERBOSITY terse
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT lsn_wait('0/1');
ROLLBACK;

-- not directly from the client's statement
\set VERBOSITY default
DO $$ BEGIN PERFORM lsn_wait('0/1'); END $$;
\set VERBOSITY terse
DO $$ DECLARE b boolean; BEGIN b := lsn_wait('0/1'); END $$;
DO $$ BEGIN FOR i IN 1 .. 2 LOOP COMMIT; PERFORM lsn_wait('0/1'); END LOOP; END $$;
DO $$ DECLARE b boolean; BEGIN FOR b IN SELECT lsn_wait('0/1') LOOP END LOOP; END $$;
CREATE FUNCTION in_sql() RETURNS boolean LANGUAGE sql VOLATILE AS $$ SELECT 1; SELECT lsn_wait('0/1') $$;
CREATE FUNCTION in_stable_sql() RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT lsn_wait('0/1') $$;
CREATE FUNCTION in_plpgsql() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$ BEGIN RETURN lsn_wait('0/1'); END $$;
CREATE FUNCTION in_stable_plpgsql() RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN lsn_wait('0/1'); END $$;
CREATE FUNCTION in_exception_block() RETURNS boolean LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN lsn_wait('0/1'); EXCEPTION WHEN OTHERS THEN RAISE NOTICE 'caught: %', SQLERRM; RETURN false; END $$;
CREATE PROCEDURE in_procedure() LANGUAGE plpgsql AS $$ BEGIN PERFORM lsn_wait('0/1'); END $$;
SELECT in_sql();
SELECT in_stable_sql();
SELECT in_plpgsql();
SELECT in_stable_plpgsql();
SELECT in_exception_block();
SELECT in_exception_block() FROM t;
CALL in_procedure();
PREPARE p AS SELECT lsn_wait('0/1');
EXECUTE p;
EXPLAIN ANALYZE SELECT lsn_wait('0/1');
COPY (SELECT lsn_wait('0/1')) TO STDOUT;
CREATE TABLE never AS SELECT lsn_wait('0/1');
VALUES (lsn_wait('0/1'));

-- an inlined function is no function any more
CREATE FUNCTION inlined(pg_lsn) RETURNS boolean LANGUAGE sql VOLATILE AS $$ SELECT lsn_wait($1) $$;
SELECT inlined('0/1');

-- an open cursor; a cursor over the function itself
\set VERBOSITY default
BEGIN;
DECLARE c CURSOR FOR SELECT i FROM t;
FETCH 1 FROM c;
SELECT lsn_wait('0/1');
ROLLBACK;
\set VERBOSITY terse
BEGIN;
DECLARE c CURSOR FOR SELECT i FROM t;
SAVEPOINT s;
SELECT lsn_wait('0/1');
ROLLBACK TO s;
FETCH ALL FROM c;
CLOSE c;
SELECT lsn_wait('0/1');
COMMIT;
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT g, lsn_wait('0/1') FROM generate_series(1, 3) g;
FETCH 2 FROM c;
FETCH BACKWARD 1 FROM c;
FETCH ALL FROM c;
COMMIT;
BEGIN;
DECLARE h CURSOR WITH HOLD FOR SELECT g, lsn_wait('0/1') FROM generate_series(1, 2) g;
COMMIT;
FETCH ALL FROM h;
CLOSE h;

-- an exported snapshot
BEGIN;
SELECT pg_export_snapshot() IS NOT NULL AS exported;
SELECT lsn_wait('0/1');
ROLLBACK;

-- the function author's own risk
SET lsn_tracker.allow_held_snapshot = on;
SELECT in_plpgsql(), in_sql(), in_stable_plpgsql();
SELECT i, lsn_wait('0/1') FROM t;
BEGIN;
DECLARE c CURSOR FOR SELECT i FROM t;
SELECT lsn_wait('0/1');
FETCH ALL FROM c;
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT lsn_wait('0/1');
SELECT i FROM t;
COMMIT;
RESET lsn_tracker.allow_held_snapshot;

-- lsn_replicated() and lsn_request_notification() do not wait: no rule for them
SELECT lsn_replicated('0/1') FROM t;

-- savepoints, and the session is as good as new
BEGIN;
SAVEPOINT a;
SELECT lsn_wait('0/1');
SAVEPOINT b;
SELECT lsn_wait('FFFFFFFF/FFFFFFFF');
ROLLBACK TO b;
SELECT lsn_wait('0/1');
RELEASE a;
SELECT lsn_wait('0/1');
COMMIT;
SELECT i FROM t ORDER BY i;

-- everybody may call, without any privilege of his own
CREATE ROLE regress_lsn_reader;
SET ROLE regress_lsn_reader;
SELECT lsn_wait('0/1'), lsn_replicated('0/1'), lsn_last_replay();
SELECT * FROM lsn_waiters();
SET lsn_tracker.default_timeout = 1;
SET lsn_tracker.log_waits = on;
RESET ROLE;
DROP ROLE regress_lsn_reader;

DROP EXTENSION lsn_tracker;
