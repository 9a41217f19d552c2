// Statements through the application's pool, each on a connection that it has to itself: once, or again and again until it
// is answered. What is asked again here is safe to ask again: the row decides.
import { setMaxListeners } from 'node:events';
import { ClosedError } from './errors.js';
import { isInDoubt, isTransient, TimeoutError } from './failures.js';
import { now, Pauses, sleep, within } from './pauses.js';

const ignore = () => {};

// An idle connection that is lost is an event of the pool's, which ends the process where nobody listens. Ours stays, since
// the pool outlives us.
const heard = new WeakSet();

function listenTo(pool) {
	if (!heard.has(pool))
		pool.on('error', ignore);
	heard.add(pool);
}

export class Database {
	#pool;
	#logger;
	#tryTime;
	#closed = new AbortController();

	/**
	 * `tryTime` is for how long a single try may wait for a connection and for its answer. A server that is reached but does
	 * not answer (a network that swallows packets, a stopped machine) looks like one that thinks.
	 */
	constructor(pool, logger, tryTime) {
		this.#pool = pool;
		this.#logger = logger;
		this.#tryTime = tryTime;
		// Each statement under way listens.
		setMaxListeners(0, this.#closed.signal);
		listenTo(pool);
	}

	/** One try. Through the pool as it is; the connection goes back to it, or is thrown away if it may be of no use. */
	async once(text, values, { ms = Infinity, signal = this.#closed.signal } = {}) {
		if (this.#closed.signal.aborted || this.#pool.ending)
			throw new ClosedError();
		const until = now() + Math.min(ms, this.#tryTime);
		const client = await this.#checkOut(until, signal);
		// The driver tells of a lost connection twice: to the query, and as an event that has to be listened to.
		client.on('error', ignore);
		let lost;
		try {
			return await within(client.query(text, values), until - now(),
				() => new TimeoutError('the server did not answer in time', true), signal);
		} catch (error) {
			lost = isInDoubt(error) || signal.aborted;
			throw error;
		} finally {
			client.removeListener('error', ignore);
			client.release(lost);
		}
	}

	async #checkOut(until, signal) {
		const connecting = this.#pool.connect();
		try {
			return await within(connecting, until - now(),
				() => new TimeoutError('the pool had no connection in time', false), signal);
		} catch (error) {
			// It may come later, when nobody waits for it any more.
			connecting.then((client) => client.release(), ignore);
			throw error;
		}
	}

	/**
	 * Tries until there is an answer, an error that another try does not cure, or the deadline. `doubt.exists` is set as soon
	 * as one of the tries may have been carried out without our knowledge.
	 */
	async again(text, values, { deadline, signal, doubt = {}, what }) {
		const stop = signal ? anyOf(signal, this.#closed.signal) : { signal: this.#closed.signal, release: ignore };
		const pauses = new Pauses(50, 3000);
		try {
			for (;;) {
				try {
					return await this.once(text, values, { ms: deadline - now(), signal: stop.signal });
				} catch (error) {
					// Stopped by its caller in the middle of a statement, too, nobody knows.
					doubt.exists ||= stop.signal.aborted || isInDoubt(error);
					const pause = pauses.next();
					if (stop.signal.aborted || !isTransient(error) || now() + pause >= deadline)
						throw error;
					this.#logger.warn(`${what}: ${error.message}; trying again`);
					await sleep(pause, { signal: stop.signal });
					if (stop.signal.aborted)
						throw error;
				}
			}
		} finally {
			stop.release();
		}
	}

	/** Ends what is under way. The pool is the application's, which may use it further. */
	close() {
		this.#closed.abort(new ClosedError());
	}
}

// AbortSignal.any came after Node 18.
function anyOf(...signals) {
	const controller = new AbortController();
	const abort = (event) => controller.abort(event.target.reason);
	for (const signal of signals) {
		if (signal.aborted)
			controller.abort(signal.reason);
		signal.addEventListener('abort', abort, { once: true });
	}
	return {
		signal: controller.signal,
		release: () => signals.forEach((signal) => signal.removeEventListener('abort', abort)),
	};
}
