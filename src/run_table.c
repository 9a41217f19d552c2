/*
 * The run table and its companion, reached through the server's planner and
 * executor.  This is the only room that uses SPI.
 *
 * Plans are kept for the life of the session; the server replans them when an
 * object that they depend on changes, so DROP EXTENSION and CREATE EXTENSION
 * in one session need nothing here.
 *
 * Three kinds of snapshot are in use.  Writes run as any statement of the
 * caller's transaction does.  The get functions, being STABLE, see what the
 * calling query sees.  Look-ups that decide an outcome (is it terminal? who
 * holds the chat?) want the truth of this moment: in READ COMMITTED that is
 * what every statement sees, in REPEATABLE READ and SERIALIZABLE they use the
 * latest snapshot, as the server's foreign-key checks do.  What an application
 * is told then may be newer than what its own queries show, never older.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "ai_chat_run.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "run_table.h"
#include "storage/bufmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

static SPIPlanPtr plans[ACR_N_SQL];

/* ---- parameters, in the order of the statement's numbering ---- */

void
acr_param_value(AcrParams *p, Datum value)
{
	p->values[p->n] = value;
	p->nulls[p->n++] = ' ';
}

void
acr_param_pointer(AcrParams *p, const void *value)
{
	p->values[p->n] = PointerGetDatum(value);
	p->nulls[p->n++] = value == NULL ? 'n' : ' ';
}

void
acr_param_time(AcrParams *p, TimestampTz value)
{
	acr_param_value(p, TimestampTzGetDatum(value));
}

/* $1 is the run or chat, $2 the workspace */
void
acr_param_key(AcrParams *p, const pg_uuid_t *id, const pg_uuid_t *workspace_id)
{
	acr_param_pointer(p, id);
	acr_param_pointer(p, workspace_id);
}

/* ---- execution ---- */

static SPIPlanPtr
plan_for(AcrSqlId id)
{
	if (plans[id] == NULL)
	{
		SPIPlanPtr	plan;

		/* One plan for all values: that is what planning.c makes safe. */
		plan = SPI_prepare_cursor(acr_sql[id].text, acr_sql[id].nargs,
								  (Oid *) acr_sql[id].argtypes,
								  CURSOR_OPT_GENERIC_PLAN);
		if (plan == NULL)
			elog(ERROR, "SPI_prepare_cursor failed: %s",
				 SPI_result_code_string(SPI_result));
		if (SPI_keepplan(plan) != 0)
			elog(ERROR, "SPI_keepplan failed");
		plans[id] = plan;
	}
	return plans[id];
}

static Snapshot
snapshot_for(AcrSnapshotKind kind)
{
	/* An invalid snapshot leaves the choice to SPI. */
	if (kind == ACR_AS_OF_NOW && IsolationUsesXactSnapshot())
		return GetLatestSnapshot();
	return InvalidSnapshot;
}

/* Opens a connection to the tables.  An error closes it. */
void
acr_table_open(void)
{
	SPI_connect();
}

/* Closes it; the rows of the last statement are gone. */
void
acr_table_close(void)
{
	SPI_finish();
}

/*
 * The same for a procedure that commits in between.  Connections that are
 * opened within this one are for one transaction, as ever.
 */
void
acr_table_open_nonatomic(void)
{
	SPI_connect_ext(SPI_OPT_NONATOMIC);
}

/* Commits; the next transaction has no snapshot yet. */
void
acr_table_commit(void)
{
	SPI_commit();
}

/*
 * Runs a statement within an open connection and returns the number of rows.
 * Rows, if any, are in SPI_tuptable until acr_table_close().
 */
uint64
acr_table_execute(AcrSqlId id, AcrSnapshotKind kind, AcrParams *p)
{
	Snapshot	snapshot = snapshot_for(kind);
	bool		read_only;
	int			rc;

	/*
	 * Outside a read-only call SPI takes a new snapshot for the statement,
	 * which in READ COMMITTED is the latest.
	 */
	read_only = kind == ACR_AS_OF_CALLER || snapshot != InvalidSnapshot;

	Assert(p->n == acr_sql[id].nargs);
	rc = SPI_execute_snapshot(plan_for(id), p->values, p->nulls, snapshot,
							  InvalidSnapshot, read_only, true, 0);
	if (rc < 0)
		elog(ERROR, "SPI_execute_snapshot failed: %s", SPI_result_code_string(rc));
	return SPI_processed;
}

/* Runs a statement of which only the number of rows is of interest. */
uint64
acr_table_run(AcrSqlId id, AcrSnapshotKind kind, AcrParams *p)
{
	uint64		rows;

	acr_table_open();
	rows = acr_table_execute(id, kind, p);
	acr_table_close();
	return rows;
}

Datum
acr_column(uint64 row, int number, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number,
						 isnull);
}

bool
acr_column_bool(uint64 row, int number)
{
	bool		isnull;

	return DatumGetBool(acr_column(row, number, &isnull)) && !isnull;
}

void
acr_column_uuid(uint64 row, int number, pg_uuid_t *result)
{
	bool		isnull;

	*result = *DatumGetUUIDP(acr_column(row, number, &isnull));
}

/* The next uuid in sort order; false if there is none. */
bool
acr_uuid_increment(pg_uuid_t *uuid)
{
	for (int i = UUID_LEN - 1; i >= 0; i--)
	{
		if (++uuid->data[i] != 0)
			return true;
	}
	return false;
}

/* ---- the place itself ---- */

/*
 * Is the extension there, and who owns its table?
 */
bool
acr_table_exists(Oid *owner)
{
	Oid			schema;
	Oid			relid;
	HeapTuple	tuple;

	if (!OidIsValid(get_extension_oid(ACR_EXTENSION, true)))
		return false;
	schema = get_namespace_oid(ACR_SCHEMA, true);
	if (!OidIsValid(schema))
		return false;
	relid = get_relname_relid(ACR_RUNS_TABLE, schema);
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		return false;
	*owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return true;
}

/* OIDs of our tables, as long as nothing is heard of a change */
static Oid	runs_oid = InvalidOid;
static Oid	deferred_oid = InvalidOid;

static void
forget_oids(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == runs_oid || relid == deferred_oid)
		runs_oid = deferred_oid = InvalidOid;
}

static void
forget_oids_of_schema(Datum arg, int cacheid, uint32 hashvalue)
{
	forget_oids(arg, InvalidOid);
}

/* Looks a table of ours up, unless it is known. */
static Oid
table_oid(Oid *known, const char *name)
{
	static bool listening = false;

	if (!listening)
	{
		CacheRegisterRelcacheCallback(forget_oids, (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, forget_oids_of_schema, (Datum) 0);
		listening = true;
	}
	if (!OidIsValid(*known))
	{
		Oid			schema = get_namespace_oid(ACR_SCHEMA, true);

		if (OidIsValid(schema))
			*known = get_relname_relid(name, schema);
	}
	return *known;
}

/* The run table's OID; InvalidOid if it is not there.  Needs a transaction. */
Oid
acr_table_oid(void)
{
	return table_oid(&runs_oid, ACR_RUNS_TABLE);
}

/*
 * Do policies decide which runs whoever is current may see?  They are asked
 * where a row is read, so what shared memory knows is not for everybody then.
 */
bool
acr_table_has_policies(void)
{
	Oid			relid = acr_table_oid();

	return OidIsValid(relid) &&
		check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED;
}

/*
 * Is there not a single page of deferred finalizations?  Then there is none, as
 * of now.  Otherwise one has to look.
 */
bool
acr_table_deferred_is_blank(void)
{
	Oid			relid = table_oid(&deferred_oid, ACR_DEFERRED_TABLE);
	Relation	rel;
	bool		blank;

	/* If it is not there, or not any more, who looks will say so. */
	rel = OidIsValid(relid) ? try_relation_open(relid, AccessShareLock) : NULL;
	if (rel == NULL)
		return false;
	blank = RelationGetNumberOfBlocks(rel) == 0;
	relation_close(rel, NoLock);
	return blank;
}

/* Runs a GRANT command, with the rights of whoever is current. */
void
acr_table_grant(const char *command)
{
	int			rc;

	SPI_connect();
	rc = SPI_execute(command, false, 0);
	if (rc != SPI_OK_UTILITY)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(rc));
	SPI_finish();
}
