// A transaction-pooling PgBouncer between the application and the server.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { AiChatRuns } from '../lib/index.js';
import { aborted, memory, Server, until } from './server.js';

const program = ['pgbouncer', '/usr/sbin/pgbouncer'].find((name) => spawnSync(name, ['--version']).status === 0);
const options = { skip: !program && 'PgBouncer is not installed' };
const workspaceId = randomUUID();
let server;
let dir;
let pooler;

before(async () => {
	if (!program)
		return;
	server = await Server.start('ai_chat_run.runner_grace = 10ms');
	dir = await mkdtemp(join(tmpdir(), 'pool-'));
	await writeFile(join(dir, 'users'), '"chat_app" ""\n');
	await writeFile(join(dir, 'ini'), `
		[databases]
		* = host=${server.dir} port=5432
		[pgbouncer]
		listen_addr =
		listen_port = 5432
		unix_socket_dir = ${dir}
		auth_type = trust
		auth_file = ${join(dir, 'users')}
		pool_mode = transaction
		default_pool_size = 4
		`.replaceAll('\t', ''));
	pooler = spawn(program, ['-q', join(dir, 'ini')], { stdio: 'ignore' });
	const pool = server.pool({ host: dir });
	pool.on('error', () => {});
	await until(() => pool.query('SELECT 1').catch(() => false), 'the pooler');
});

after(async () => {
	if (pooler?.exitCode === null && pooler.signalCode === null) {
		const gone = once(pooler, 'exit');
		pooler.kill('SIGKILL');
		await gone;
	}
	await server?.remove();
	if (dir)
		await rm(dir, { recursive: true, force: true });
});

async function turn(runs, other) {
	const chatId = randomUUID();
	const { runId, signal } = await runs.beginRun({ chatId, workspaceId });
	assert.equal((await runs.getActiveForChat(chatId, workspaceId)).runner, runs.runner);
	await other.requestStop(runId, workspaceId);
	assert.equal((await aborted(signal)).why, 'stop');
	const settled = other.awaitSettled(runId, workspaceId);
	assert.equal(await runs.finalizeRun(runId, workspaceId, 'aborted'), 'finalized');
	assert.equal((await settled).status, 'aborted');
	return { chatId, runId };
}

test('all through the pooler: nothing is attached, and stops come all the same', options, async () => {
	const logger = memory();
	const runs = new AiChatRuns({ pool: server.pool({ host: dir }), runner: 'pooled', logger, heartbeatInterval: 3_600_000 });
	const other = new AiChatRuns({ pool: server.pool({ host: dir }), runner: 'other', logger: memory() });
	const { chatId, runId } = await turn(runs, other);
	await other.close();
	assert.equal(runs.state, 'waiting');
	assert.match(logger.lines.join('\n'), /a pooler is between this process and the server/);
	await assert.rejects(runs.supersedeRun({ chatId, targetRunId: runId, workspaceId }), /needs the option "direct"/);
	await runs.close();
});

test('with a connection past the pooler for what waits', options, async () => {
	const direct = `socket://chat_app@${server.dir}?db=postgres`;
	const runs = new AiChatRuns({ pool: server.pool({ host: dir }), direct, runner: 'both', logger: memory() });
	const { chatId, runId } = await turn(runs, runs);
	assert.equal(runs.state, 'attached');
	const next = await runs.supersedeRun({ chatId, targetRunId: runId, workspaceId });
	assert.equal(next.outcome, 'began');
	assert.equal((await runs.getRun(next.runId, workspaceId)).runner, 'both');
	await runs.finalizeRun(next.runId, workspaceId, 'completed');
	await runs.close();
});
