// Turns in a storm: sessions are ended, connections cut, answers lost, the server is killed and started again, while two
// processes' worth of clients begin and end runs in a few chats and stop each other's. Whatever the order of it all: every
// turn comes to its end, the row says what its runner was told, and no chat stays taken.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { after, before, test } from 'node:test';
import { AiChatRuns, RunAlreadyActiveError } from '../lib/index.js';
import { Proxy } from './proxy.js';
import { memory, Server, until } from './server.js';

const TURNS = 60;
const workspaceId = randomUUID();
const chats = Array.from({ length: 4 }, () => randomUUID());
const pick = (list) => list[Math.floor(Math.random() * list.length)];
let server;
let proxy;
let clients;

before(async () => {
	server = await Server.start(`
		ai_chat_run.boot_sweep = grace
		ai_chat_run.boot_grace = 1h
		ai_chat_run.runner_grace = 1h`);
	proxy = await Proxy.start(server);
	clients = ['red', 'blue'].map((runner) => new AiChatRuns({
		pool: server.pool({ host: proxy.dir }), runner, heartbeatInterval: 20, patience: 60_000, logger: memory() }));
});

after(async () => {
	await Promise.all(clients?.map((runs) => runs.close({ timeout: 0 })) ?? []);
	await proxy?.close();
	await server?.remove();
});

const EXPECTED = { completed: 'succeeded', error: 'failed', aborted: 'aborted' };

// One turn: what became of it, or undefined where the chat was taken.
async function turn(runs, chatId) {
	let handle;
	try {
		handle = await runs.beginRun({ chatId, workspaceId });
	} catch (error) {
		if (error instanceof RunAlreadyActiveError)
			return undefined;
		throw error;
	}
	const { runId, signal } = handle;
	for (let step = 1; step <= 3 && !signal.aborted; step++) {
		await pause(5);
		await runs.recordStep(runId, workspaceId, step);
	}
	const turnStatus = signal.aborted ? 'aborted' : pick(['completed', 'error']);
	const outcome = await runs.finalizeRun(runId, workspaceId, turnStatus, turnStatus === 'error' ? 'bad weather' : undefined);
	return { runId, outcome, expected: EXPECTED[turnStatus], why: signal.reason?.why };
}

async function storm(told) {
	const ends = [
		() => proxy.cut(),
		() => server.admin(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'chat_app'`),
		() => server.admin(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE application_name LIKE 'ai_chat_run %' AND usename = 'chat_app'`),
		() => Promise.race([proxy.loseAnswer(pick(['try_begin_run', 'finalize_run', 'await_stops', 'heartbeat'])), pause(50)]),
		() => pick(clients).requestStopForChat(pick(chats), workspaceId).catch(() => {}),
		() => pick(clients).requestStopForChat(pick(chats), workspaceId).catch(() => {}),
	];
	for (let n = 1; told.length < TURNS; n++) {
		await pause(20);
		await (n % 40 === 0 ? server.restart(pick(['fast', 'immediate'])) : pick(ends)());
		if (n % 8 === 0) {
			// A storm without a pause is a server that is away, and nobody gets anywhere.
			const soFar = told.length;
			await until(() => told.length >= TURNS ||
				(told.length > soFar && clients.every(({ state }) => state === 'attached')), 'a turn in the calm');
		}
	}
}

test('turns in a storm', async () => {
	const told = [];
	await Promise.all([storm(told), ...clients.flatMap((runs) => chats.map(async (chatId) => {
		while (told.length < TURNS) {
			const one = await turn(runs, chatId);
			if (one)
				told.push(one);
			else
				await pause(5);
		}
	}))]);

	for (const { runId, outcome, expected, why } of told) {
		const run = await until(async () => {
			const found = await clients[0].getRun(runId, workspaceId);
			return found?.finishedAt && found;
		}, 'a run to be settled');
		// A runner that was told that its run is over has not decided its end.
		if (why !== 'finalized')
			assert.equal(run.status, expected, JSON.stringify({ run, outcome, why }));
		assert.notEqual(why, 'not_found');
	}
	assert.equal(new Set(told.map(({ runId }) => runId)).size, told.length);
	await until(() => clients.every((runs) => told.every(({ runId }) => !runs.isLocallyActive(runId))), 'nobody to be at work');
	await until(async () => await server.admin(`SELECT count(*) = 0 FROM ai_chat_run.ai_chat_runs WHERE finished_at IS NULL`),
		'all chats to be free');
});
