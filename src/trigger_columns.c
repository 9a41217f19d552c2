/*
 * Columns of the rows that a trigger is given, by name.
 *
 * By name, as a table that was restored, or that somebody has altered, may have
 * its columns in another order.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type_d.h"
#include "trigger_columns.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* The number of a column, or InvalidAttrNumber. */
int
acr_column_number(Relation rel, const char *name)
{
	TupleDesc	tupdesc = RelationGetDescr(rel);

	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(tupdesc, i);

		if (!attr->attisdropped && strcmp(NameStr(attr->attname), name) == 0)
			return attr->attnum;
	}
	return InvalidAttrNumber;
}

/*
 * The number of a column that has to be there, of that type or of a domain over
 * it.
 */
int
acr_column_require(Relation rel, const char *name, Oid type)
{
	int			attnum = acr_column_number(rel, name);

	if (attnum == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist",
						name, RelationGetRelationName(rel))));
	if (getBaseType(TupleDescAttr(RelationGetDescr(rel), attnum - 1)->atttypid) != type)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of relation \"%s\" is not of type %s",
						name, RelationGetRelationName(rel), format_type_be(type))));
	return attnum;
}

/* ---- the run table's own ---- */

static const struct
{
	const char *name;
	Oid			type;
}			run_columns[ACR_N_RUN_COLUMNS] = {
	[ACR_COLUMN_ID] = {"id", UUIDOID},
	[ACR_COLUMN_CHAT_ID] = {"chat_id", UUIDOID},
	[ACR_COLUMN_WORKSPACE_ID] = {"workspace_id", UUIDOID},
	[ACR_COLUMN_STATUS] = {"status", TEXTOID},
	[ACR_COLUMN_ERROR] = {"error", TEXTOID},
	[ACR_COLUMN_RUNNER] = {"runner", TEXTOID},
	[ACR_COLUMN_STOP_REQUESTED_AT] = {"stop_requested_at", TIMESTAMPTZOID},
	[ACR_COLUMN_FINISHED_AT] = {"finished_at", TIMESTAMPTZOID},
};

/* which table's numbers are known, until something is heard of a change */
static Oid	known_relid = InvalidOid;
static int	known_numbers[ACR_N_RUN_COLUMNS];

static void
forget_numbers(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == known_relid)
		known_relid = InvalidOid;
}

static void
find_numbers(Relation rel)
{
	static bool listening = false;

	if (!listening)
	{
		CacheRegisterRelcacheCallback(forget_numbers, (Datum) 0);
		listening = true;
	}
	known_relid = InvalidOid;
	for (int i = 0; i < ACR_N_RUN_COLUMNS; i++)
		known_numbers[i] = acr_column_require(rel, run_columns[i].name,
											  run_columns[i].type);
	known_relid = RelationGetRelid(rel);
}

const char *
acr_run_column_name(AcrRunColumn column)
{
	return run_columns[column].name;
}

int
acr_run_column_number(Relation rel, AcrRunColumn column)
{
	if (known_relid != RelationGetRelid(rel))
		find_numbers(rel);
	return known_numbers[column];
}

Datum
acr_run_column(Relation rel, HeapTuple row, AcrRunColumn column, bool *isnull)
{
	return heap_getattr(row, acr_run_column_number(rel, column),
						RelationGetDescr(rel), isnull);
}

/* One of those of which the table's own rules say that they are not null. */
pg_uuid_t *
acr_run_column_uuid(Relation rel, HeapTuple row, AcrRunColumn column)
{
	bool		isnull;
	Datum		value = acr_run_column(rel, row, column, &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("null value in column \"%s\" of relation \"%s\"",
						run_columns[column].name, RelationGetRelationName(rel))));
	return DatumGetUUIDP(value);
}
