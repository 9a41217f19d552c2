// The one connection that waits for stops, for the whole process. It also tells the server that the process is there: the
// runner's name is bound to its session, and when that ends, the server knows that the process is gone.
//
// It waits in await_stops, which tells of earlier stops, too, so nothing is missed while the connection is lost. Where the
// library is not preloaded it listens to notifications, and the heartbeat asks for what was missed.
import { ClosedError, RunnerNotReadyError } from './errors.js';
import { needsPreload, uuids } from './connections.js';
import { isTransient, TimeoutError, wordsOf } from './failures.js';
import { now, Pauses, sleep, within } from './pauses.js';

// How long a wait is, and how late its answer may be before the connection counts as lost.
const WAIT = 30_000;
const LATE = 10_000;

export class StopWatch {
	#connections;
	#runner;
	#incarnation;
	#attach;
	#clock;
	#runs;
	#logger;
	#onConnected;

	#closing = new AbortController();
	#loop;
	#client;
	#failure;
	#warned = new Set();
	#changed;
	#announce;

	/** starting, attached, waiting (attached by nobody), listening (not preloaded), deaf (neither), lost, closed */
	state = 'starting';

	constructor({ connections, runner, incarnation, attach, clock, runs, logger, onConnected }) {
		this.#connections = connections;
		this.#runner = runner;
		this.#incarnation = incarnation;
		this.#attach = attach;
		this.#clock = clock;
		this.#runs = runs;
		this.#logger = logger;
		this.#onConnected = onConnected;
		this.#newChange();
	}

	start() {
		this.#loop ??= this.#stayConnected();
	}

	/**
	 * Resolves when the server knows this process, which a begin has to wait for: what is begun under a name that nobody holds
	 * is taken for left behind.
	 */
	async ready(deadline) {
		this.start();
		while (!['attached', 'waiting', 'listening', 'deaf'].includes(this.state)) {
			const late = () => new RunnerNotReadyError(this.#runner, { cause: this.#failure });
			if (this.state === 'closed')
				throw new ClosedError();
			if (this.state === 'lost' && this.#failure.code !== '55006' && !isTransient(this.#failure))
				throw late();
			await within(this.#changed, deadline - now(), late);
		}
	}

	async close() {
		this.#closing.abort(new ClosedError());
		if (this.#client)
			await this.#connections.end(this.#client);
		await this.#loop;
		this.#become('closed');
	}

	#newChange() {
		this.#changed = new Promise((resolve) => {
			this.#announce = resolve;
		});
	}

	#become(state) {
		this.state = state;
		this.#announce();
		this.#newChange();
	}

	#warnOnce(message) {
		if (!this.#warned.has(message))
			this.#logger.warn(message);
		this.#warned.add(message);
	}

	async #stayConnected() {
		const pauses = new Pauses(100, 3000);
		const { signal } = this.#closing;

		while (!signal.aborted) {
			let connection;
			try {
				connection = await this.#connections.open(signal);
				this.#client = connection.client;
				// Waiting for a stop is no reason for a process to live on.
				connection.client.unref?.();
				const state = await this.#enter(connection);
				if (this.#failure)
					this.#logger.info(`runner "${this.#runner}" is connected again`);
				this.#failure = undefined;
				pauses.reset();
				this.#become(state);
				this.#onConnected();
				await (state === 'listening' || state === 'deaf' ? this.#listen(connection) : this.#wait(connection));
			} catch (error) {
				if (!signal.aborted)
					this.#noteFailure(error);
			}
			this.#client = undefined;
			if (connection)
				await this.#connections.end(connection.client);
			await sleep(pauses.next(), { signal, quiet: true });
		}
	}

	#noteFailure(error) {
		// Once for each kind of trouble in a row, not for each try.
		if (!this.#failure || wordsOf(this.#failure) !== wordsOf(error))
			this.#logger.warn(`runner "${this.#runner}" is not connected: ${wordsOf(error)}; trying again`);
		this.#failure = error;
		this.#become('lost');
	}

	async #enter({ client, pooled, ask }) {
		await this.#clock.ask({ query: ask });
		const attach = this.#attach ?? !pooled;
		if (pooled && this.#attach === undefined)
			this.#warnOnce('a pooler is between this process and the server, so the runner is not attached: a dead process ' +
				'will be noticed by its silence alone. Give the option "direct", a connection past the pooler');
		try {
			if (!attach) {
				await ask(`CALL ai_chat_run.await_stops($1, '{}', '0 s', NULL)`, [this.#runner]);
				return 'waiting';
			}
			const { rows } = await ask('SELECT ai_chat_run.attach_runner($1, $2::uuid) AS n', [this.#runner, this.#incarnation]);
			if (Number(rows[0].n) > 0)
				this.#logger.info(`aborted ${rows[0].n} run(s) that an earlier process "${this.#runner}" left`);
			return 'attached';
		} catch (error) {
			if (!needsPreload(error))
				throw error;
		}
		this.#warnOnce('the library ai_chat_run is not preloaded: stops come by notification and heartbeat, and nothing notices ' +
			'when this process dies');
		if (pooled)
			return 'deaf';
		client.on('notification', ({ payload }) => this.#runs.hear(payload, 'stop'));
		await ask('LISTEN ai_chat_run_stop');
		return 'listening';
	}

	async #wait({ client, ask, lost }) {
		for (;;) {
			const call = client.query('CALL ai_chat_run.await_stops($1, $2::uuid[], $3::interval, NULL)',
				[this.#runner, this.#runs.told(), `${WAIT} ms`]);
			const { rows } = await this.#quietly(Promise.race([call, lost]), WAIT + LATE);
			for (const id of uuids(rows[0].run_ids))
				this.#runs.stop(id);
			await this.#clock.askAgain({ query: ask });
		}
	}

	/** Notifications come by themselves; an answer now and then shows that the connection is alive. */
	async #listen({ ask, lost }) {
		const over = new AbortController();
		lost.catch(() => over.abort());
		for (;;) {
			await sleep(WAIT, { signal: over.signal, quiet: true });
			await (over.signal.aborted ? lost : ask('SELECT'));
			await this.#clock.askAgain({ query: ask });
		}
	}

	/** As within(), with a timer that does not keep the process alive. */
	async #quietly(promise, ms) {
		const over = new AbortController();
		const late = sleep(ms, { signal: over.signal, quiet: true }).then(() => {
			if (!over.signal.aborted)
				throw new TimeoutError('the server did not answer in time', true);
		});
		late.catch(() => {});
		try {
			return await Promise.race([promise, late]);
		} finally {
			over.abort();
		}
	}
}
