// Whole processes: they end by themselves when they have nothing to do, with close() and without, and when one is killed
// its chats are free again.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { AiChatRuns } from '../lib/index.js';
import { memory, Server, until } from './server.js';

const workspaceId = randomUUID();
let server;
let other;

before(async () => {
	server = await Server.start('ai_chat_run.runner_grace = 10ms');
	other = new AiChatRuns({ pool: server.pool(), runner: 'other', logger: memory() });
});

after(async () => {
	await other?.close({ timeout: 0 });
	await server?.remove();
});

// A process that runs `body` as a module, with a pool, an AiChatRuns and the ids at hand.
function start(body, chatId) {
	const source = `
		import pg from 'pg';
		import { AiChatRuns } from './lib/index.js';
		const [chatId, workspaceId, runner] = ${JSON.stringify([chatId, workspaceId, randomUUID()])};
		const pool = new pg.Pool(${JSON.stringify(server.options())});
		const runs = new AiChatRuns({ pool, runner, logger: {} });
		${body}`;
	const child = spawn(process.execPath, ['--input-type=module', '-e', source],
		{ cwd: fileURLToPath(new URL('..', import.meta.url)), stdio: ['ignore', 'pipe', 'inherit'] });
	child.stdout.setEncoding('utf8');
	return child;
}

const TURN = `const { runId } = await runs.beginRun({ chatId, workspaceId });
	await runs.finalizeRun(runId, workspaceId, 'completed');`;

for (const [what, end] of [
	['that closes what it opened', 'await runs.close(); await pool.end();'],
	['that ends its pool alone', 'await pool.end();'],
	['that closes before it has begun', 'await Promise.all([runs.close(), pool.end()]);']]) {
	test(`a process ${what} ends by itself`, async () => {
		const chatId = randomUUID();
		const child = start(`${what.endsWith('begun') ? '' : TURN} ${end}`, chatId);
		assert.deepEqual(await once(child, 'exit'), [0, null]);
		if (!what.endsWith('begun'))
			assert.equal((await other.getLatestForChat(chatId, workspaceId)).status, 'succeeded');
	});
}

test('a process that is killed leaves its chat free', async () => {
	const chatId = randomUUID();
	const child = start('console.log((await runs.beginRun({ chatId, workspaceId })).runId); setInterval(() => {}, 1000);', chatId);
	const [runId] = await once(child.stdout, 'data');
	assert.equal((await other.getActiveForChat(chatId, workspaceId)).id, runId.trim());
	child.kill('SIGKILL');
	assert.deepEqual(await other.awaitSettled(runId.trim(), workspaceId),
		{ status: 'aborted', error: 'Run aborted: its runner has departed.' });
	const next = await other.beginRun({ chatId, workspaceId });
	await other.finalizeRun(next.runId, workspaceId, 'completed');
});

test('a process that loses its name to a new one stops its turns', async () => {
	// The old one is stopped as a laptop is that sleeps: its session ends, it comes back later.
	const chatId = randomUUID();
	const child = start(`
		const { runId, signal } = await runs.beginRun({ chatId, workspaceId });
		signal.addEventListener('abort', () => { console.log(signal.reason.why); process.exit(); });
		console.log(runner);
		setInterval(() => {}, 1000);`, chatId);
	const [runner] = await once(child.stdout, 'data');
	child.kill('SIGSTOP');
	await server.admin('SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = $1',
		[`ai_chat_run ${runner.trim()}`]);
	const heir = new AiChatRuns({ pool: server.pool(), runner: runner.trim(), logger: memory() });
	await heir.start();
	await until(async () => !await other.getActiveForChat(chatId, workspaceId), 'the chat to be free');
	child.kill('SIGCONT');
	assert.equal((await once(child.stdout, 'data'))[0].trim(), 'finalized');
	await heir.close();
});
