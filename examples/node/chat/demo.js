// Two chat servers behind one database: a chat that is busy for both, a stop sent to the other one, a browser that is
// closed, a process that is killed. What it shows it compares with what it says. Needs DATABASE_URL, and setup.sql done.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { ChatProcess } from './process.js';

const say = (text) => console.log(`\n== ${text}`);
const show = (who, answer) => {
	console.log(`${who.padEnd(6)} ${JSON.stringify(answer)}`);
	return answer;
};

async function follow(chat, chatId) {
	for await (const { event, data } of chat.stream(chatId)) {
		if (event === 'end') {
			process.stdout.write('\n');
			return data;
		}
		process.stdout.write(data);
	}
	throw new Error('the stream has no end');
}

async function wordsCome(chat, chatId, n) {
	for (;;) {
		const run = await chat.call('GET', chatId);
		if (run.stepCount >= n)
			return run;
		await pause(20);
	}
}

// Names of our own, for the demo to run beside itself.
const tag = process.pid;
const [red, blue] = await Promise.all([ChatProcess.start(`red-${tag}`), ChatProcess.start(`blue-${tag}`)]);
try {
	const chatId = randomUUID();
	say('a turn, executed by red and read through blue');
	show('red', await red.say(chatId, 'hello'));
	assert.equal((await follow(blue, chatId)).status, 'succeeded');

	say('red counts; the chat is busy, for blue as well');
	assert.equal(show('red', await red.say(chatId, 'count')).status, 202);
	const reader = new AbortController();
	for await (const { data } of blue.stream(chatId, reader.signal)) {
		console.log(`reader ${data}`);
		break;
	}
	reader.abort();
	const refused = show('blue', await blue.say(chatId, 'are you there?'));
	assert.equal(refused.status, 409);

	say('the reader has hung up: the run goes on');
	const { stepCount } = await blue.call('GET', chatId);
	await wordsCome(blue, chatId, stepCount + 2);

	say('a stop is sent to blue, and red stops');
	assert.equal(show('blue', await blue.call('POST', `${chatId}/stop`)).runId, refused.activeRunId);
	const stopped = await follow(blue, chatId);
	show('blue', stopped);
	assert.equal(stopped.status, 'aborted');

	say('red counts again, and is killed with SIGKILL');
	const lost = await red.say(chatId, 'count');
	await wordsCome(blue, chatId, 3);
	await red.end('SIGKILL');
	const busy = show('blue', await blue.say(chatId, 'are you there?'));
	assert.ok(busy.status === 409 || busy.status === 202);

	say('its chat is free again, when the server has waited for it to come back (ai_chat_run.runner_grace)');
	let next = busy;
	while (next.status === 409) {
		await pause(100);
		next = await blue.say(chatId, 'hello again');
	}
	show('blue', next);
	assert.equal(next.status, 202);
	assert.notEqual(next.runId, lost.runId);
	assert.equal((await follow(blue, chatId)).status, 'succeeded');
} finally {
	await Promise.all([red.end(), blue.end()]);
}
say('done');
