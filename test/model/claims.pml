/*
 * Who gets a chat's slot: two that supersede the same run, one that begins, and
 * the runner of the run that is superseded.
 *
 * One chat.  Of the server we take for granted that the unique index lets the
 * second inserter wait for the first, that a commit is atomic, and that the end
 * of a session, however it comes, takes back what it has not committed and gives
 * back its claim.
 *
 * Proved for all interleavings, with a timeout or the death of a superseder at
 * any step:
 *
 *	 - never are two runs active (ONE);
 *	 - nobody begins a run who has inserted it after a claim that is still there
 *	   (KEPT);
 *	 - who has told the target to stop, and found it ended, begins (OURS);
 *	 - of two superseders one at most supersedes the target, and a mismatch comes
 *	   of a run that is there (the assertions of judge);
 *	 - no claim is left, and nobody waits for ever.
 */

/*
 * What happens without some of the steps: each of these must be found wrong.
 *
 *	 NO_SECOND_LOOK		begin_run looks for claims before its insert only
 *	 EARLY_RELEASE		a claim is given back before the new run is begun
 *	 NO_CLAIM			there are none
 */
#ifdef NO_SECOND_LOOK
#define SECOND_LOOK(is_claimed)		false
#else
#define SECOND_LOOK(is_claimed)		(is_claimed)
#endif

#define NOBODY	0
#define TARGET	9

byte holder = TARGET;			/* whose run has the slot, committed */
byte inserting = NOBODY;		/* who has inserted one, uncommitted */
byte claim = NOBODY;

mtype = { open, superseded, began, mismatch, timed_out, dead, busy };
mtype outcome[3] = open;		/* of superseders 1 and 2 */

/* supersede_run's insert, as begin_run's: the unique index decides. */
inline insert(me, conflict)
{
	if
	:: atomic { inserting == NOBODY && holder == NOBODY -> inserting = me }
	:: holder != NOBODY -> goto conflict
	fi
}

inline commit_insert(me)
{
	d_step {
		assert(inserting == me && holder == NOBODY);	/* ONE */
		holder = me;
		inserting = NOBODY
	}
}

/* acr_begin in begin_run.c. */
proctype beginner(byte me)
{
	byte claimed_before;

	if
	:: claim != NOBODY -> goto refused		/* a first look, to leave nothing behind */
	:: claim == NOBODY -> skip
	fi;
	if
	:: atomic { inserting == NOBODY && holder == NOBODY -> inserting = me; claimed_before = claim }
	:: holder != NOBODY -> goto refused
	fi;
	if
	:: SECOND_LOOK(claim != NOBODY) ->
		inserting = NOBODY;					/* insert_body: the row is undone */
		goto refused
	:: !SECOND_LOOK(claim != NOBODY) -> skip
	fi;
	if
	:: commit_insert(me);
		assert(claimed_before == NOBODY || claim != claimed_before)	/* KEPT */
	:: inserting = NOBODY					/* rolled back */
	fi;
refused:
	skip
}

/* The target's runner: it ends its run, told to or not. */
proctype runner()
{
end:
	atomic { holder == TARGET -> holder = NOBODY }
}

/* supersede_run.c, by its steps. */
proctype superseder(byte me)
{
	bool was_active = false;
	bool told = false;				/* the target, to stop */

	/* 1. claim_chat */
	if
#ifndef NO_CLAIM
	:: atomic { claim == NOBODY -> claim = me }
#else
	:: skip
#endif
	:: outcome[me] = timed_out; goto out
	:: outcome[me] = dead; goto out
	fi;

	/* 2. look_and_tell */
	if
	:: holder == NOBODY -> goto begin_new
	:: holder == TARGET -> was_active = true
	:: holder != NOBODY && holder != TARGET -> goto refused
	fi;

	/* 3. tell_target, 4. sleep and look */
	told = true;
	if
	:: holder != TARGET -> skip
	:: outcome[me] = timed_out; goto release
	:: outcome[me] = dead; goto release
	:: atomic { holder == TARGET && inserting == NOBODY ->	/* force_body: both in one transaction */
			holder = me; outcome[me] = superseded };
		goto release
	fi;

	/* 5. begin_new */
begin_new:
#ifdef EARLY_RELEASE
	claim = NOBODY;
#endif
	insert(me, refused);
	if
	:: commit_insert(me); outcome[me] = (was_active -> superseded : began)
	:: inserting = NOBODY; outcome[me] = dead
	fi;
	goto release;

refused:
	assert(!was_active || !told);			/* OURS */
	outcome[me] = mismatch;
release:
	if
	:: claim == me -> claim = NOBODY
	:: else -> skip
	fi;
out:
	skip
}

proctype judge()
{
	timeout;
	assert(claim == NOBODY && inserting == NOBODY);
	assert(outcome[1] != open && outcome[2] != open);
	assert(!(outcome[1] == superseded && outcome[2] == superseded));
	assert(outcome[1] != mismatch || holder != NOBODY);
	assert(outcome[2] != mismatch || holder != NOBODY)
}

init
{
	atomic {
		run superseder(1);
		run superseder(2);
		run beginner(3);
		run runner();
		run judge()
	}
}
