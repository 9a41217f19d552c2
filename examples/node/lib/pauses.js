// Time: limits, deadlines, and pauses that grow. Deadlines are times of the monotonic clock; Infinity is none.

export const now = () => performance.now();
export const deadlineAfter = (ms) => (ms === undefined || ms === null ? Infinity : now() + ms);

// setTimeout takes 31 bits of milliseconds and fires at once when given more.
const MAX_TIMER = 0x7fffffff;

/** Resolves after that time, or when the signal is aborted. Unless `quiet`, the process lives on meanwhile. */
export function sleep(ms, { signal, quiet = false } = {}) {
	return new Promise((resolve) => {
		if (signal?.aborted)
			return resolve();
		const done = () => {
			clearTimeout(timer);
			signal?.removeEventListener('abort', done);
			resolve();
		};
		const timer = setTimeout(done, Math.min(ms, MAX_TIMER));
		if (quiet)
			timer.unref();
		signal?.addEventListener('abort', done, { once: true });
	});
}

/** The promise, or a rejection with what `late` makes when the time is over or the signal is aborted before. */
export function within(promise, ms, late, signal) {
	return new Promise((resolve, reject) => {
		const finish = (settle) => (value) => {
			clearTimeout(timer);
			signal?.removeEventListener('abort', abort);
			settle(value);
		};
		const abort = finish(() => reject(signal.reason));
		const timer = ms < MAX_TIMER ? setTimeout(finish(() => reject(late())), Math.max(ms, 0)) : undefined;
		promise.then(finish(resolve), finish(reject));
		if (signal?.aborted)
			abort();
		else
			signal?.addEventListener('abort', abort, { once: true });
	});
}

/** Pauses that double, up to a limit, each shortened by chance so that processes do not come back in step. */
export class Pauses {
	#first;
	#longest;
	#next;

	constructor(first, longest) {
		this.#first = first;
		this.#longest = longest;
		this.#next = first;
	}

	reset() {
		this.#next = this.#first;
	}

	next() {
		const pause = this.#next * (0.5 + Math.random() / 2);
		this.#next = Math.min(this.#next * 2, this.#longest);
		return pause;
	}
}
