// What a process lives through: answers that are lost, sessions that are ended, a server that restarts, names that are
// taken, a pool that has nothing left.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, beforeEach, afterEach, test } from 'node:test';
import pg from 'pg';
import { Database } from '../lib/database.js';
import { AiChatRuns, RunNotFinalizedError, RunnerNotReadyError } from '../lib/index.js';
import { Proxy } from './proxy.js';
import { aborted, memory, Server, until } from './server.js';

const workspaceId = randomUUID();
let server;
let proxy;
let other;
let opened;

before(async () => {
	server = await Server.start(`
		ai_chat_run.boot_sweep = grace
		ai_chat_run.boot_grace = 1h
		ai_chat_run.runner_grace = 1h`);
	proxy = await Proxy.start(server);
	other = new AiChatRuns({ pool: server.pool(), runner: 'other', logger: memory() });
});

after(async () => {
	await other?.close({ timeout: 0 });
	await proxy?.close();
	await server?.remove();
});

beforeEach(() => {
	opened = [];
});

afterEach(async () => {
	proxy.refuses = false;
	await Promise.all(opened.map((runs) => runs.close({ timeout: 0 })));
});

// A process of its own name. Its pool is through the proxy, and its heart rests, unless told otherwise.
function open({ pool = server.pool({ host: proxy.dir }), ...more } = {}) {
	const logger = memory();
	const runs = new AiChatRuns({
		pool, direct: server.options(), runner: randomUUID(), heartbeatInterval: 3_600_000, logger, ...more });
	opened.push(runs);
	runs.lines = logger.lines;
	return runs;
}

const begin = (runs, chatId = randomUUID()) => runs.beginRun({ chatId, workspaceId });
const statusOf = async (runId) => (await other.getRun(runId, workspaceId))?.status;
const countOf = (chatId) => server.admin('SELECT count(*)::int FROM ai_chat_run.ai_chat_runs WHERE chat_id = $1', [chatId]);
const watcherOf = (runs) => `SELECT pid FROM pg_stat_activity WHERE application_name = 'ai_chat_run ${runs.runner}'`;

/** Ends the waiting session, and resolves when it is gone. */
async function terminateWatcher(runs) {
	const pid = await until(() => server.admin(watcherOf(runs)), 'the session that waits');
	await server.admin('SELECT pg_terminate_backend($1, 60000)', [pid]);
	return pid;
}

test('a begin whose answer is lost', async () => {
	const runs = open();
	const chatId = randomUUID();
	const lost = proxy.loseAnswer('try_begin_run');
	const { runId, signal } = await begin(runs, chatId);
	await lost;
	assert.ok(!signal.aborted && runs.isLocallyActive(runId));
	assert.equal(await countOf(chatId), 1);
	assert.equal(await runs.finalizeRun(runId, workspaceId, 'completed'), 'finalized');
});

test('a begin whose answer is lost, and whose run is ended before it is repeated', async () => {
	const runs = open();
	const chatId = randomUUID();
	const lost = proxy.loseAnswer('try_begin_run').then(async () => {
		proxy.refuses = true;
		const [run] = [await until(() => other.getActiveForChat(chatId, workspaceId))];
		await other.finalizeRun(run.id, workspaceId, 'aborted', 'swept');
		proxy.refuses = false;
		return run.id;
	});
	const { runId, signal } = await begin(runs, chatId);
	assert.notEqual(runId, await lost, 'a run that can be executed');
	assert.ok(!signal.aborted);
	assert.equal(await statusOf(runId), 'running');
	await runs.finalizeRun(runId, workspaceId, 'completed');
});

test('a begin that is given up, and was carried out', async () => {
	const runs = open({ patience: 2000, heartbeatInterval: 20 });
	const chatId = randomUUID();
	await runs.start();
	// What the server refuses has not begun, whatever was lost before: it must not be in the way of what follows.
	const refused = proxy.loseAnswer('try_begin_run');
	await assert.rejects(begin(runs, 'no uuid'), { code: '22P02' });
	await refused;
	const lost = proxy.loseAnswer('try_begin_run').then(() => {
		proxy.refuses = true;
	});
	await assert.rejects(begin(runs, chatId), (error) => !(error instanceof RunnerNotReadyError));
	await lost;
	assert.equal((await other.getActiveForChat(chatId, workspaceId)).runner, runs.runner);
	proxy.refuses = false;
	const settled = await until(async () => (await other.getActiveForChat(chatId, workspaceId)) ? null
		: other.getLatestForChat(chatId, workspaceId), 'the chat to be free');
	assert.deepEqual([settled.status, settled.error], ['aborted', 'The begin of this run was given up.']);
	const { runId } = await begin(runs, chatId);
	await runs.finalizeRun(runId, workspaceId, 'completed');
});

test('an end whose answer is lost', async () => {
	const runs = open();
	const { runId } = await begin(runs);
	const lost = proxy.loseAnswer('finalize_run');
	assert.equal(await runs.finalizeRun(runId, workspaceId, 'error', 'no model'), 'already_finalized');
	await lost;
	assert.equal(await statusOf(runId), 'failed');
	assert.ok(!runs.isLocallyActive(runId));
});

test('an end that is not answered at all', async () => {
	const runs = open({ tryTime: 500 });
	const { runId } = await begin(runs);
	const swallowed = proxy.swallow('finalize_run');
	// Where all is slow, further tries may be in vain.
	assert.match(await runs.finalizeRun(runId, workspaceId, 'completed'), /^(already_)?finalized$/);
	await swallowed;
	assert.equal(await statusOf(runId), 'succeeded');
});

test('a supersede whose answer is lost', async () => {
	const runs = open({ direct: server.options({ host: proxy.dir }) });
	const chatId = randomUUID();
	const old = await begin(other, chatId);
	old.signal.addEventListener('abort', () => other.finalizeRun(old.runId, workspaceId, 'aborted'));
	const lost = proxy.loseAnswer('supersede_run');
	const { outcome, runId } = await runs.supersedeRun({ chatId, targetRunId: old.runId, workspaceId });
	await lost;
	assert.equal(outcome, 'superseded');
	assert.ok(runs.isLocallyActive(runId));
	assert.equal((await other.getActiveForChat(chatId, workspaceId)).id, runId);
	assert.equal(await countOf(chatId), 2);
	await runs.finalizeRun(runId, workspaceId, 'completed');
});

test('a supersede whose connection is lost, and which is carried out later', async () => {
	const runs = open({ direct: server.options({ host: proxy.dir }) });
	const chatId = randomUUID();
	const old = await begin(other, chatId);
	const held = proxy.strand('CALL ai_chat_run.supersede_run').then(() => proxy.hold('set_config($1'));
	const superseding = runs.supersedeRun({ chatId, targetRunId: old.runId, workspaceId, timeout: 600_000 });
	const goOn = await held;
	await other.finalizeRun(old.runId, workspaceId, 'completed');
	const begun = await until(() => other.getActiveForChat(chatId, workspaceId), 'the first call to begin a run');
	goOn();
	const { outcome, runId } = await superseding;
	assert.deepEqual([outcome, runId], ['superseded', begun.id]);
	assert.ok(runs.isLocallyActive(runId));
	await runs.finalizeRun(runId, workspaceId, 'completed');
});

test('an end that nobody waits for any longer is written later', async () => {
	const runs = open({ heartbeatInterval: 20 });
	const ended = await begin(runs);
	const stopped = await begin(runs);
	proxy.refuses = true;
	proxy.cut();
	await assert.rejects(runs.finalizeRun(ended.runId, workspaceId, 'error', 'first', { timeout: 100 }), RunNotFinalizedError);
	const controller = new AbortController();
	const giveUp = runs.finalizeRun(stopped.runId, workspaceId, 'completed', undefined, { signal: controller.signal });
	controller.abort();
	await assert.rejects(giveUp, RunNotFinalizedError);
	assert.ok(runs.isLocallyActive(ended.runId));
	assert.ok(runs.lines.some((line) => line.includes(`run ${ended.runId} left NON-TERMINAL`)), runs.lines.join('\n'));
	proxy.refuses = false;
	assert.deepEqual(await other.awaitSettled(ended.runId, workspaceId), { status: 'failed', error: 'first' });
	assert.deepEqual(await other.awaitSettled(stopped.runId, workspaceId), { status: 'succeeded', error: null });
	await until(() => !runs.isLocallyActive(ended.runId) && !runs.isLocallyActive(stopped.runId));
});

test('the first decision holds, also after it could not be written', async () => {
	const runs = open();
	const { runId } = await begin(runs);
	proxy.refuses = true;
	proxy.cut();
	await assert.rejects(runs.finalizeRun(runId, workspaceId, 'completed', undefined, { timeout: 0 }), RunNotFinalizedError);
	proxy.refuses = false;
	assert.equal(await runs.finalizeRun(runId, workspaceId, 'error', 'the safety net'), 'finalized');
	assert.equal(await statusOf(runId), 'succeeded');
});

test('the session that waits is ended', async () => {
	const runs = open();
	const { runId, signal } = await begin(runs);
	for (let i = 0; i < 3; i++) {
		const pid = await terminateWatcher(runs);
		await until(async () => ![undefined, pid].includes(await server.admin(watcherOf(runs))), 'another session');
	}
	await until(() => runs.state === 'attached');
	assert.equal(await statusOf(runId), 'running');
	await other.requestStop(runId, workspaceId);
	assert.equal((await aborted(signal)).why, 'stop');
	await runs.finalizeRun(runId, workspaceId, 'aborted');
});

test('a stop while the waiting session is lost', async () => {
	const runs = open({ pool: server.pool(), direct: server.options({ host: proxy.dir }) });
	const { runId, signal } = await begin(runs);
	proxy.refuses = true;
	proxy.cut();
	await until(() => runs.state === 'lost');
	await other.requestStop(runId, workspaceId);
	assert.ok(!signal.aborted);
	proxy.refuses = false;
	assert.equal((await aborted(signal)).why, 'stop');
	await runs.finalizeRun(runId, workspaceId, 'aborted');
});

test('a stop that the heartbeat tells', async () => {
	const runs = open({ pool: server.pool(), direct: server.options({ host: proxy.dir }), heartbeatInterval: 20 });
	const { runId, signal } = await begin(runs);
	proxy.refuses = true;
	proxy.cut();
	await other.requestStop(runId, workspaceId);
	assert.equal((await aborted(signal)).why, 'stop');
	assert.equal(await runs.finalizeRun(runId, workspaceId, 'aborted'), 'finalized');
});

test('a stop of the process\'s own, with no server to tell', async () => {
	const runs = open();
	const chatId = randomUUID();
	const { runId, signal } = await begin(runs);
	const { runId: second, signal: secondSignal } = await begin(runs, chatId);
	proxy.refuses = true;
	proxy.cut();
	assert.equal(await runs.requestStop(runId, workspaceId), true);
	assert.equal(signal.reason.why, 'stop');
	assert.equal(await runs.requestStopForChat(chatId, workspaceId), second);
	assert.equal(secondSignal.reason.why, 'stop');
	await assert.rejects(open({ patience: 0 }).requestStop(randomUUID(), workspaceId), 'of others, that is an error');
	proxy.refuses = false;
	for (const id of [runId, second])
		assert.equal(await runs.finalizeRun(id, workspaceId, 'aborted'), 'finalized');
});

test('what the server could never write is not held', async () => {
	const runs = open();
	const { runId } = await begin(runs);
	proxy.refuses = true;
	proxy.cut();
	await assert.rejects(runs.finalizeRun(runId, workspaceId, 'done', undefined, { timeout: 0 }), { code: '22023' });
	proxy.refuses = false;
	assert.equal(await runs.finalizeRun(runId, workspaceId, 'completed'), 'finalized');
});

test('what is decided is written before the process is closed', async () => {
	for (const timeout of [0, 3_600_000]) {
		const runs = open();
		const { runId } = await begin(runs);
		proxy.refuses = true;
		proxy.cut();
		await assert.rejects(runs.finalizeRun(runId, workspaceId, 'completed', undefined, { timeout: 0 }), RunNotFinalizedError);
		proxy.refuses = false;
		await runs.close({ timeout });
		assert.equal(await statusOf(runId), 'succeeded');
	}
});

test('a logger that fails stops nothing', async () => {
	const fail = () => {
		throw new Error('no logger');
	};
	const runs = open({ logger: { debug: fail, info: fail, warn: fail, error: fail } });
	const { runId, signal } = await begin(runs);
	const pid = await terminateWatcher(runs);
	await until(async () => ![undefined, pid].includes(await server.admin(watcherOf(runs))), 'another session');
	await other.requestStop(runId, workspaceId);
	assert.equal((await aborted(signal)).why, 'stop');
	const lost = proxy.loseAnswer('finalize_run');
	assert.equal(await runs.finalizeRun(runId, workspaceId, 'aborted'), 'already_finalized');
	await lost;
});

test('two processes of one name', async () => {
	const first = open({ runner: 'twin' });
	const second = open({ runner: 'twin', patience: 100 });
	const { runId } = await begin(first);
	await assert.rejects(second.start(), RunnerNotReadyError);
	await until(() => second.state === 'lost');
	await assert.rejects(begin(second), (error) => {
		assert.ok(error instanceof RunnerNotReadyError);
		assert.equal(error.cause.code, '55006');
		assert.match(error.message, /runner "twin" is not attached: another process has that name/);
		return true;
	});
	assert.equal(await statusOf(runId), 'running');
	await first.finalizeRun(runId, workspaceId, 'completed');
	await first.close();
	await until(() => second.state === 'attached');
});

test('a begin that the server refuses for good is refused at once', async () => {
	const runs = open({ patience: 3_600_000, direct: server.options({ database: 'template1' }) });
	await assert.rejects(begin(runs), (error) => error instanceof RunnerNotReadyError && error.cause.code === '3F000');
});

test('a pool that has nothing left', async () => {
	const pool = server.pool({ max: 1 });
	const runs = open({ pool });
	const { runId, signal } = await begin(runs);
	const client = await pool.connect();
	await other.requestStop(runId, workspaceId);
	assert.equal((await aborted(signal)).why, 'stop');
	const ending = runs.finalizeRun(runId, workspaceId, 'aborted');
	client.release();
	assert.equal(await ending, 'finalized');
});

test('a begin that gets no connection has not begun', async () => {
	const full = new Error('timeout exceeded when trying to connect');
	const database = new Database({ connect: (done) => done(full), on() {} }, memory(), 1000);
	const doubt = {};
	await assert.rejects(database.again('SELECT', [], { deadline: performance.now(), doubt, what: 'could not ask' }), full);
	assert.ok(!doubt.exists);
});

test('errors without a message', async () => {
	// What Node makes of a name with several addresses, none of which answers.
	const refused = new AggregateError([new Error('connect ECONNREFUSED ::1:5432'), new Error('and 127.0.0.1')], '');
	const pool = { connect: (done) => done(refused), on() {}, Client: pg.Client, options: {} };
	const runs = open({ pool, patience: 3_600_000 });
	const asked = assert.rejects(runs.getRun(randomUUID(), workspaceId), AggregateError);
	const line = await until(() => runs.lines.find((one) => one.includes('could not ask')));
	await runs.close();
	await asked;
	assert.match(line, /could not ask: connect ECONNREFUSED ::1:5432, and 127.0.0.1; trying again/);
});

test('a server that restarts, and keeps the runs of those who come back', async () => {
	const runs = open({ heartbeatInterval: 50 });
	const kept = await begin(runs);
	const ended = await begin(runs);
	await server.stop('immediate');
	const ending = runs.finalizeRun(ended.runId, workspaceId, 'completed');
	await until(() => runs.state === 'lost');
	await server.restart();
	assert.equal(await ending, 'finalized');
	await until(() => runs.state === 'attached');
	assert.equal(await statusOf(kept.runId), 'running');
	assert.ok(!kept.signal.aborted);
	await until(() => other.state === 'attached');
	await other.requestStop(kept.runId, workspaceId);
	assert.equal((await aborted(kept.signal)).why, 'stop');
	await runs.finalizeRun(kept.runId, workspaceId, 'aborted');
});

test('a server that restarts, and ends all runs', async () => {
	await server.configure('ai_chat_run.boot_sweep = on');
	const runs = open({ heartbeatInterval: 20 });
	const { runId, signal } = await begin(runs);
	await server.restart();
	assert.equal((await aborted(signal)).why, 'finalized');
	assert.equal((await other.getRun(runId, workspaceId)).error, 'Run interrupted by a server restart.');
	assert.equal(await runs.finalizeRun(runId, workspaceId, 'aborted'), 'already_finalized');
});
