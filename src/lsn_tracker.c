/*-------------------------------------------------------------------------
 *
 * lsn_tracker.c
 *		_PG_init: the settings and the hooks.
 *
 * Runs in the postmaster when listed in shared_preload_libraries.  Loaded any
 * other way the library has no shared memory and no worker, and its functions
 * say so (functions.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"

#include "compat.h"
#include "lsn_tracker.h"

/* which version this process has loaded: pg_get_loaded_modules(), from 18 on */
PG_MODULE_MAGIC_EXT(.name = "lsn_tracker", .version = LSN_TRACKER_VERSION);

int			default_timeout = 5000;
bool		enabled = true;
int			wakeup_mode = WAKEUP_REDO;
int			poll_interval = 10;
bool		log_waits = false;
bool		allow_held_snapshot = false;
bool		report_commits = true;
bool		track_reads = false;
bool		fail_fast = false;
int			max_staleness = -1;
int			on_timeout = ON_TIMEOUT_ERROR;

/* The values are elsewhere; the server wants a place for them. */
static char *token;
static char *newest_commit;

static const struct config_enum_entry wakeup_options[] = {
	{"redo", WAKEUP_REDO, false},
	{"poll", WAKEUP_POLL, false},
	{NULL, 0, false},
};

static const struct config_enum_entry on_timeout_options[] = {
	{"error", ON_TIMEOUT_ERROR, false},
	{"stale", ON_TIMEOUT_STALE, false},
	{NULL, 0, false},
};

void		_PG_init(void);

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	DefineCustomIntVariable("lsn_tracker.default_timeout",
							"How long a wait lasts that gives no timeout.",
							"0 means no limit.",
							&default_timeout,
							5000, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomBoolVariable("lsn_tracker.enabled",
							 "Sessions can wait for replay on this standby.",
							 "If not, the startup process does nothing for lsn_tracker, and waits end with an error.",
							 &enabled,
							 true,
							 PGC_SIGHUP, 0,
							 NULL, AssignEnabled, NULL);

	DefineCustomEnumVariable("lsn_tracker.wakeup",
							 "Who notices that a position has been replayed.",
							 "\"redo\": the startup process, after each WAL record. "
							 "\"poll\": the background worker, every lsn_tracker.poll_interval while a session waits.",
							 &wakeup_mode,
							 WAKEUP_REDO, wakeup_options,
							 PGC_POSTMASTER, 0,
							 NULL, NULL, NULL);

	DefineCustomIntVariable("lsn_tracker.poll_interval",
							"How often the background worker looks if lsn_tracker.wakeup is \"poll\".",
							NULL,
							&poll_interval,
							10, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);

	DefineCustomBoolVariable("lsn_tracker.log_waits",
							 "Log each wait on a standby: its target, its outcome and how long it took.",
							 NULL,
							 &log_waits,
							 false,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);

	DefineCustomBoolVariable("lsn_tracker.allow_held_snapshot",
							 "Wait although the session holds a snapshot.",
							 "Replay may then have to wait for the waiting session, until the server cancels it, "
							 "and what has been waited for need not be visible to the calling statement.",
							 &allow_held_snapshot,
							 false,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);

	DefineCustomStringVariable("lsn_tracker.token",
							   "The newest position that this session has set, written or read.",
							   "The next statement waits until a token that was set has been replayed, "
							   "and raises an error after lsn_tracker.default_timeout.",
							   &token,
							   "",
							   PGC_USERSET, GUC_REPORT | GUC_NOT_IN_SAMPLE,
							   CheckToken, AssignToken, ShowToken);

	DefineCustomIntVariable("lsn_tracker.max_staleness",
							"How old the data may be that a statement reads on a standby.",
							"0: the statement sees all that was committed on the primary when it began. -1: no bound.",
							&max_staleness,
							-1, -1, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS,
							NULL, AssignMaxStaleness, NULL);

	DefineCustomEnumVariable("lsn_tracker.on_timeout",
							 "What becomes of a statement whose data did not get fresh enough in time.",
							 "\"error\": it fails. \"stale\": it reads all the same, with a warning.",
							 &on_timeout,
							 ON_TIMEOUT_ERROR, on_timeout_options,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);

	DefineCustomBoolVariable("lsn_tracker.fail_fast",
							 "A wait ends as soon as it cannot succeed before its time is up.",
							 NULL,
							 &fail_fast,
							 false,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);

	DefineCustomStringVariable("lsn_tracker.primary_conninfo",
							   "How this standby connects to its upstream in order to ask for the newest commit.",
							   "Empty: as the WAL receiver does, by primary_conninfo.",
							   &primary_conninfo,
							   "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);

	/* not among those that SHOW ALL and pg_settings show: it is a question */
	DefineCustomStringVariable("lsn_tracker.newest_commit",
							   "The end of the newest commit that anybody can have seen on the primary, as a token.",
							   NULL,
							   &newest_commit,
							   "",
							   PGC_INTERNAL,
							   GUC_NO_SHOW_ALL | GUC_NO_RESET_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE,
							   NULL, NULL, ShowNewestCommit);

	DefineCustomBoolVariable("lsn_tracker.report_commits",
							 "A commit that wrote WAL moves lsn_tracker.token, which is reported to the client.",
							 NULL,
							 &report_commits,
							 true,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);

	DefineCustomBoolVariable("lsn_tracker.track_reads",
							 "What a statement has read moves lsn_tracker.token.",
							 NULL,
							 &track_reads,
							 false,
							 PGC_USERSET, 0,
							 NULL, AssignTrackReads, NULL);

	MarkGUCPrefixReserved("lsn_tracker");

	InstallGate();
	InstallPlanner();
	InstallExplain();
	InstallCommitPosition();
	InstallSharedState();
	RegisterWorker();
	RegisterLink();
}
