// Connections of our own beside the pool's: for the one that waits for stops, and for calls that wait. A call that waits
// on the pool's could keep the very finalize_run that it waits for from getting one.
import { isSqlState, TimeoutError } from './failures.js';
import { within } from './pauses.js';

const CONNECT_TIME = 10_000;

// Time limits that the role, the database or the pool's options may set: they would end a wait, or the session. And how
// soon the server notices a client that vanished without a word, so that its name is free again.
const SESSION = {
	statement_timeout: '0',
	transaction_timeout: '0',
	idle_session_timeout: '0',
	tcp_keepalives_idle: '10',
	tcp_keepalives_interval: '5',
	tcp_keepalives_count: '3',
};

export class Connections {
	#Client;
	#options;

	/** As the pool connects, or as `direct` says: a connection string, or options of the driver's Client. */
	constructor(pool, direct, applicationName) {
		this.#Client = pool.Client ?? pool.options?.Client;
		if (typeof this.#Client !== 'function')
			throw new TypeError('pool must be a Pool of the package "pg"');
		const options = typeof direct === 'string' ? { connectionString: direct } : direct ?? pool.options;
		// The password is a property that is not enumerable, and may be a function.
		this.#options = Object.defineProperties({}, Object.getOwnPropertyDescriptors(options));
		Object.assign(this.#options, {
			application_name: applicationName,
			statement_timeout: undefined,
			query_timeout: undefined,
			idle_in_transaction_session_timeout: undefined,
			binary: false,
			types: undefined,
			keepAlive: true,
			connectionTimeoutMillis: options.connectionTimeoutMillis || CONNECT_TIME,
		});
	}

	/** A new connection. `pooled` tells whether it ends at a pooler, `lost` rejects when it breaks. */
	async open(signal) {
		const client = new this.#Client(this.#options);
		const lost = new Promise((_resolve, reject) => {
			client.on('error', reject);
			client.on('end', () => reject(new Error('the connection was closed')));
		});
		lost.catch(() => {});
		// Notices are the server's warnings, which its log has.
		try {
			await within(client.connect(), CONNECT_TIME * 2, () => new TimeoutError('could not connect in time', false), signal);
			const ask = (text, values) =>
				within(client.query(text, values), CONNECT_TIME, () => new TimeoutError('no answer in time', true), signal);
			const { rows } = await ask('SELECT pg_backend_pid() AS pid');
			// A pooler tells its clients of a backend that is none of the server's.
			const pooled = Boolean(client.processID) && client.processID !== Number(rows[0].pid);
			// Behind a pooler the session is not ours to change.
			if (!pooled)
				await ask(`SELECT set_config(name, value, false) FROM json_each_text($1) AS wanted (name, value)
					JOIN pg_catalog.pg_settings USING (name)`, [JSON.stringify(SESSION)]);
			return { client, pooled, lost, ask };
		} catch (error) {
			await this.end(client);
			throw error;
		}
	}

	/** Ends it, whatever state it is in; one that is busy is cut off, and its call ends with it. */
	async end(client) {
		await within(client.end(), 1000, () => undefined).catch(() => {
			client.connection?.stream?.destroy();
		});
	}
}

/** The waiting calls are there only where the library is preloaded. */
export const needsPreload = (error) => isSqlState(error?.code) && error.code === '55000';

/** The elements of a uuid[], whatever the driver was told to make of arrays. */
export function uuids(value) {
	if (value === null || value === undefined)
		return [];
	return Array.isArray(value) ? value : String(value).replace(/[{}"\s]/g, '').split(',').filter(Boolean);
}
