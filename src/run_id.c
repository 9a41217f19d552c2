/*
 * Run ids: version 7 UUIDs (RFC 9562) that sort by time also within a
 * millisecond.
 *
 * The 48 bits of milliseconds are followed by 12 bits that divide the
 * millisecond (method 3 of the RFC's section 6.2, what uuidv7() of PostgreSQL
 * 18 does too), so one step is about 244 ns.  Within a session ids always
 * ascend, even if the clock stands still or is set back; between sessions they
 * are as ordered as the clock.  Time-ordered keys let neighbouring inserts
 * share index pages, which saves most of the full-page images after a
 * checkpoint.
 */
#include "postgres.h"

#include <time.h>

#include "fmgr.h"
#include "port/pg_bswap.h"
#include "run_id.h"

PG_FUNCTION_INFO_V1(acr_new_run_id);

#define NS_PER_S	INT64CONST(1000000000)
#define NS_PER_MS	INT64CONST(1000000)
#define SUBMS_STEPS 4096
#define NS_PER_STEP (NS_PER_MS / SUBMS_STEPS + 1)

/* Now in nanoseconds, but at least one step after the last answer. */
static int64
ascending_clock(void)
{
	static int64 last = 0;
	struct timespec ts;
	int64		now;

	clock_gettime(CLOCK_REALTIME, &ts);
	now = ts.tv_sec * NS_PER_S + ts.tv_nsec;
	if (now < last + NS_PER_STEP)
		now = last + NS_PER_STEP;
	last = now;
	return now;
}

void
acr_run_id_new(pg_uuid_t *id)
{
	int64		now = ascending_clock();
	uint64		ms = now / NS_PER_MS;
	uint64		fraction = (now % NS_PER_MS) * SUBMS_STEPS / NS_PER_MS;
	uint64		head;

	/* 48 bits of time, 4 of version, 12 of fraction, then random bits */
	head = pg_hton64(ms << 16 | UINT64CONST(0x7000) | fraction);
	memcpy(id->data, &head, sizeof(head));

	if (!pg_strong_random(id->data + 8, 8))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));
	id->data[8] = (id->data[8] & 0x3f) | 0x80;	/* the RFC's variant */
}

/*
 * new_run_id() returns uuid
 *
 * A new version 7 UUID; the default of ai_chat_runs.id.
 */
Datum
acr_new_run_id(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

	acr_run_id_new(id);
	PG_RETURN_UUID_P(id);
}
