// The server's clock, for the ids of runs. A run's id begins with the time, and the latest run of a chat is the one of the
// greatest id: processes whose own clocks disagree must not decide that.
import { randomBytes } from 'node:crypto';
import { now } from './pauses.js';

const RESYNC = 60_000;

export class ServerClock {
	#offset = Date.now() - now();
	#askedAt = -Infinity;
	#last = 0;

	/** Asks the server for its time. On each new connection, too: while a machine sleeps, the monotonic clock stands still. */
	async ask(client) {
		const before = now();
		const { rows } = await client.query('SELECT extract(epoch FROM clock_timestamp()) * 1000 AS ms');
		const after = now();
		this.#offset = Number(rows[0].ms) - (before + after) / 2;
		this.#askedAt = after;
	}

	/** Asks it again, unless that was done a short while ago. */
	async askAgain(client) {
		if (now() - this.#askedAt >= RESYNC)
			await this.ask(client);
	}

	/** Milliseconds since 1970 by the server's clock; each call gives a later one. */
	next() {
		this.#last = Math.max(this.#last + 1, Math.floor(now() + this.#offset));
		return this.#last;
	}

	/** A new id of a run: a uuid of version 7. */
	newRunId() {
		const bytes = randomBytes(16);
		bytes.writeUIntBE(this.next(), 0, 6);
		bytes[6] = 0x70 | (bytes[6] & 0x0f);
		bytes[8] = 0x80 | (bytes[8] & 0x3f);
		return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
	}
}
