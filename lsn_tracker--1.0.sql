/* lsn_tracker--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION lsn_tracker" to load this file. \quit

CREATE FUNCTION lsn_wait(target pg_lsn, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_wait(pg_lsn, bigint) IS
'wait until this standby has replayed target, at most timeout ms (0: no limit; NULL: lsn_tracker.default_timeout); true: replayed, false: timed out';

CREATE FUNCTION lsn_require(target pg_lsn, timeout bigint DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_require(pg_lsn, bigint) IS
'like lsn_wait, but raise an error if it times out, so that what follows is not run';

CREATE FUNCTION lsn_replicated(target pg_lsn)
RETURNS boolean
AS 'MODULE_PATHNAME'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_replicated(pg_lsn) IS
'has this standby replayed target? does not wait';

CREATE FUNCTION lsn_last_replay()
RETURNS pg_lsn
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_last_replay() IS
'the position up to which the tracker has seen replay come; NULL on a primary';

CREATE FUNCTION lsn_watch("from" pg_lsn, timeout bigint DEFAULT NULL)
RETURNS pg_lsn
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_watch(pg_lsn, bigint) IS
'the replay position, as soon as it is past "from" (NULL: at once); NULL if timeout ms have passed first';

CREATE FUNCTION lsn_request_notification(target pg_lsn)
RETURNS void
AS 'MODULE_PATHNAME'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_request_notification(pg_lsn) IS
'remember target in this session, for lsn_await_notification; replaces an earlier request';

CREATE FUNCTION lsn_await_notification(timeout bigint DEFAULT 3000)
RETURNS boolean
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_await_notification(bigint) IS
'wait for the target of lsn_request_notification, at most timeout ms; true uses the request up, a time-out does not';

CREATE FUNCTION lsn_waiters(OUT pid integer, OUT target pg_lsn)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_waiters() IS
'the sessions that wait for replay just now, and for which position';
