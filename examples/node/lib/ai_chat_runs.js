// The runs of this process's chats: what the application calls. Each method is one call of the extension, repeated where
// the connection may be lost and repeating is safe.
import { randomUUID } from 'node:crypto';
import { Connections, needsPreload } from './connections.js';
import { Database } from './database.js';
import { Doubts } from './doubts.js';
import { ClosedError, RunAlreadyActiveError, RunNotFinalizedError } from './errors.js';
import { isInDoubt, isSqlState, isTransient, wordsOf } from './failures.js';
import { Heartbeat } from './heartbeat.js';
import { LocalRuns, sameId } from './local_runs.js';
import { deadlineAfter, now, Pauses, sleep, within } from './pauses.js';
import { ServerClock } from './server_clock.js';
import { StopWatch } from './stop_watch.js';
import { Waits } from './waits.js';

const TRY_BEGIN = 'SELECT outcome, run_id FROM ai_chat_run.try_begin_run($1, $2, $3, $4, $5, $6)';
const FINALIZE = 'SELECT ai_chat_run.finalize_run($1, $2, $3, $4) AS outcome';
const SUPERSEDE = 'CALL ai_chat_run.supersede_run($1, $2, $3, $4, $5, $6::interval, $7, NULL, NULL)';
const AWAIT_RUN = 'CALL ai_chat_run.await_run($1, $2, $3::interval, NULL, NULL)';

// A wait is asked for in slices, so that a server that is gone without a word is noticed.
const SLICE = 30_000;

// For what close() has to write itself.
const LAST_TIME = 2000;

// A user who stops a run of this process shall not wait for a server that does not answer. Else the row is told first.
const STOP_TIME = 1000;

// Known here as well: what the server could never write must not be held for it while it is away.
const TURN_STATUSES = new Set(['completed', 'error', 'aborted']);

const silent = () => {};

/** What the server refuses as it stands, whenever it comes: no decision of how a run ends. */
const isRefusal = (error) => isSqlState(error.code) && error.code.startsWith('22');
const interval = (ms) => `${Math.floor(ms)} ms`;

/** What PostgreSQL's text cannot hold, and what a catch clause may catch. */
function errorText(error) {
	if (error === undefined || error === null)
		return null;
	return String(error instanceof Error ? wordsOf(error) : error).replaceAll('\0', '\uFFFD');
}

function toRun(row) {
	return row && {
		id: row.id,
		chatId: row.chat_id,
		workspaceId: row.workspace_id,
		createdBy: row.created_by,
		assistantMessageId: row.assistant_message_id,
		trigger: row.trigger,
		status: row.status,
		error: row.error,
		stepCount: row.step_count,
		runner: row.runner,
		stopRequestedAt: row.stop_requested_at,
		startedAt: row.started_at,
		finishedAt: row.finished_at,
		createdAt: row.created_at,
		updatedAt: row.updated_at,
	};
}

export class AiChatRuns {
	#runner;
	#patience;
	#logger;
	#database;
	#waits;
	#supersedes;
	#clock = new ServerClock();
	#runs = new LocalRuns();
	#doubts;
	#watch;
	#heartbeat;
	#superseding = new Map();
	#closed;

	constructor({ pool, runner, direct, attach, incarnation = randomUUID(), heartbeatInterval = 5000, patience = 10_000,
		tryTime = 15_000, logger = console }) {
		if (typeof pool?.connect !== 'function')
			throw new TypeError('pool must be a Pool of the package "pg"');
		if (typeof runner !== 'string' || runner === '' || Buffer.byteLength(runner) > 127)
			throw new TypeError('runner must be a name of 1 to 127 bytes, another one for each process');
		this.#runner = runner;
		this.#patience = patience;
		this.#logger = Object.fromEntries(['debug', 'info', 'warn', 'error'].map((level) => [level, (message) => {
			try {
				logger[level]?.(`ai_chat_run: ${message}`);
			} catch {
				// A line that cannot be logged is no reason to lose a run.
			}
		}]));

		const connections = new Connections(pool, direct, `ai_chat_run ${runner}`.slice(0, 63));
		const shared = { runner, runs: this.#runs, logger: this.#logger };
		this.#database = new Database(pool, this.#logger, tryTime);
		this.#waits = new Waits(connections);
		// Who waits for ends keeps nobody from making one.
		this.#supersedes = new Waits(connections);
		this.#doubts = new Doubts({ ...shared, database: this.#database });
		this.#heartbeat = new Heartbeat({
			...shared, database: this.#database, interval: heartbeatInterval, afterwards: () => this.#catchUp() });
		// What happened while nobody was connected, the next heartbeat tells; the first connection has missed nothing.
		this.#watch = new StopWatch({
			...shared, connections, incarnation, attach, clock: this.#clock, onConnected: () => this.#heartbeat.now() });
	}

	get runner() {
		return this.#runner;
	}

	/** How the process is connected, for a health check. */
	get state() {
		return this.#closed ? 'closed' : this.#watch.state;
	}

	/** Connects now rather than with the first begin, and resolves when runs can begin. */
	async start() {
		this.#requireOpen();
		await this.#watch.ready(deadlineAfter(this.#patience));
	}

	async beginRun({ chatId, workspaceId, userId, trigger = 'user' }) {
		this.#requireOpen();
		const deadline = deadlineAfter(this.#patience);
		await this.#watch.ready(deadline);
		for (;;) {
			this.#requireOpen();
			const run = this.#runs.add(this.#clock.newRunId(), chatId, workspaceId);
			const begun = await this.#tryBegin(run, [chatId, workspaceId, userId ?? null, trigger, run.id, this.#runner], deadline);
			if (begun)
				return this.#execute(run);
		}
	}

	/** False if the run was begun and, before we heard of it, ended by somebody else: it has not been executed. */
	async #tryBegin(run, values, deadline) {
		const doubt = {};
		try {
			const { rows: [answer] } = await this.#database.again(TRY_BEGIN, values,
				{ deadline, doubt, what: `could not begin a run of chat ${run.chatId}` });
			if (answer.outcome === 'busy')
				throw new RunAlreadyActiveError(run.chatId, answer.run_id);
			doubt.exists = true;
			if (answer.outcome === 'resumed' && await this.#isOver(run, deadline)) {
				this.#runs.delete(run);
				return false;
			}
			return true;
		} catch (error) {
			this.#runs.delete(run);
			if (doubt.exists && !isRefusal(error))
				this.#lookLater(run.chatId, run.workspaceId);
			throw error.code === 'RN409' && !(error instanceof RunAlreadyActiveError)
				? new RunAlreadyActiveError(run.chatId, undefined, { cause: error }) : error;
		}
	}

	/** A run of ours may be in that chat, or come yet, that nobody executes. */
	#lookLater(chatId, workspaceId) {
		this.#doubts.add(chatId, workspaceId);
		this.#heartbeat.start();
	}

	async #isOver(run, deadline) {
		const { rows } = await this.#database.again('SELECT ai_chat_run.heartbeat($1, $2) AS signal',
			[run.id, run.workspaceId], { deadline, what: `could not ask for run ${run.id}` });
		this.#runs.hear(run.id, rows[0].signal);
		return rows[0].signal === 'finalized' || rows[0].signal === 'not_found';
	}

	#execute(run) {
		run.state = 'running';
		this.#heartbeat.start();
		// close() came meanwhile, and has not seen it.
		if (this.#closed)
			run.fire('closed');
		return { runId: run.id, signal: run.signal };
	}

	async supersedeRun({ chatId, targetRunId, workspaceId, userId, trigger = 'user', timeout = 10_000, force = false }) {
		this.#requireOpen();
		// One after the other in a chat: after a lost connection, a new run of ours must be this call's.
		const chat = sameId(chatId);
		const before = this.#superseding.get(chat);
		const mine = (before ?? Promise.resolve()).then(async () => {
			await this.#watch.ready(deadlineAfter(this.#patience));
			return this.#supersede([chatId, targetRunId, workspaceId, userId ?? null, trigger], timeout, force);
		});
		const settled = mine.catch(silent).then(() => {
			if (this.#superseding.get(chat) === settled)
				this.#superseding.delete(chat);
		});
		this.#superseding.set(chat, settled);
		return mine;
	}

	async #supersede(values, timeout, force) {
		const [chatId, , workspaceId] = values;
		const deadline = deadlineAfter(timeout);
		const lastTry = deadline + this.#patience;
		const pauses = new Pauses(50, 3000);
		let inDoubt = false;
		const closing = this.#supersedes.signal;
		for (;;) {
			let row;
			try {
				row = await this.#supersedes.call(SUPERSEDE, (left) => [...values, interval(left), force],
					{ deadline, settings: { 'ai_chat_run.runner': this.#runner } });
				if (!inDoubt || row.outcome === 'superseded' || row.outcome === 'began')
					return this.#superseded(row.outcome, row.run_id, chatId, workspaceId);
			} catch (error) {
				inDoubt ||= isInDoubt(error) || closing.aborted;
				const pause = pauses.next();
				if (closing.aborted || !isTransient(error) || now() + pause >= lastTry) {
					if (inDoubt)
						this.#lookLater(chatId, workspaceId);
					throw error.code === 'RN409' ? new RunAlreadyActiveError(chatId, undefined, { cause: error }) : error;
				}
				this.#logger.warn(`could not supersede a run of chat ${chatId}: ${wordsOf(error)}; trying again`);
				await sleep(pause, { signal: closing });
			}
			// It may be done, and only the answer be lost; a mismatch may be with our own. Under our name, only this process
			// begins runs.
			if (inDoubt) {
				const active = await this.getActiveForChat(chatId, workspaceId).catch(silent);
				if (active?.runner === this.#runner && sameId(active.id) !== sameId(values[1]) && !this.#runs.get(active.id))
					return this.#superseded('superseded', active.id, chatId, workspaceId);
			}
			if (row) {
				this.#lookLater(chatId, workspaceId);
				return this.#superseded(row.outcome, row.run_id, chatId, workspaceId);
			}
		}
	}

	#superseded(outcome, runId, chatId, workspaceId) {
		if (outcome !== 'superseded' && outcome !== 'began')
			return { outcome, runId: runId ?? undefined };
		return { outcome, ...this.#execute(this.#runs.add(runId, chatId, workspaceId)) };
	}

	async linkAssistantMessage(runId, workspaceId, assistantMessageId) {
		const row = await this.#bestEffort('SELECT ai_chat_run.link_assistant_message($1, $2, $3) AS linked',
			[runId, workspaceId, assistantMessageId], `could not link the assistant's message to run ${runId}`);
		return row?.linked ?? null;
	}

	async recordStep(runId, workspaceId, stepCount) {
		const row = await this.#bestEffort('SELECT ai_chat_run.record_step($1, $2, $3) AS signal',
			[runId, workspaceId, stepCount], `could not record a step of run ${runId}`);
		if (row?.signal && this.#runs.get(runId, workspaceId))
			this.#runs.hear(runId, row.signal);
		return row?.signal ?? null;
	}

	async #bestEffort(text, values, what) {
		try {
			return (await this.#database.once(text, values)).rows[0];
		} catch (error) {
			this.#logger.warn(`${what}: ${wordsOf(error)}`);
			return undefined;
		}
	}

	async finalizeRun(runId, workspaceId, turnStatus, error, { signal, timeout } = {}) {
		if (!TURN_STATUSES.has(turnStatus))
			throw Object.assign(new RangeError(`unknown turn status "${turnStatus}"`), { code: '22023' });
		const decision = { turnStatus, error: errorText(error) };
		const options = { deadline: deadlineAfter(timeout), signal };
		const run = this.#runs.get(runId, workspaceId);
		if (!run)
			return this.#writeEnd(runId, workspaceId, decision, options);
		// The first who ends it decides. If he could not write that, the next one tries, with what the first decided.
		while (run.finalizing) {
			const theirs = run.finalizing.then((outcome) => (outcome === 'finalized' ? 'already_finalized' : outcome), silent);
			const outcome = await within(theirs, options.deadline - now(), silent, signal).catch((cause) => {
				throw new RunNotFinalizedError(runId, { cause });
			});
			if (outcome)
				return outcome;
		}
		return this.#finalize(run, run.decision ?? decision, options);
	}

	async #finalize(run, decision, options) {
		const stateBefore = run.state;
		run.state = 'finalizing';
		run.finalizing = this.#writeEnd(run.id, run.workspaceId, decision, options);
		try {
			const outcome = await run.finalizing;
			run.finalizing = null;
			this.#runs.delete(run);
			return outcome;
		} catch (failure) {
			run.finalizing = null;
			if (isRefusal(failure))
				run.state = stateBefore;
			else
				run.decision = decision;
			throw failure;
		}
	}

	/** `deadline` null: one try, of which nobody needs to hear. */
	async #writeEnd(runId, workspaceId, { turnStatus, error }, { deadline, signal }) {
		const write = (text) => {
			const values = [runId, workspaceId, turnStatus, text];
			return deadline === null ? this.#database.once(FINALIZE, values)
				: this.#database.again(FINALIZE, values, { deadline, signal, what: `could not finalize run ${runId}` });
		};
		try {
			const { rows } = await write(error).catch((failure) => {
				// A database of an old encoding does not know each letter. The run ends all the same.
				if (failure.code !== '22P05')
					throw failure;
				return write(error.replace(/[^\0-\x7f]/gu, '?'));
			});
			if (rows[0].outcome === 'deferred')
				this.#logger.warn(`the end of run ${runId} is deferred: the server will write it when it can`);
			return rows[0].outcome;
		} catch (failure) {
			if (isRefusal(failure))
				throw failure;
			if (deadline !== null)
				this.#logger.error(`run ${runId} left NON-TERMINAL ('running'): ${wordsOf(failure)}`);
			throw new RunNotFinalizedError(runId, { cause: failure });
		}
	}

	/** What is due from time to time; tells whether there is more. */
	async #catchUp() {
		await Promise.all(this.#runs.all().filter(({ decision, finalizing }) => decision && !finalizing).map((run) =>
			this.#finalize(run, run.decision, { deadline: null }).catch(silent)));
		return this.#doubts.look((chatId) => this.#superseding.has(chatId));
	}

	async requestStop(runId, workspaceId) {
		const run = this.#runs.get(runId, workspaceId);
		const row = await this.#recordStop('SELECT ai_chat_run.request_stop($1, $2) AS stopped', [runId, workspaceId], run);
		return Boolean(row.stopped || run);
	}

	async requestStopForChat(chatId, workspaceId) {
		const [run] = this.#runs.ofChat(chatId, workspaceId);
		const row = await this.#recordStop('SELECT ai_chat_run.request_stop_for_chat($1, $2) AS id', [chatId, workspaceId], run);
		return row.id ?? run?.id;
	}

	/** A run of our own is stopped in any case. */
	async #recordStop(text, values, run) {
		if (!run)
			return (await this.#ask(text, values)).rows[0];
		const recorded = this.#bestEffort(text, values, `could not record the stop of run ${run.id}`);
		await within(recorded, STOP_TIME, silent).catch(silent);
		run.fire('stop');
		return await recorded ?? {};
	}

	async getRun(runId, workspaceId) {
		return toRun((await this.#ask('SELECT * FROM ai_chat_run.get_run($1, $2)', [runId, workspaceId])).rows[0]);
	}

	async getLatestForChat(chatId, workspaceId) {
		return toRun((await this.#ask('SELECT * FROM ai_chat_run.get_latest_for_chat($1, $2)', [chatId, workspaceId])).rows[0]);
	}

	async getActiveForChat(chatId, workspaceId) {
		return toRun((await this.#ask('SELECT * FROM ai_chat_run.get_active_for_chat($1, $2)', [chatId, workspaceId])).rows[0]);
	}

	/** Does this process execute the run? */
	isLocallyActive(runId) {
		return this.#runs.get(runId) !== undefined;
	}

	#ask(text, values) {
		return this.#database.again(text, values, { deadline: deadlineAfter(this.#patience), what: 'could not ask' });
	}

	/** The run's status and error when it is terminal; null when the time is over. */
	async awaitSettled(runId, workspaceId, { timeout = 30_000 } = {}) {
		this.#requireOpen();
		const deadline = deadlineAfter(timeout);
		const pauses = new Pauses(50, 3000);
		let polls = false;
		do {
			// Where many wait, the others look.
			const looks = polls || this.#waits.full;
			try {
				const settled = looks ? await this.#lookSettled(runId, workspaceId) : await this.#waits.call(AWAIT_RUN,
					(left) => [runId, workspaceId, interval(left)], { deadline: Math.min(deadline, now() + SLICE) });
				if (settled.status !== null)
					return { status: settled.status, error: settled.error };
				if (!looks)
					continue;
			} catch (error) {
				if (!needsPreload(error) && !isTransient(error))
					throw error;
				polls ||= needsPreload(error);
			}
			await sleep(Math.min(pauses.next(), Math.max(deadline - now(), 0)), { signal: this.#waits.signal });
			this.#requireOpen();
		} while (now() < deadline);
		return null;
	}

	async #lookSettled(runId, workspaceId) {
		const run = await this.getRun(runId, workspaceId);
		if (!run)
			return { status: 'not_found', error: null };
		return run.finishedAt === null ? { status: null, error: null } : { status: run.status, error: run.error };
	}

	/**
	 * For the end of the process. Fires the signals of all runs and gives their turns that time to end; what is left then is
	 * aborted. The pool stays open: it is the application's.
	 */
	close({ timeout = 5000 } = {}) {
		this.#closed ??= this.#close(timeout);
		return this.#closed;
	}

	async #close(timeout) {
		// After this step, for #closed to be set when a listener of a signal looks.
		await null;
		for (const run of this.#runs.all())
			run.fire('closed');
		this.#heartbeat.now();
		await within(this.#runs.empty(), timeout, silent).catch(silent);
		const closed = { turnStatus: 'aborted', error: 'The process was closed.' };
		const left = this.#runs.all().filter((run) => run.state === 'running' || run.decision);
		await Promise.all(left.map((run) => within(
			run.finalizing ?? this.#finalize(run, run.decision ?? closed, { deadline: now() + LAST_TIME }), LAST_TIME, silent)
			.catch(silent)));
		this.#database.close();
		this.#waits.close(new ClosedError());
		this.#supersedes.close(new ClosedError());
		await Promise.all([this.#heartbeat.close(), this.#watch.close()]);
	}

	#requireOpen() {
		if (this.#closed)
			throw new ClosedError();
	}
}
