// The ids of runs follow the server's clock.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ServerClock } from '../lib/server_clock.js';

const server = (ms) => ({ query: async () => ({ rows: [{ ms }] }) });
const timeOf = (id) => parseInt(id.replace('-', '').slice(0, 12), 16);

test('a machine that slept does not begin runs in the past', async () => {
	const clock = new ServerClock();
	await clock.ask(server('1000000000000'));
	assert.equal(Math.round((timeOf(clock.newRunId()) - 1_000_000_000_000) / 60_000), 0);
	// The monotonic clock has stood still meanwhile. The connection is lost, and a new one made.
	await clock.ask(server('1000036000000'));
	assert.equal(Math.round((timeOf(clock.newRunId()) - 1_000_036_000_000) / 60_000), 0);
});
