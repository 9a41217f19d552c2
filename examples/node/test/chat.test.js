// The chat server of the example, in two processes; and its demo.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { ChatProcess } from '../chat/process.js';
import { Server, until } from './server.js';

const chatFile = (name) => fileURLToPath(new URL(`../chat/${name}`, import.meta.url));
let server;
let env;
let red;
let blue;

before(async () => {
	server = await Server.start('ai_chat_run.runner_grace = 10ms');
	await server.admin(await readFile(chatFile('setup.sql'), 'utf8'));
	env = { DATABASE_URL: `socket://chat_app@${server.dir}?db=postgres`, WORD_MS: '10' };
	[red, blue] = await Promise.all([ChatProcess.start('red', env), ChatProcess.start('blue', env)]);
});

after(async () => {
	await Promise.all([red?.end('SIGKILL'), blue?.end('SIGKILL')]);
	await server?.remove();
});

async function read(chat, chatId) {
	let text = '';
	for await (const { event, data } of chat.stream(chatId)) {
		if (event === 'end')
			return { text, ...data };
		text += data;
	}
	throw new Error('the stream has no end');
}

test('a turn that is read through the other process', async () => {
	const chatId = randomUUID();
	const { status } = await red.say(chatId, 'hello');
	assert.equal(status, 202);
	const heard = await read(blue, chatId);
	assert.deepEqual([heard.status, heard.error], ['succeeded', null]);
	assert.match(heard.text, /^You said "hello"\. .* a while\. $/);
});

test('a busy chat, a reader who hangs up, and a stop sent to the other process', async () => {
	const chatId = randomUUID();
	const { runId } = await red.say(chatId, 'count');
	const refused = await blue.say(chatId, 'hello');
	assert.deepEqual([refused.status, refused.activeRunId], [409, runId]);

	const hangUp = new AbortController();
	for await (const { event } of blue.stream(chatId, hangUp.signal)) {
		assert.equal(event, 'text');
		break;
	}
	hangUp.abort();
	const { stepCount } = await blue.call('GET', chatId);
	await until(async () => (await blue.call('GET', chatId)).stepCount > stepCount, 'the run to go on');

	assert.equal((await red.call('GET', chatId)).here, true);
	assert.deepEqual(await blue.call('POST', `${chatId}/stop`), { status: 202, runId });
	const { status, text } = await read(blue, chatId);
	assert.equal(status, 'aborted');
	assert.match(text, /^1 2 /);
	assert.equal((await blue.call('POST', `${chatId}/stop`)).status, 404);
});

test('a model that fails', async () => {
	const chatId = randomUUID();
	await red.say(chatId, 'fail');
	assert.deepEqual(await read(blue, chatId), { text: '', status: 'failed', error: 'the model is overloaded' });
});

test('what it does not know', async () => {
	assert.equal((await red.call('GET', randomUUID())).status, 404);
	assert.equal((await red.call('GET', 'x')).status, 404);
	assert.equal((await fetch(`${red.url}/chats/${randomUUID()}/messages`, { method: 'POST', body: '{' })).status, 400);
});

test('a process that is told to end ends its turns first', async () => {
	const chatId = randomUUID();
	const green = await ChatProcess.start('green', env);
	await green.say(chatId, 'count');
	assert.deepEqual(await green.end(), [0, null]);
	const run = await blue.call('GET', chatId);
	assert.match(run.error, /the process is about to end/);
});

test('a process that is killed', async () => {
	const chatId = randomUUID();
	await red.say(chatId, 'count');
	await red.end('SIGKILL');
	await until(async () => (await blue.say(chatId, 'hello')).status === 202, 'the chat to be free');
});

test('the demo', async () => {
	const { stdout } = await promisify(execFile)(process.execPath, [chatFile('demo.js')], { env: { ...process.env, ...env } });
	assert.match(stdout, /== done\n$/);
});
