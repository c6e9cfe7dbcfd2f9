--
-- Tokens, commit positions, lsn_tracker.token and transaction ids on a
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
SET lsn_tracker.token = '0/1@x';
SET lsn_tracker.token = 1;
SET lsn_tracker.token = '0/1@0';

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
				EXECUTE format('SET lsn_tracker.token = %L', token);
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
SET lsn_tracker.token = 'FFFFFFFF/FFFFFFFF@4294967295';
SELECT 1;
CREATE TABLE not_judged ();
INSERT INTO not_judged DEFAULT VALUES;
DROP TABLE not_judged;
RESET lsn_tracker.token;
SELECT 1;

--
-- The position of the session's own last commit
--
\c -
SELECT lsn_last_commit() IS NULL AS none_yet;
SHOW lsn_tracker.token;
SHOW lsn_tracker.report_commits;
SHOW lsn_tracker.track_reads;
CREATE TABLE written (i int);
SELECT lsn_last_commit() = token_of(split_part(lsn_last_commit(), '@', 1)::pg_lsn) AS is_a_token,
	lsn_last_commit() = current_setting('lsn_tracker.token') AS same;
SELECT lsn_wait(lsn_last_commit());

--
-- lsn_tracker.token: setting it records, in whatever way; it only moves up
--
RESET lsn_tracker.token;
SELECT lsn_last_commit() IS NULL AS forgotten;
SELECT nullif(current_setting('lsn_tracker.token'), '')::pg_lsn - '0/0' AS token;
SET lsn_tracker.token = '0/2';
SELECT nullif(current_setting('lsn_tracker.token'), '')::pg_lsn - '0/0' AS token;
SET lsn_tracker.token TO '0/1';
SELECT nullif(current_setting('lsn_tracker.token'), '')::pg_lsn - '0/0' AS token;
SET LSN_TRACKER.TOKEN TO "0/3";
SELECT nullif(current_setting('lsn_tracker.token'), '')::pg_lsn - '0/0' AS token;
SELECT set_config('lsn_tracker.token', '0/4', false) IS NOT NULL AS set;
BEGIN;
SET LOCAL lsn_tracker.token = '0/5';
SELECT nullif(current_setting('lsn_tracker.token'), '')::pg_lsn - '0/0' AS token;
SELECT 1;
COMMIT;
SELECT nullif(current_setting('lsn_tracker.token'), '')::pg_lsn - '0/0' AS token;
BEGIN;
SET lsn_tracker.token = '0/6';
SAVEPOINT s;
SET lsn_tracker.token = '0/7';
ROLLBACK TO s;
SELECT nullif(current_setting('lsn_tracker.token'), '')::pg_lsn - '0/0' AS token;
ROLLBACK;
SELECT nullif(current_setting('lsn_tracker.token'), '')::pg_lsn - '0/0' AS token;
BEGIN;
INSERT INTO written VALUES (1);
SELECT nullif(current_setting('lsn_tracker.token'), '')::pg_lsn - '0/0' AS token;
ROLLBACK;
SELECT nullif(current_setting('lsn_tracker.token'), '')::pg_lsn - '0/0' AS token;
CREATE FUNCTION sets() RETURNS text LANGUAGE sql SET lsn_tracker.token = '0/8' AS $$ SELECT current_setting('lsn_tracker.token') $$;
SET lsn_tracker.report_commits = off;
RESET lsn_tracker.token;
SELECT sets()::pg_lsn - '0/0' AS token;
SELECT nullif(current_setting('lsn_tracker.token'), '')::pg_lsn - '0/0' AS token;
UPDATE pg_settings SET setting = '0/9' WHERE name = 'lsn_tracker.token' \gset
SELECT nullif(current_setting('lsn_tracker.token'), '')::pg_lsn - '0/0' AS token;

-- forgotten
SET lsn_tracker.token = '';
SELECT nullif(current_setting('lsn_tracker.token'), '')::pg_lsn - '0/0' AS token;
SET lsn_tracker.token = '0/1';
SET lsn_tracker.token TO DEFAULT;
SELECT nullif(current_setting('lsn_tracker.token'), '')::pg_lsn - '0/0' AS token;
SET lsn_tracker.token = '0/1';
RESET ALL;
SELECT nullif(current_setting('lsn_tracker.token'), '')::pg_lsn - '0/0' AS token;
INSERT INTO written VALUES (1);
SELECT current_setting('lsn_tracker.token') = lsn_last_commit() AS known;
DISCARD ALL;
SELECT nullif(current_setting('lsn_tracker.token'), '')::pg_lsn - '0/0' AS token;
SELECT lsn_last_commit() IS NULL AS forgotten;

-- commits are reported behind a SET, too; and a commit that is newer stands
SET lsn_tracker.token = '0/1';
INSERT INTO written VALUES (2);
SELECT current_setting('lsn_tracker.token') = lsn_last_commit() AS newer;
SET lsn_tracker.token = '0/1';
SELECT current_setting('lsn_tracker.token') = lsn_last_commit() AS newer;

-- what is owed and not there: the next statement says so, in each isolation level
\set VERBOSITY terse
DISCARD ALL;
SET lsn_tracker.token = 'FFFFFFFF/FFFFFFFF@1';
SHOW lsn_tracker.token;
SELECT regexp_replace('SET, SHOW and FETCH', 'x', 'y');
BEGIN;
INSERT INTO written VALUES (3);
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT 1;
RESET lsn_tracker.token;
SELECT 1 AS one;
\set VERBOSITY default

-- by a role, a function of it, a database
CREATE ROLE regress_lsn_reader;
ALTER ROLE regress_lsn_reader SET lsn_tracker.token = '0/1@x';
ALTER ROLE regress_lsn_reader SET lsn_tracker.token = '0/1';
DROP ROLE regress_lsn_reader;
ALTER FUNCTION sets() SET lsn_tracker.token FROM CURRENT;
DROP FUNCTION sets();
DISCARD ALL;

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
DROP FUNCTION token_of(pg_lsn);
DROP EXTENSION lsn_tracker;
