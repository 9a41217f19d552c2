// Each method, between two processes' worth of clients behind one preloaded server.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { AiChatRuns, ClosedError, RunAlreadyActiveError, RunStoppedError } from '../lib/index.js';
import { aborted, memory, Server, until } from './server.js';

const workspaceId = randomUUID();
const userId = randomUUID();
let server;
let here;
let there;

before(async () => {
	server = await Server.start();
	here = new AiChatRuns({ pool: server.pool(), runner: 'here', logger: memory(), heartbeatInterval: 100 });
	there = new AiChatRuns({ pool: server.pool(), runner: 'there', logger: memory(), heartbeatInterval: 100 });
});

after(async () => {
	await Promise.all([here?.close({ timeout: 0 }), there?.close({ timeout: 0 })]);
	await server?.remove();
});

const begin = (more) => here.beginRun({ chatId: randomUUID(), workspaceId, userId, ...more });

test('a turn from begin to end', async () => {
	const chatId = randomUUID();
	const messageId = randomUUID();
	const { runId, signal } = await here.beginRun({ chatId, workspaceId, userId });
	assert.match(runId, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
	assert.ok(signal instanceof AbortSignal && !signal.aborted);
	assert.ok(here.isLocallyActive(runId));
	assert.ok(!there.isLocallyActive(runId));
	assert.equal(await here.linkAssistantMessage(runId, workspaceId, messageId), true);
	assert.equal(await here.recordStep(runId, workspaceId, 2), 'continue');

	const run = await there.getActiveForChat(chatId, workspaceId);
	assert.ok(run.startedAt instanceof Date && run.createdAt instanceof Date && run.updatedAt instanceof Date);
	assert.deepEqual({ ...run, startedAt: 0, createdAt: 0, updatedAt: 0 }, {
		id: runId, chatId, workspaceId, createdBy: userId, assistantMessageId: messageId, trigger: 'user', status: 'running',
		error: null, stepCount: 2, runner: 'here', stopRequestedAt: null, startedAt: 0, finishedAt: null, createdAt: 0, updatedAt: 0,
	});

	assert.equal(await here.finalizeRun(runId, workspaceId, 'completed'), 'finalized');
	assert.ok(!here.isLocallyActive(runId) && !signal.aborted);
	assert.equal(await here.finalizeRun(runId, workspaceId, 'error', 'too late'), 'already_finalized');
	assert.equal(await here.getActiveForChat(chatId, workspaceId), undefined);
	const { status, error, finishedAt } = await here.getLatestForChat(chatId, workspaceId);
	assert.deepEqual([status, error], ['succeeded', null]);
	assert.ok(finishedAt instanceof Date);
	assert.equal((await here.getRun(runId, workspaceId)).status, 'succeeded');
	assert.equal(await here.getRun(runId, randomUUID()), undefined, 'of another workspace');
});

test('one run at a time in a chat, whoever begins it', async () => {
	const chatId = randomUUID();
	const { runId } = await here.beginRun({ chatId, workspaceId });
	for (const runs of [here, there]) {
		await assert.rejects(runs.beginRun({ chatId, workspaceId }), (error) => {
			assert.ok(error instanceof RunAlreadyActiveError);
			assert.deepEqual([error.code, error.chatId, error.activeRunId], ['RN409', chatId, runId]);
			return true;
		});
	}
	await here.finalizeRun(runId, workspaceId, 'completed');
	const next = await there.beginRun({ chatId, workspaceId, trigger: 'schedule' });
	assert.equal((await here.getLatestForChat(chatId, workspaceId)).trigger, 'schedule');
	assert.ok(next.runId > runId, 'ids grow in the order of the begins, whoever makes them');
	await there.finalizeRun(next.runId, workspaceId, 'completed');
});

test('a stop from another process fires the signal', async () => {
	const { runId, signal } = await begin();
	assert.equal(await there.requestStop(runId, randomUUID()), false, 'of another workspace');
	assert.equal(await there.requestStop(runId, workspaceId), true);
	const reason = await aborted(signal);
	assert.ok(reason instanceof RunStoppedError);
	assert.deepEqual([reason.name, reason.why, reason.runId], ['AbortError', 'stop', runId]);
	assert.ok(here.isLocallyActive(runId), 'until its end is written');
	assert.equal(await here.finalizeRun(runId, workspaceId, 'aborted'), 'finalized');
	assert.equal(await there.requestStop(runId, workspaceId), false, 'nothing to stop');
});

test('stops of many runs, one after the other', async () => {
	const runs = await Promise.all(Array.from({ length: 20 }, () => begin()));
	for (const { runId, signal } of runs) {
		await there.requestStop(runId, workspaceId);
		await aborted(signal);
	}
	await Promise.all(runs.map(({ runId }) => here.finalizeRun(runId, workspaceId, 'aborted')));
});

test('a stop of whatever runs in the chat', async () => {
	const chatId = randomUUID();
	assert.equal(await there.requestStopForChat(chatId, workspaceId), undefined);
	const { runId, signal } = await here.beginRun({ chatId, workspaceId });
	assert.equal(await there.requestStopForChat(chatId, workspaceId), runId);
	assert.equal((await aborted(signal)).why, 'stop');
	await here.finalizeRun(runId, workspaceId, 'aborted');
});

test('a run that somebody else ends', async () => {
	const { runId, signal } = await begin();
	assert.equal(await there.finalizeRun(runId, workspaceId, 'error', new Error('by hand')), 'finalized');
	assert.equal((await aborted(signal)).why, 'finalized');
	assert.ok(!here.isLocallyActive(runId));
	assert.equal(await here.finalizeRun(runId, workspaceId, 'completed'), 'already_finalized');
	assert.equal((await here.getRun(runId, workspaceId)).error, 'by hand');
});

test('a run that is deleted', async () => {
	const { runId, signal } = await begin();
	await server.admin('DELETE FROM ai_chat_run.ai_chat_runs WHERE id = $1', [runId]);
	assert.equal((await aborted(signal)).why, 'not_found');
	assert.equal(await here.finalizeRun(runId, workspaceId, 'completed'), 'not_found');
});

test('the first of several finalizers decides', async () => {
	const { runId } = await begin();
	const outcomes = await Promise.all([
		here.finalizeRun(runId, workspaceId, 'completed'),
		here.finalizeRun(runId, workspaceId, 'error', 'the safety net'),
		here.finalizeRun(runId, workspaceId, 'aborted')]);
	assert.deepEqual(outcomes, ['finalized', 'already_finalized', 'already_finalized']);
	assert.equal((await here.getRun(runId, workspaceId)).status, 'succeeded');
});

test('what is no turn status is refused, and the run goes on', async () => {
	const { runId } = await begin();
	await assert.rejects(here.finalizeRun(runId, workspaceId, 'done'), { code: '22023' });
	assert.ok(here.isLocallyActive(runId));
	assert.equal(await here.finalizeRun(runId, workspaceId, 'error', 'a \0 byte'), 'finalized');
	assert.equal((await here.getRun(runId, workspaceId)).error, 'a \uFFFD byte');
});

test('words that the database cannot hold do not keep a run from ending', async () => {
	await server.admin(`CREATE DATABASE western TEMPLATE template0 ENCODING 'LATIN1'`);
	const admin = new pg.Client(server.options({ user: 'postgres', database: 'western' }));
	await admin.connect();
	await admin.query(`CREATE EXTENSION ai_chat_run; SELECT ai_chat_run.grant_app_access('chat_app')`);
	await admin.end();
	const runs = new AiChatRuns({ pool: server.pool({ database: 'western' }), runner: 'western', logger: memory() });
	const { runId } = await runs.beginRun({ chatId: randomUUID(), workspaceId });
	assert.equal(await runs.finalizeRun(runId, workspaceId, 'error', 'the model said \u201cno\u201d'), 'finalized');
	const { status, error } = await runs.getRun(runId, workspaceId);
	assert.deepEqual([status, error], ['failed', 'the model said ?no?']);
	await runs.close();
});

test('a locked row defers the end, which is written later', async () => {
	const { runId, signal } = await begin();
	const client = await server.pool({ user: 'postgres' }).connect();
	await client.query('BEGIN');
	await client.query('SELECT FROM ai_chat_run.ai_chat_runs WHERE id = $1 FOR UPDATE', [runId]);
	await there.requestStop(runId, workspaceId);
	assert.equal((await aborted(signal)).why, 'stop', 'a stop is heard all the same');
	assert.equal(await here.finalizeRun(runId, workspaceId, 'aborted', 'enough'), 'deferred');
	assert.ok(!here.isLocallyActive(runId));

	// Its stop is told once more with the next one, as of a run that is not executed any longer, and then no more.
	const next = await begin();
	await there.requestStop(next.runId, workspaceId);
	await aborted(next.signal);
	await here.finalizeRun(next.runId, workspaceId, 'aborted');
	const waits = () => server.admin(`SELECT waits::int FROM ai_chat_run.stats WHERE datname = 'postgres'`);
	const before = await waits();
	for (let i = 0; i < 30; i++)
		await there.getRun(runId, workspaceId);
	assert.ok(await waits() - before <= 5, 'waits are not asked for in a circle');
	await client.query('COMMIT');
	client.release();
	assert.deepEqual(await there.awaitSettled(runId, workspaceId), { status: 'aborted', error: 'enough' });
});

test('waiting for the end', async () => {
	const { runId } = await begin();
	assert.equal(await there.awaitSettled(runId, workspaceId, { timeout: 1 }), null);
	const waits = Array.from({ length: 12 }, () => there.awaitSettled(runId, workspaceId));
	await here.finalizeRun(runId, workspaceId, 'error', 'no model');
	for (const settled of await Promise.all(waits))
		assert.deepEqual(settled, { status: 'failed', error: 'no model' });
	assert.deepEqual(await there.awaitSettled(randomUUID(), workspaceId), { status: 'not_found', error: null });
});

test('many who wait keep nobody from hearing, and from superseding', async () => {
	const held = await Promise.all(Array.from({ length: 5 }, () => begin()));
	const waits = held.map(({ runId }) => there.awaitSettled(runId, workspaceId, { timeout: 600_000 }));
	await until(() => server.admin(`SELECT count(*) = 5 FROM pg_stat_activity
		WHERE application_name = 'ai_chat_run there' AND query LIKE '%await_run%'`), 'five to wait');
	const chatId = randomUUID();
	const ended = await begin({ chatId });
	const settled = there.awaitSettled(ended.runId, workspaceId);
	await here.finalizeRun(ended.runId, workspaceId, 'completed');
	assert.deepEqual(await settled, { status: 'succeeded', error: null });
	const { outcome, runId } = await there.supersedeRun({ chatId, targetRunId: ended.runId, workspaceId });
	assert.equal(outcome, 'began');
	await there.finalizeRun(runId, workspaceId, 'completed');
	for (const { runId: id } of held)
		await here.finalizeRun(id, workspaceId, 'completed');
	for (const { status } of await Promise.all(waits))
		assert.equal(status, 'succeeded');
});

test('superseding a run of another process', async () => {
	const chatId = randomUUID();
	const old = await here.beginRun({ chatId, workspaceId });
	old.signal.addEventListener('abort', () => here.finalizeRun(old.runId, workspaceId, 'aborted'));
	const { outcome, runId, signal } = await there.supersedeRun({ chatId, targetRunId: old.runId, workspaceId, userId });
	assert.equal(outcome, 'superseded');
	assert.ok(there.isLocallyActive(runId) && !signal.aborted);
	const run = await here.getActiveForChat(chatId, workspaceId);
	assert.deepEqual([run.id, run.runner, run.createdBy], [runId, 'there', userId]);

	// Not the run that is meant, and one that does not end.
	assert.deepEqual(await here.supersedeRun({ chatId, targetRunId: old.runId, workspaceId }), { outcome: 'mismatch', runId });
	const { outcome: late } = await here.supersedeRun({ chatId, targetRunId: runId, workspaceId, timeout: 1 });
	assert.equal(late, 'timeout');
	assert.equal((await aborted(signal)).why, 'stop');
	const forced = await here.supersedeRun({ chatId, targetRunId: runId, workspaceId, timeout: 1, force: true });
	assert.equal(forced.outcome, 'superseded');
	assert.equal(await there.finalizeRun(runId, workspaceId, 'completed'), 'already_finalized');

	await here.finalizeRun(forced.runId, workspaceId, 'completed');
	const began = await here.supersedeRun({ chatId, targetRunId: forced.runId, workspaceId });
	assert.equal(began.outcome, 'began');
	assert.equal(await there.requestStop(began.runId, workspaceId), true);
	assert.equal((await aborted(began.signal)).why, 'stop');
	await here.finalizeRun(began.runId, workspaceId, 'aborted');
});

test('what can go wrong with a step does not reach the turn', async () => {
	const { runId } = await begin();
	assert.equal(await here.recordStep(runId, workspaceId, -1), null);
	assert.equal(await here.linkAssistantMessage(runId, workspaceId, 'no uuid'), null);
	assert.equal(await here.recordStep(runId, workspaceId, 1), 'continue');
	await here.finalizeRun(runId, workspaceId, 'completed');
	assert.equal(await here.recordStep(runId, workspaceId, 2), 'finalized');
});

test('arguments', () => {
	const pool = server.pool();
	for (const runner of [undefined, '', 'x'.repeat(128)])
		assert.throws(() => new AiChatRuns({ pool, runner }), /runner must be a name/);
	assert.throws(() => new AiChatRuns({ runner: 'x' }), /pool must be a Pool/);
});

test('close ends the turns, and then what did not end', async () => {
	const pool = server.pool();
	const runs = new AiChatRuns({ pool, runner: 'closing', logger: memory() });
	const polite = await runs.beginRun({ chatId: randomUUID(), workspaceId });
	const deaf = await runs.beginRun({ chatId: randomUUID(), workspaceId });
	const foreign = await begin();
	const waiting = assert.rejects(runs.awaitSettled(foreign.runId, workspaceId, { timeout: 600_000 }), ClosedError);
	polite.signal.addEventListener('abort', () => runs.finalizeRun(polite.runId, workspaceId, 'error', polite.signal.reason));
	await runs.close({ timeout: 300 });
	await waiting;
	await here.finalizeRun(foreign.runId, workspaceId, 'completed');
	assert.equal(deaf.signal.reason.why, 'closed');
	assert.match((await here.getRun(polite.runId, workspaceId)).error, /is about to end/);
	assert.deepEqual(await here.awaitSettled(deaf.runId, workspaceId), { status: 'aborted', error: 'The process was closed.' });
	await assert.rejects(runs.beginRun({ chatId: randomUUID(), workspaceId }), ClosedError);
	assert.equal(runs.state, 'closed');
	await runs.close();
	assert.equal((await pool.query('SELECT 1')).rowCount, 1, 'the pool is the application\'s');
	await pool.end();
	await until(async () => await server.admin(
		`SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'ai_chat_run closing'`), 'the session to be gone');
});
