--
-- Tokens, commit positions, SET lsn_tracker.min_lsn and transaction ids on a
-- lone primary.
--
CREATE EXTENSION lsn_tracker;

-- a position on this server's timeline
CREATE FUNCTION token_of(pg_lsn) RETURNS text LANGUAGE sql AS
$$ SELECT $1 || '@' || timeline_id FROM pg_control_checkpoint() $$;

--
-- An unknown literal is text; each function takes both.
--
SELECT lsn_wait('0/1'), lsn_wait('0/1'::text), lsn_wait('0/1'::pg_lsn);
SELECT lsn_wait(token_of('0/2') || '~0/1');
SELECT lsn_wait(token_of('0/1')), lsn_wait(token_of('0/1'), 10), lsn_wait(target => token_of('0/1'));
SELECT lsn_require('0/1'::pg_lsn), lsn_require(token_of('0/1'));
SELECT lsn_replicated('0/1'::pg_lsn), lsn_replicated(token_of('0/1'));
SELECT lsn_request_notification('0/1'::pg_lsn);
SELECT lsn_await_notification();
SELECT lsn_request_notification(token_of('0/1'));
SELECT lsn_await_notification();
SELECT lsn_wait(NULL::text) IS NULL, lsn_wait(NULL::pg_lsn) IS NULL,
	lsn_require(NULL::text) IS NULL, lsn_replicated(NULL::text) IS NULL;
PREPARE p (text) AS SELECT lsn_replicated($1);
EXECUTE p (token_of('0/1'));
SELECT lsn_watch(token_of('0/1'), 10);
SELECT lsn_watch('0/1'::pg_lsn, 10);

--
-- Malformed tokens
--
SELECT lsn_wait('0/1@');
SELECT lsn_wait('@1');
SELECT lsn_wait('0/1@1@1');
SELECT lsn_wait('0/1@-1');
SELECT lsn_wait('0/1@ 1');
SELECT lsn_wait('0/1@1 ');
SELECT lsn_wait(' 0/1@1');
SELECT lsn_wait('0/1@0x1');
SELECT lsn_wait('0/2@1~');
SELECT lsn_wait('0/2@1~0/2');
SELECT lsn_wait('0/2@~0/1');
SELECT lsn_wait('0/2~0/1');
SELECT lsn_wait('123456789/1@1');
SELECT lsn_wait('0/1@0');
SELECT lsn_wait('0/1@4294967296');
SELECT lsn_wait('0/1@99999999999999999999999999999999999999999');
SELECT lsn_require('0/1@x');
SELECT lsn_replicated('0/1@x');
SELECT lsn_request_notification('0/1@x');
SELECT lsn_watch('0/1@x');
SET lsn_tracker.min_lsn = '0/1@x';
SET lsn_tracker.min_lsn = 1;

-- by the thousand: good ones with something deleted, inserted or replaced
SELECT setseed(0.5);
DO $$
DECLARE
	alphabet text[] := string_to_array('0 1 7 9 a F g @ @ / ~ - + . x % \ '' "', ' ') || ARRAY[' ', E'\x01', E'\t', E'\n', ''];
	token text;
	pos int;
	well_formed boolean;
	good int := 0;
	bad int := 0;
	state text;
BEGIN
	FOR i IN 1 .. 10000 LOOP
		token := (ARRAY['0/301DC08@1', '0/1', 'FFFFFFFF/FFFFFFFF@4294967295', '1/0@2~0/FF', repeat('9', i % 100), '', '0/301DC08@1~0/301D000'])[1 + i % 7];
		FOR j IN 1 .. 1 + i % 3 LOOP
			pos := 1 + floor(random() * (length(token) + 1));
			token := overlay(token PLACING alphabet[1 + floor(random() * array_length(alphabet, 1))]
							 FROM pos FOR floor(random() * 2)::int);
		END LOOP;
		well_formed := token ~ '^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}(@[0-9]+(~[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})?)?$';
		IF well_formed AND token LIKE '%~%' THEN
			-- it tells that the position was not flushed
			well_formed := split_part(token, '~', 2)::pg_lsn < split_part(token, '@', 1)::pg_lsn;
		END IF;
		BEGIN
			PERFORM lsn_replicated(token);
			state := 'true';
		EXCEPTION WHEN OTHERS THEN
			state := SQLSTATE;
		END;
		IF well_formed THEN
			good := good + 1;
			IF state NOT IN ('true', '22023') THEN
				RAISE WARNING 'well-formed "%": %', token, state;
			END IF;
		ELSE
			bad := bad + 1;
			IF state <> '22P02' THEN
				RAISE WARNING 'malformed "%": %', token, state;
			END IF;
			BEGIN
				EXECUTE format('SET lsn_tracker.min_lsn = %L', token);
				state := CASE WHEN token = '' THEN '22P02' ELSE 'set' END;
			EXCEPTION WHEN OTHERS THEN
				state := SQLSTATE;
			END;
			IF state <> '22P02' THEN
				RAISE WARNING 'malformed "%", SET: %', token, state;
			END IF;
		END IF;
	END LOOP;
	RAISE NOTICE 'malformed by the thousand: %, well-formed at least a hundred: %', bad > 1000, good > 100;
END $$;

--
-- Not this server's
--
\set VERBOSITY terse
SELECT lsn_wait('FFFFFFFF/FFFFFFFF@1', 10);
\set VERBOSITY default
SELECT lsn_wait('FFFFFFFF/FFFFFFFF@4294967295', 10);
SELECT lsn_replicated('FFFFFFFF/FFFFFFFF@4294967295');
SET lsn_tracker.min_lsn = 'FFFFFFFF/FFFFFFFF@4294967295';

--
-- The position of the session's own last commit
--
\c -
SELECT lsn_last_commit() IS NULL AS none_yet;
SHOW lsn_tracker.last_commit;
SHOW lsn_tracker.report_commits;
CREATE TABLE written (i int);
SELECT lsn_last_commit() = token_of(split_part(lsn_last_commit(), '@', 1)::pg_lsn) AS is_a_token,
	lsn_last_commit() = current_setting('lsn_tracker.last_commit') AS same;
SELECT lsn_wait(lsn_last_commit());
SET lsn_tracker.last_commit = '0/1@1';
SELECT set_config('lsn_tracker.last_commit', '0/1@1', false);
ALTER SYSTEM SET lsn_tracker.last_commit = '0/1@1';

--
-- SET lsn_tracker.min_lsn
--
SHOW lsn_tracker.min_lsn;
SET lsn_tracker.min_lsn = '0/1';
SHOW lsn_tracker.min_lsn;
SET lsn_tracker.min_lsn TO '0/2@1';
SHOW lsn_tracker.min_lsn;
SET LSN_TRACKER.MIN_LSN TO "0/3";
SHOW lsn_tracker.min_lsn;
\set VERBOSITY terse
SET lsn_tracker.min_lsn = 'FFFFFFFF/FFFFFFFF@1';
\set VERBOSITY default
SHOW lsn_tracker.min_lsn;
RESET lsn_tracker.min_lsn;
SHOW lsn_tracker.min_lsn;
SET lsn_tracker.min_lsn = '0/1';
SET lsn_tracker.min_lsn = '';
SHOW lsn_tracker.min_lsn;
SET lsn_tracker.min_lsn = '0/1';
SET lsn_tracker.min_lsn TO DEFAULT;
SHOW lsn_tracker.min_lsn;
SET lsn_tracker.min_lsn = '0/1', '0/2';

-- SET LOCAL, in each isolation level
BEGIN;
SET LOCAL lsn_tracker.min_lsn = '0/1';
SHOW lsn_tracker.min_lsn;
SELECT count(*) FROM written;
SET LOCAL lsn_tracker.min_lsn = '0/2';
COMMIT;
SHOW lsn_tracker.min_lsn;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL lsn_tracker.min_lsn = '0/1';
SELECT count(*) FROM written;
SET LOCAL lsn_tracker.min_lsn = '0/2';
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SET lsn_tracker.min_lsn = '0/1';
SELECT count(*) FROM written;
COMMIT;
SHOW lsn_tracker.min_lsn;
RESET lsn_tracker.min_lsn;
BEGIN;
SAVEPOINT s;
SET lsn_tracker.min_lsn = '0/1';
ROLLBACK TO s;
SHOW lsn_tracker.min_lsn;
COMMIT;

-- not under a snapshot
BEGIN;
DECLARE c CURSOR FOR SELECT i FROM written;
SET LOCAL lsn_tracker.min_lsn = '0/1';
ROLLBACK;
DO $$ BEGIN SET lsn_tracker.min_lsn = '0/1'; END $$;

-- nor in any other way
SELECT set_config('lsn_tracker.min_lsn', '0/1', false);
ALTER SYSTEM SET lsn_tracker.min_lsn = '0/1';
\set VERBOSITY terse
SELECT set_config('lsn_tracker.min_lsn', '0/1', true);
CREATE ROLE regress_lsn_reader;
ALTER ROLE regress_lsn_reader SET lsn_tracker.min_lsn = '0/1';
DROP ROLE regress_lsn_reader;
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET lsn_tracker.min_lsn = %L', current_database(), '0/1'); END $$;
CREATE FUNCTION fresh() RETURNS int LANGUAGE sql SET lsn_tracker.min_lsn = '0/1' AS 'SELECT 1';
CREATE FUNCTION fresh() RETURNS int LANGUAGE sql AS 'SELECT 1';
ALTER FUNCTION fresh() SET lsn_tracker.min_lsn = '0/1';
SET lsn_tracker.min_lsn = '0/1';
ALTER FUNCTION fresh() SET lsn_tracker.min_lsn FROM CURRENT;
UPDATE pg_settings SET setting = '0/2' WHERE name = 'lsn_tracker.min_lsn';
SHOW lsn_tracker.min_lsn;
DISCARD ALL;
SHOW lsn_tracker.min_lsn;
\set VERBOSITY default

--
-- Transactions
--
INSERT INTO written VALUES (1) RETURNING pg_current_xact_id() AS xid \gset
SELECT lsn_wait_xact(:'xid'), lsn_wait_xact(:'xid', 10);
SELECT lsn_wait_xact(NULL) IS NULL AS is_null;
SELECT lsn_wait_xact('1'), lsn_wait_xact('2');
SELECT lsn_wait_xact(:'xid', -1);
SELECT lsn_wait_xact('0');
\set VERBOSITY terse
BEGIN;
INSERT INTO written VALUES (2) RETURNING pg_current_xact_id() AS rolled_back \gset
ROLLBACK;
SELECT regexp_replace(:'rolled_back', '\d+', 'N');
DO $$
DECLARE
	old text; state text;
BEGIN
	SET LOCAL lsn_tracker.allow_held_snapshot = on;
	PERFORM pg_current_xact_id();
	BEGIN
		PERFORM lsn_wait_xact(pg_current_xact_id());
	EXCEPTION WHEN OTHERS THEN
		RAISE NOTICE 'its own: % %', SQLSTATE, regexp_replace(SQLERRM, '\d+', 'N');
	END;
	BEGIN
		PERFORM lsn_wait_xact((pg_current_xact_id()::text::bigint - 1)::text::xid8);
	EXCEPTION WHEN OTHERS THEN
		RAISE NOTICE 'rolled back: % %', SQLSTATE, regexp_replace(SQLERRM, '\d+', 'N');
	END;
	BEGIN
		PERFORM lsn_wait_xact('9223372036854775807');
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS old = PG_EXCEPTION_DETAIL;
		RAISE NOTICE 'not begun: % % %', SQLSTATE, SQLERRM, regexp_replace(old, '\d+', 'N');
	END;
END $$;
\set VERBOSITY default

DROP TABLE written;
DROP FUNCTION fresh();
DROP FUNCTION token_of(pg_lsn);
DROP EXTENSION lsn_tracker;
