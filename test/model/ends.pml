/*
 * How a run ends: finalizers, what they defer, the background worker, the boot
 * sweep after a crash, and who waits for the end.
 *
 * One run.  A step of a process here is what the server does at once: takes a
 * snapshot, gets a row lock, commits.  Beside each stands where it is done in
 * the source.  Of the server we take for granted: a row lock has one holder, a
 * unique index lets the second inserter wait for the first, a commit is atomic,
 * and a crash takes back what is not committed.
 *
 * Proved for all interleavings, with two finalizers that disagree, a client that
 * keeps the row locked, and a crash at any moment:
 *
 *	 - a terminal status is never overwritten (END);
 *	 - what was recorded as deferred is what the run gets, unless somebody who
 *	   was already writing commits (PROMISED);
 *	 - a sweep never overrules what is deferred (the same assertion);
 *	 - in the end nothing is deferred, and after a crash the run is terminal;
 *	 - who waits for the end is woken (the last assertion of judge).
 */

/*
 * What happens without some of the steps: each of these must be found wrong.
 *
 *	 NO_LAST_LOOK		a finalizer does not look for deferrals once it has the row
 *	 NO_LOOK_OF_SWEEP	nor does the sweep
 *	 NO_ONCE_GATE		a finalizer does not ask whether the row is active
 *	 LATE_COUNT			who waits takes the event count after the look
 */
#ifdef NO_LAST_LOOK
#define LAST_LOOK(found_none)	true
#else
#define LAST_LOOK(found_none)	(found_none)
#endif
#ifdef NO_LOOK_OF_SWEEP
#define LOOK_OF_SWEEP(found_none)	true
#else
#define LOOK_OF_SWEEP(found_none)	(found_none)
#endif
#ifdef NO_ONCE_GATE
#define ONCE_GATE(is_active)	true
#else
#define ONCE_GATE(is_active)	(is_active)
#endif

mtype = { none, running, succeeded, failed, aborted };

#define MAX_ATTEMPTS 2

/* what is committed */
mtype status = running;			/* of the row */
mtype deferred = none;			/* the record in deferred_finalizations */

/* what is not */
byte row_holder = 0;			/* who has the row's lock */
byte record_holder = 0;			/* who has inserted the record, uncommitted */
bool written = false;			/* the holder has written the row, and looked
								 * for deferrals for the last time */

mtype promised = none;			/* what the run has to become */
byte events = 0;				/* the event count of the run's bucket */
bool crashed = false;
bool waiter_done = false;
byte finalizers_done = 0;

/* The commit of a write to the row, the once gate; then its news (tell_run). */
inline commit_end(new)
{
	d_step {
		assert(status == running);		/* END */
		assert(promised == none || promised == new);	/* PROMISED */
		status = new;
		written = false;
		row_holder = 0;
	}
	events++;
}

inline unlock()
{
	d_step { written = false; row_holder = 0 }
}

/* A deferred end becomes the run's and the record goes, in one transaction. */
inline commit_deferred()
{
	d_step {
		assert(status == running && deferred != none);
		assert(promised == none || promised == deferred);
		status = deferred;
		deferred = none;
		written = false;
		row_holder = 0;
	}
	events++;
}

/*
 * finish_body in finalize_run.c, up to MAX_ATTEMPTS times.  force_body in
 * supersede_run.c is the same without the giving up.  "seen" is what the
 * statement's snapshot shows; it is older than the row when the update has
 * waited for its lock.
 */
proctype finalizer(byte me; mtype mine)
{
	byte attempts = 0;
	mtype seen;

	{
		skip;
attempt:
		attempts++;
round:
		seen = deferred;			/* NOT EXISTS (... deferred_finalizations ...) */
		if
		:: seen != none ->
			/* The update finds nothing; what was decided earlier goes first. */
			if
			:: status != running -> goto done
			:: status == running && deferred == none -> goto round
			:: status == running && deferred != none -> skip
			fi;
			/* acr_deferral_settle_here */
			if
			:: atomic { row_holder == 0 -> row_holder = me }
			:: atomic { row_holder != 0 -> goto failed_attempt }	/* lock_timeout */
			fi;
			if
			:: atomic { status == running && deferred != none -> written = true };
				commit_deferred()
			:: atomic { status != running -> unlock() }
			fi;
			goto done
		:: seen == none -> skip
		fi;
		if
		:: atomic { row_holder == 0 -> row_holder = me }
		:: atomic { row_holder != 0 -> goto failed_attempt }	/* lock_timeout */
		fi;
		if
		:: atomic { !ONCE_GATE(status == running) -> unlock() };	/* already_finalized */
			goto done
		:: atomic { ONCE_GATE(status == running) && LAST_LOOK(deferred == none) -> written = true };
			/* acr_deferral_finish_undecided() has found none */
			if
			:: commit_end(mine)
			:: unlock(); goto failed_attempt	/* an error, a rollback */
			fi;
			goto done
		:: atomic { ONCE_GATE(status == running) && !LAST_LOOK(deferred == none) -> unlock() };
			goto failed_attempt		/* could not serialize: the attempt is undone */
		fi;

failed_attempt:
		if
		:: attempts < MAX_ATTEMPTS -> goto attempt
		:: else -> skip
		fi;

		/* give_up: the row speaks, or the decision is recorded */
		if
		:: status != running -> goto done
		:: else -> skip
		fi;
		/* acr_table_defer: ON CONFLICT DO NOTHING waits for another inserter */
		if
		:: atomic { record_holder == 0 && deferred == none -> record_holder = me }
			if
			:: d_step {			/* the caller commits */
				deferred = mine;
				record_holder = 0;
				/* Whoever is past his last look may still commit. */
				if
				:: status == running && !written -> promised = mine
				:: else -> skip
				fi
			}
			:: record_holder = 0	/* or rolls back */
			fi
		:: deferred != none			/* the first one recorded wins */
		fi;
done:
		finalizers_done++
	} unless { crashed }
}

/* A client that has the row locked for a while, as an application's own update. */
proctype client(byte me)
{
	{
		atomic { row_holder == 0 -> row_holder = me };
		unlock()
	} unless { crashed }
}

/*
 * settle_body in deferral.c, for the worker: never behind a client's lock.  The
 * run and the record change in one transaction.
 */
inline settle(me)
{
	atomic { row_holder == 0 -> row_holder = me };	/* SKIP LOCKED */
	if
	:: deferred == none -> unlock()
	:: deferred != none && status != running ->		/* moot */
		d_step { deferred = none; row_holder = 0 }
	:: atomic { deferred != none && status == running -> written = true };
		commit_deferred()
	fi
}

/* acr_table_sweep_batch in sweep_batch.c: locks, and looks for deferrals then. */
inline sweep(me)
{
	atomic { row_holder == 0 -> row_holder = me };	/* SKIP LOCKED */
	if
	:: status != running || !LOOK_OF_SWEEP(deferred == none) -> unlock()
	:: atomic { status == running && LOOK_OF_SWEEP(deferred == none) -> written = true };
		commit_end(aborted)
	fi
}

/* worker_tasks.c: what is deferred first, then the boot sweep, again and again. */
proctype worker(byte me)
{
end:
	do
	:: deferred != none && row_holder == 0 -> settle(me)
	:: crashed && LOOK_OF_SWEEP(deferred == none) && status == running && row_holder == 0 -> sweep(me)
	od
}

/*
 * await_run.c and wakeup.c: the count is taken before the look; the sleep ends
 * when it has changed.
 */
proctype waiter()
{
	byte before;

	{
		skip;
look:
#ifndef LATE_COUNT
		before = events;
#endif
		if
		:: status != running -> goto done
		:: else -> skip
		fi;
#ifdef LATE_COUNT
		before = events;
#endif
end_asleep:
		events != before;
		goto look;
done:
		waiter_done = true
	} unless { crashed }
}

/* A crash: all sessions end, and what they had not committed is gone. */
proctype crash()
{
	if
	:: atomic {
		!crashed -> crashed = true;
		row_holder = 0;
		record_holder = 0;
		written = false
	}
	:: skip
	fi
}

/* When nothing can go on any more. */
proctype judge()
{
	timeout;
	assert(deferred == none);
	assert(!crashed || status != running);
	assert(promised == none || status == promised);
	assert(crashed || status == running || waiter_done);
	assert(crashed || finalizers_done == 2)
}

init
{
	atomic {
		run finalizer(1, succeeded);
		run finalizer(2, failed);
		run client(3);
		run worker(4);
		run waiter();
		run crash();
		run judge()
	}
}
