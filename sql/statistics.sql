--
-- Statistics, and how long replay will take, on a lone primary.
--
CREATE EXTENSION lsn_tracker;
SELECT pg_stat_lsn_tracker_reset();

-- all columns, and what they are where nothing has happened
\x
SELECT function_waits, gate_waits, at_once, slept, timed_out, failed_fast, lost, recovery_ended, cancelled, gave_way, refused,
	wait_time, max_wait_time, waiting, max_waiting, startup_wakeups, worker_wakeups, session_wakeups,
	questions, answers, question_failures, question_time, max_question_time,
	last_replayed_end_lsn, last_replayed_tli, pause_state, replay_rate, staleness,
	stats_reset <= now() AS stats_reset
FROM pg_stat_lsn_tracker;
SELECT attname, format_type(atttypid, atttypmod) AS type
FROM pg_attribute WHERE attrelid = 'pg_stat_lsn_tracker'::regclass AND attnum > 0 ORDER BY attnum;
\x
SELECT * FROM pg_stat_lsn_tracker_waits;

-- a primary has nothing to wait for, and does not count it; but what it refuses
CREATE TABLE counted AS SELECT 1 AS i;
SELECT lsn_wait('0/1');
\set VERBOSITY terse
SELECT lsn_wait('0/1') FROM counted;
\set VERBOSITY default
SELECT function_waits, gate_waits, refused FROM pg_stat_lsn_tracker;
SELECT pg_stat_lsn_tracker_reset();
SELECT function_waits, gate_waits, refused FROM pg_stat_lsn_tracker;

-- how long it will take
SELECT lsn_eta('0/1'), lsn_eta('0/1'::pg_lsn), lsn_eta('0/1@1');
SELECT lsn_eta(NULL) IS NULL AS is_null;
\set VERBOSITY terse
SELECT lsn_eta('FFFFFFFF/FFFFFFFF');
SELECT lsn_eta('FFFFFFFF/FFFFFFFF@2');
SELECT lsn_eta('nonsense');
\set VERBOSITY default

-- everybody may look, and not everybody may reset
CREATE ROLE regress_lsn_monitor;
SET ROLE regress_lsn_monitor;
SELECT count(*) FROM pg_stat_lsn_tracker;
SELECT count(*) FROM pg_stat_lsn_tracker_waits;
SELECT * FROM lsn_waiters();
SELECT lsn_eta('0/1');
SELECT pg_stat_lsn_tracker_reset();
-- nor see how the primary is reached, which may have a password
\set VERBOSITY sqlstate
SHOW lsn_tracker.primary_conninfo;
SET lsn_tracker.primary_conninfo = 'host=elsewhere';
\set VERBOSITY default
SELECT count(*) FROM pg_settings WHERE name = 'lsn_tracker.primary_conninfo';
RESET ROLE;
SELECT count(*) FROM pg_settings WHERE name = 'lsn_tracker.primary_conninfo';
GRANT EXECUTE ON FUNCTION pg_stat_lsn_tracker_reset() TO regress_lsn_monitor;
SET ROLE regress_lsn_monitor;
SELECT pg_stat_lsn_tracker_reset();
RESET ROLE;
DROP TABLE counted;
DROP EXTENSION lsn_tracker;
DROP ROLE regress_lsn_monitor;
