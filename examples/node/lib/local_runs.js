// The runs that this process executes. A run is known here before it is in the table, so that no stop comes too early; and
// until its end is written.
import { RunStoppedError } from './errors.js';

/** States: beginning (it may not be in the table yet), running, finalizing (its turn is over). */
class LocalRun {
	#controller = new AbortController();

	constructor(id, chatId, workspaceId) {
		this.id = id;
		this.chatId = chatId;
		this.workspaceId = workspaceId;
		this.state = 'beginning';
		/** how it ended, where that could not be written yet: { turnStatus, error } */
		this.decision = null;
		/** the write of the end that is under way: a promise */
		this.finalizing = null;
		/** told of a stop, of which await_stops need not tell again */
		this.told = false;
	}

	get signal() {
		return this.#controller.signal;
	}

	/** A signal is fired once; the first reason stays. */
	fire(why) {
		this.told ||= why === 'stop';
		if (!this.signal.aborted)
			this.#controller.abort(new RunStoppedError(this.id, why));
	}
}

/** Ids as the server writes them. */
export const sameId = (id) => String(id).toLowerCase();

// Stops of runs that are ours by name and not known here: their turn is over and its end deferred, or a begin was given
// up. They are told again after a while, in case that they become known.
const STRANGER_TIME = 60_000;

export class LocalRuns {
	#runs = new Map();
	#strangers = new Map();
	#onEmpty = [];

	add(id, chatId, workspaceId) {
		const run = new LocalRun(sameId(id), sameId(chatId), sameId(workspaceId));
		this.#runs.set(run.id, run);
		// Its stop may have come before we knew its id.
		if (this.#strangers.delete(run.id))
			run.fire('stop');
		return run;
	}

	/** Undefined also where it is of another workspace. */
	get(id, workspaceId) {
		const run = this.#runs.get(sameId(id));
		return run && (workspaceId === undefined || run.workspaceId === sameId(workspaceId)) ? run : undefined;
	}

	ofChat(chatId, workspaceId) {
		return this.all().filter((run) => run.chatId === sameId(chatId) && run.workspaceId === sameId(workspaceId));
	}

	all() {
		return [...this.#runs.values()];
	}

	delete(run) {
		if (this.#runs.get(run.id) === run)
			this.#runs.delete(run.id);
		if (this.#runs.size === 0)
			this.#onEmpty.splice(0).forEach((resolve) => resolve());
	}

	/** Resolves when no run is left. */
	empty() {
		return this.#runs.size === 0 ? Promise.resolve() : new Promise((resolve) => this.#onEmpty.push(resolve));
	}

	/** A stop was requested of that run of ours, says await_stops. */
	stop(id) {
		if (!this.hear(id, 'stop'))
			this.#strangers.set(sameId(id), Date.now());
	}

	/** What the server says of a run: continue, stop, finalized, not_found. Tells whether the run is known here. */
	hear(id, signal) {
		const run = this.get(id);
		if (!run)
			return false;
		if (signal === 'stop')
			run.fire('stop');
		// When its end is being written, or it is not sure that it has begun, this is no news.
		if ((signal === 'finalized' || signal === 'not_found') && run.state === 'running') {
			run.fire(signal);
			this.delete(run);
		}
		return true;
	}

	/** The runs whose stops are known. */
	told() {
		for (const [id, since] of this.#strangers) {
			if (Date.now() - since > STRANGER_TIME)
				this.#strangers.delete(id);
		}
		return [...this.all().filter((run) => run.told).map((run) => run.id), ...this.#strangers.keys()];
	}
}
