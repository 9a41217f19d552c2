// A server that does not preload the library: stops come by notification and heartbeat, waiting is asking from time to time.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import { AiChatRuns, RunAlreadyActiveError } from '../lib/index.js';
import { Proxy } from './proxy.js';
import { aborted, memory, Server, until } from './server.js';

const workspaceId = randomUUID();
const logger = memory();
let server;
let proxy;
let here;
let there;

before(async () => {
	server = await Server.start('', { preload: false });
	proxy = await Proxy.start(server);
	const direct = server.options({ host: proxy.dir });
	here = new AiChatRuns({ pool: server.pool(), direct, runner: 'here', logger, heartbeatInterval: 3_600_000 });
	there = new AiChatRuns({ pool: server.pool(), runner: 'there', logger: memory(), heartbeatInterval: 20 });
});

after(async () => {
	await Promise.all([here?.close({ timeout: 0 }), there?.close({ timeout: 0 })]);
	await proxy?.close();
	await server?.remove();
});

test('a turn, and waiting for its end', async () => {
	const chatId = randomUUID();
	const { runId, signal } = await here.beginRun({ chatId, workspaceId });
	assert.equal(here.state, 'listening');
	await assert.rejects(there.beginRun({ chatId, workspaceId }), RunAlreadyActiveError);
	assert.equal(await there.awaitSettled(runId, workspaceId, { timeout: 1 }), null);
	const settled = there.awaitSettled(runId, workspaceId);
	assert.equal(await here.recordStep(runId, workspaceId, 1), 'continue');
	assert.equal(await here.finalizeRun(runId, workspaceId, 'completed'), 'finalized');
	assert.deepEqual(await settled, { status: 'succeeded', error: null });
	assert.deepEqual(await there.awaitSettled(randomUUID(), workspaceId), { status: 'not_found', error: null });
	assert.ok(!signal.aborted);
});

test('a stop comes by notification', async () => {
	const { runId, signal } = await here.beginRun({ chatId: randomUUID(), workspaceId });
	await there.requestStop(runId, workspaceId);
	assert.equal((await aborted(signal)).why, 'stop');
	await here.finalizeRun(runId, workspaceId, 'aborted');
});

test('a stop while nobody listened is told when somebody does again', async () => {
	const { runId, signal } = await here.beginRun({ chatId: randomUUID(), workspaceId });
	proxy.refuses = true;
	proxy.cut();
	await until(() => here.state === 'lost');
	await there.requestStop(runId, workspaceId);
	assert.ok(!signal.aborted);
	proxy.refuses = false;
	assert.equal((await aborted(signal)).why, 'stop');
	await here.finalizeRun(runId, workspaceId, 'aborted');
});

test('a connection that is lost again and again leaves nothing behind', async () => {
	const warnings = [];
	const hear = (warning) => warnings.push(warning.message);
	process.on('warning', hear);
	const pid = () => server.admin(`SELECT pid FROM pg_stat_activity
		WHERE application_name = 'ai_chat_run here' AND query LIKE 'LISTEN%'`);
	for (let i = 0; i < 12; i++) {
		const before = await until(pid, 'the session that listens');
		await server.admin('SELECT pg_terminate_backend($1, 60000)', [before]);
	}
	await until(pid);
	process.off('warning', hear);
	assert.deepEqual(warnings, []);
});

test('a stop, and an end, that a step or the heartbeat tells', async () => {
	const stepping = await here.beginRun({ chatId: randomUUID(), workspaceId });
	const beating = await there.beginRun({ chatId: randomUUID(), workspaceId });
	// Without the notification, as if it had been lost.
	await server.admin('UPDATE ai_chat_run.ai_chat_runs SET stop_requested_at = now() WHERE id = $1', [stepping.runId]);
	assert.equal(await here.recordStep(stepping.runId, workspaceId, 1), 'stop');
	assert.equal(stepping.signal.reason.why, 'stop');
	await server.admin('UPDATE ai_chat_run.ai_chat_runs SET stop_requested_at = now() WHERE id = $1', [beating.runId]);
	assert.equal((await aborted(beating.signal)).why, 'stop');
	await here.finalizeRun(stepping.runId, workspaceId, 'aborted');
	await there.finalizeRun(beating.runId, workspaceId, 'aborted');
});

test('heartbeats keep a run from being silent', async () => {
	const { runId } = await there.beginRun({ chatId: randomUUID(), workspaceId });
	await until(() => server.admin('SELECT updated_at > created_at FROM ai_chat_run.ai_chat_runs WHERE id = $1', [runId]));
	await there.finalizeRun(runId, workspaceId, 'completed');
});

test('superseding needs the library, and the log says once that it is missing', async () => {
	const chatId = randomUUID();
	const { runId } = await here.beginRun({ chatId, workspaceId });
	await assert.rejects(here.supersedeRun({ chatId, targetRunId: runId, workspaceId }), { code: '55000' });
	await here.finalizeRun(runId, workspaceId, 'completed');
	assert.equal(logger.lines.filter((line) => line.includes('is not preloaded')).length, 1, logger.lines.join('\n'));
});
