// Calls that wait, each on a connection of its own: a few at a time, the others wait for their turn.
import { setMaxListeners } from 'node:events';
import { TimeoutError } from './failures.js';
import { now, within } from './pauses.js';

const AT_ONCE = 5;
const LATE = 10_000;

export class Waits {
	#connections;
	#closing = new AbortController();
	#open = 0;
	#queue = [];

	constructor(connections) {
		this.#connections = connections;
		// Each call that waits listens.
		setMaxListeners(0, this.#closing.signal);
	}

	/**
	 * The first row of a call. `sql` is made when its turn has come, from the time that is left. `settings` are the session's;
	 * they need a connection that ends at the server.
	 */
	async call(sql, values, { deadline, settings = {}, signal }) {
		const stop = signal ?? this.#closing.signal;
		await this.#turn(deadline, stop);
		try {
			return await this.#callOn(sql, values, deadline, settings, stop);
		} finally {
			this.#open--;
			this.#queue.shift()?.();
		}
	}

	/** Would a call have to wait for its turn? */
	get full() {
		return this.#open >= AT_ONCE;
	}

	close(reason) {
		this.#closing.abort(reason);
	}

	get signal() {
		return this.#closing.signal;
	}

	async #turn(deadline, signal) {
		while (this.#open >= AT_ONCE) {
			let next;
			const turn = new Promise((resolve) => {
				next = resolve;
				this.#queue.push(next);
			});
			try {
				await within(turn, deadline - now(), () => new TimeoutError('too many calls wait already', false), signal);
			} catch (error) {
				// A turn that was given to us and not taken is the next one's.
				const place = this.#queue.indexOf(next);
				if (place < 0)
					this.#queue.shift()?.();
				else
					this.#queue.splice(place, 1);
				throw error;
			}
		}
		this.#open++;
	}

	async #callOn(sql, values, deadline, settings, signal) {
		const { client, pooled, lost, ask } = await this.#connections.open(signal);
		try {
			if (pooled && Object.keys(settings).length > 0)
				throw new TypeError('this call needs the option "direct", a connection past the pooler');
			for (const [name, value] of Object.entries(settings))
				await ask('SELECT set_config($1, $2, false)', [name, value]);
			const left = Math.max(deadline - now(), 0);
			const call = client.query(sql, values(left));
			const { rows } = await within(Promise.race([call, lost]), left + LATE,
				() => new TimeoutError('the server did not answer in time', true), signal);
			return rows[0];
		} finally {
			await this.#connections.end(client);
		}
	}
}
