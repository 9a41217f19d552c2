// Statements through the application's pool, each on a connection that it has to itself: once, or again and again until it
// is answered. What is asked again here is safe to ask again: the row decides.
import { setMaxListeners } from 'node:events';
import { ClosedError } from './errors.js';
import { isInDoubt, isTransient, TimeoutError, wordsOf } from './failures.js';
import { now, Pauses, sleep, within } from './pauses.js';

const ignore = () => {};

// The driver tells of a lost connection not only to its query, but also as an event of the client's, or of the pool's if the
// client is idle; and where nobody listens, that ends the process. Both live on when we are done with them.
const heard = new WeakSet();

function listenTo(emitter) {
	if (!heard.has(emitter))
		emitter.on('error', ignore);
	heard.add(emitter);
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

	/**
	 * One try. Through the pool as it is; the connection goes back to it, or is thrown away if it may be of no use.
	 * `doubt.exists` is set if the statement may have been carried out without our knowledge.
	 */
	async once(text, values, { ms = Infinity, signal = this.#closed.signal, doubt = {} } = {}) {
		if (this.#closed.signal.aborted || this.#pool.ending)
			throw new ClosedError();
		const until = now() + Math.min(ms, this.#tryTime);
		const client = await this.#checkOut(until, signal);
		let lost;
		try {
			return await within(client.query(text, values), until - now(),
				() => new TimeoutError('the server did not answer in time', true), signal);
		} catch (error) {
			// Stopped by its caller in the middle of a statement, too, nobody knows.
			lost = isInDoubt(error) || signal.aborted;
			doubt.exists ||= lost;
			throw error;
		} finally {
			client.release(lost);
		}
	}

	async #checkOut(until, signal) {
		// From the very step in which the pool does not listen any more: a promise would be a step late.
		const connecting = new Promise((resolve, reject) => {
			this.#pool.connect((error, client) => {
				if (error)
					return reject(error);
				listenTo(client);
				resolve(client);
			});
		});
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
	 * as one of the tries may have been carried out.
	 */
	async again(text, values, { deadline, signal, doubt, what }) {
		const stop = signal ? anyOf(signal, this.#closed.signal) : { signal: this.#closed.signal, release: ignore };
		const pauses = new Pauses(50, 3000);
		try {
			for (;;) {
				try {
					return await this.once(text, values, { ms: deadline - now(), signal: stop.signal, doubt });
				} catch (error) {
					const pause = pauses.next();
					if (stop.signal.aborted || !isTransient(error) || now() + pause >= deadline)
						throw error;
					this.#logger.warn(`${what}: ${wordsOf(error)}; trying again`);
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
