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

/* The value of such a column. */
Datum
acr_column_of(Relation rel, HeapTuple row, const char *name, Oid type,
			  bool *isnull)
{
	return heap_getattr(row, acr_column_require(rel, name, type),
						RelationGetDescr(rel), isnull);
}

/*
 * The value of a column of uuids; one of those of which the table's own rules say
 * that they are not null.
 */
pg_uuid_t *
acr_column_uuid_of(Relation rel, HeapTuple row, const char *name)
{
	bool		isnull;
	Datum		value = acr_column_of(rel, row, name, UUIDOID, &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("null value in column \"%s\" of relation \"%s\"",
						name, RelationGetRelationName(rel))));
	return DatumGetUUIDP(value);
}

pg_uuid_t *
acr_column_run_id(Relation rel, HeapTuple row)
{
	return acr_column_uuid_of(rel, row, "id");
}
