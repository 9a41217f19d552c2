// One heartbeat for all runs of the process. It says that they are alive, and hears of what happened to them: the second
// way to learn of a stop, and the only one to learn that somebody else has ended a run.
import { wordsOf } from './failures.js';
import { sleep } from './pauses.js';

// In one statement. Without preloading a heartbeat writes, and the batch's row locks are held until its end.
const BATCH = 50;

const BEAT = `SELECT r.id::text AS id, ai_chat_run.heartbeat(r.id, r.workspace_id) AS signal
	FROM unnest($1::uuid[], $2::uuid[]) AS r (id, workspace_id)`;

export class Heartbeat {
	#database;
	#runs;
	#interval;
	#afterwards;
	#logger;

	#stopped = new AbortController();
	#awake = new AbortController();
	#loop;
	#failing = false;

	/** `afterwards` is called in each round, for what else is due from time to time; it tells whether there is more to do. */
	constructor({ database, runs, interval, afterwards, logger }) {
		this.#database = database;
		this.#runs = runs;
		this.#interval = interval;
		this.#afterwards = afterwards;
		this.#logger = logger;
	}

	/** Beats from now on, until there is nothing to do any more. */
	start() {
		if (!this.#stopped.signal.aborted)
			this.#loop ??= this.#beatOn();
	}

	/** The next round comes at once. */
	now() {
		this.#awake.abort();
		this.start();
	}

	async close() {
		this.#stopped.abort();
		this.#awake.abort();
		await this.#loop;
	}

	async #beatOn() {
		for (;;) {
			// The first round is not due yet: begin_run has just said that the run is alive.
			await sleep(this.#interval, { signal: this.#awake.signal, quiet: true });
			if (this.#stopped.signal.aborted)
				return;
			this.#awake = new AbortController();
			const more = await this.#round(this.#runs.all().filter((run) => run.state === 'running'));
			if (!more && this.#runs.all().length === 0) {
				// In one step with the look: a run that begins now starts another loop.
				this.#loop = undefined;
				return;
			}
		}
	}

	async #round(runs) {
		try {
			for (let i = 0; i < runs.length; i += BATCH)
				await this.#beat(runs.slice(i, i + BATCH));
			if (this.#failing)
				this.#logger.info('heartbeats are answered again');
			this.#failing = false;
			return await this.#afterwards();
		} catch (error) {
			if (!this.#failing && !this.#stopped.signal.aborted)
				this.#logger.warn(`heartbeat: ${wordsOf(error)}; the next one will tell`);
			this.#failing = true;
			return true;
		}
	}

	async #beat(runs) {
		const { rows } = await this.#database.once(BEAT, [runs.map((run) => run.id), runs.map((run) => run.workspaceId)]);
		for (const { id, signal } of rows)
			this.#runs.hear(id, signal);
	}
}
