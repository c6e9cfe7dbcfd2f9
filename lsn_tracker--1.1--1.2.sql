/* lsn_tracker--1.1--1.2.sql */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION lsn_tracker UPDATE TO '1.2'" to load this file. \quit

CREATE FUNCTION lsn_staleness()
RETURNS interval
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_staleness() IS
'how old this standby''s data may be: everything that was committed on the primary so long ago has been replayed; asks the primary, at most a second; NULL if it never answered; 0 on a primary';

-- What people and monitors look at

DROP FUNCTION lsn_waiters();

CREATE FUNCTION lsn_waiters(OUT pid integer, OUT target pg_lsn, OUT timeline bigint, OUT xid xid8,
	OUT bytes_to_go bigint, OUT waitstart timestamptz, OUT deadline timestamptz, OUT eta interval, OUT way text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'lsn_waiters_1_2'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_waiters() IS
'the sessions that wait for replay just now: for which position (and its timeline, if it is a token) or transaction, since when, until when at most, and how long it will take; other roles'' targets only for members of pg_read_all_stats';

CREATE FUNCTION lsn_eta(target pg_lsn)
RETURNS interval
AS 'MODULE_PATHNAME'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_eta(pg_lsn) IS
'in what time this standby will have replayed target; 0: it has; NULL: not known; does not wait';

CREATE FUNCTION lsn_eta(target text)
RETURNS interval
AS 'MODULE_PATHNAME', 'lsn_eta_token'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_eta(text) IS
'in what time this standby will have replayed target, a position or a token; 0: it has; NULL: not known; does not wait; an error if a failover has lost it';

CREATE FUNCTION pg_stat_get_lsn_tracker(
	OUT function_waits bigint, OUT gate_waits bigint, OUT at_once bigint, OUT slept bigint,
	OUT timed_out bigint, OUT failed_fast bigint, OUT lost bigint, OUT recovery_ended bigint,
	OUT cancelled bigint, OUT gave_way bigint, OUT refused bigint,
	OUT wait_time double precision, OUT max_wait_time double precision,
	OUT waiting integer, OUT max_waiting integer,
	OUT startup_wakeups bigint, OUT worker_wakeups bigint, OUT session_wakeups bigint,
	OUT questions bigint, OUT answers bigint, OUT question_failures bigint,
	OUT question_time double precision, OUT max_question_time double precision,
	OUT last_replayed_end_lsn pg_lsn, OUT last_replayed_tli integer, OUT pause_state text,
	OUT replay_rate double precision, OUT staleness interval, OUT stats_reset timestamptz)
RETURNS record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION pg_stat_get_lsn_tracker() IS
'for the view pg_stat_lsn_tracker';

CREATE VIEW pg_stat_lsn_tracker AS SELECT * FROM pg_stat_get_lsn_tracker();

COMMENT ON VIEW pg_stat_lsn_tracker IS
'one row: how sessions have waited for replay since stats_reset, and how replay stands';

CREATE FUNCTION pg_stat_get_lsn_tracker_waits(OUT metric text, OUT bucket_le double precision, OUT count bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION pg_stat_get_lsn_tracker_waits() IS
'for the view pg_stat_lsn_tracker_waits';

CREATE VIEW pg_stat_lsn_tracker_waits AS SELECT * FROM pg_stat_get_lsn_tracker_waits();

COMMENT ON VIEW pg_stat_lsn_tracker_waits IS
'histograms since stats_reset: how many waits in functions and at the gate, and questions to the primary, have taken at most bucket_le seconds';

GRANT SELECT ON pg_stat_lsn_tracker, pg_stat_lsn_tracker_waits TO PUBLIC;

CREATE FUNCTION pg_stat_lsn_tracker_reset()
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION pg_stat_lsn_tracker_reset() FROM PUBLIC;

COMMENT ON FUNCTION pg_stat_lsn_tracker_reset() IS
'begin the statistics anew';
