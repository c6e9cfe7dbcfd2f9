/* lsn_tracker--1.0--1.1.sql */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION lsn_tracker UPDATE TO '1.1'" to load this file. \quit

-- Tokens: what took a pg_lsn takes LSN@timeline, too.  A literal that could be
-- either is text.

CREATE FUNCTION lsn_wait(target text, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME', 'lsn_wait_token'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_wait(text, bigint) IS
'wait until this standby has replayed target, a position or a token (LSN@timeline), at most timeout ms (0: no limit; NULL: lsn_tracker.default_timeout); true: replayed, false: timed out; an error if a failover has lost it';

CREATE FUNCTION lsn_require(target text, timeout bigint DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME', 'lsn_require_token'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_require(text, bigint) IS
'like lsn_wait, but raise an error if it times out, so that what follows is not run';

CREATE FUNCTION lsn_replicated(target text)
RETURNS boolean
AS 'MODULE_PATHNAME', 'lsn_replicated_token'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_replicated(text) IS
'has this standby replayed target, a position or a token? does not wait; an error if a failover has lost it';

CREATE FUNCTION lsn_watch("from" text, timeout bigint DEFAULT NULL)
RETURNS pg_lsn
AS 'MODULE_PATHNAME', 'lsn_watch_token'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_watch(text, bigint) IS
'the replay position, as soon as it is past "from", a position or a token (NULL: at once); NULL if timeout ms have passed first; an error if a failover has lost "from"';

CREATE FUNCTION lsn_request_notification(target text)
RETURNS void
AS 'MODULE_PATHNAME', 'lsn_request_notification_token'
LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_request_notification(text) IS
'remember target, a position or a token, in this session, for lsn_await_notification; replaces an earlier request';

-- Where positions and tokens come from

CREATE FUNCTION lsn_last_commit()
RETURNS text
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_last_commit() IS
'the end of this session''s last commit that wrote WAL, as a token; NULL before the first';

CREATE FUNCTION lsn_wait_xact(xid xid8, timeout bigint DEFAULT NULL)
RETURNS boolean
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_wait_xact(xid8, bigint) IS
'wait until a transaction is committed and visible on this standby, at most timeout ms; true: it is, false: timed out; an error if it was rolled back';

DROP FUNCTION lsn_waiters();

CREATE FUNCTION lsn_waiters(OUT pid integer, OUT target pg_lsn, OUT timeline bigint, OUT xid xid8)
RETURNS SETOF record
AS 'MODULE_PATHNAME'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION lsn_waiters() IS
'the sessions that wait for replay just now, and for which position (and its timeline, if it is a token) or transaction';
