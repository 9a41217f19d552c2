// A chat server. Start as many as you like behind one database, each with a name of its own:
//
//	DATABASE_URL=postgres://chat_app@localhost/postgres RUNNER=web-1 PORT=8001 node chat/server.js
//
//	POST /chats/ID/messages		{"text": "..."}: 202 and the run; 409 while the chat has one
//	POST /chats/ID/stop			stops what runs in the chat, wherever it does
//	GET /chats/ID/stream		the answer as server-sent events, from any of the servers; who hangs up stops nothing
//	GET /chats/ID				the latest run
import http from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import { AiChatRuns, RunAlreadyActiveError } from '../lib/index.js';
import { Turns } from './turn.js';

// A real server takes these from the session of its user: whoever knows a workspace may call for it.
const workspaceId = '00000000-0000-7000-8000-00000000aaaa';
const userId = '00000000-0000-7000-8000-00000000bbbb';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });
const runs = new AiChatRuns({ pool, runner: process.env.RUNNER ?? 'web-1', direct: process.env.DIRECT_URL });
const turns = new Turns({ pool, runs, wordMs: Number(process.env.WORD_MS ?? 100) });

function answer(response, status, body) {
	response.writeHead(status, { 'content-type': 'application/json' });
	response.end(`${JSON.stringify(body)}\n`);
}

async function readJson(request) {
	let text = '';
	for await (const chunk of request)
		text += chunk;
	return JSON.parse(text);
}

const actions = {
	async 'POST messages'(chatId, request, response) {
		const { text } = await readJson(request);
		try {
			answer(response, 202, { runId: await turns.start({ chatId, workspaceId, userId, text: String(text) }) });
		} catch (error) {
			if (!(error instanceof RunAlreadyActiveError))
				throw error;
			answer(response, 409, { error: error.message, activeRunId: error.activeRunId });
		}
	},

	async 'POST stop'(chatId, _request, response) {
		const runId = await runs.requestStopForChat(chatId, workspaceId);
		answer(response, runId ? 202 : 404, { runId });
	},

	async 'GET '(chatId, _request, response) {
		const run = await runs.getLatestForChat(chatId, workspaceId);
		answer(response, run ? 200 : 404, { ...run, here: Boolean(run && runs.isLocallyActive(run.id)) });
	},

	// What is read is the message in the table, so it does not matter which process executes the run.
	async 'GET stream'(chatId, request, response) {
		const run = await runs.getLatestForChat(chatId, workspaceId);
		if (!run)
			return answer(response, 404, {});
		response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
		const send = (event, data) => response.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
		for (let sent = 0; !response.destroyed; await pause(50)) {
			// First whether it has ended, then the text: so none is missed.
			const { status, error, assistantMessageId } = await runs.getRun(run.id, workspaceId);
			const { rows } = await pool.query('SELECT content FROM chat.messages WHERE id = $1', [assistantMessageId]);
			const content = rows[0]?.content ?? '';
			if (content.length > sent)
				send('text', content.slice(sent));
			sent = content.length;
			if (status !== 'running') {
				send('end', { status, error });
				return response.end();
			}
		}
	},
};

const server = http.createServer((request, response) => {
	const [, chats, chatId, what = ''] = new URL(request.url, 'http://localhost').pathname.split('/');
	const action = chats === 'chats' && UUID.test(chatId) && actions[`${request.method} ${what}`];
	if (!action)
		return answer(response, 404, { error: 'no such thing' });
	action(chatId, request, response).catch((error) => {
		if (response.headersSent)
			return response.destroy();
		answer(response, error instanceof SyntaxError ? 400 : 500, { error: error.message });
	});
});

let closing = false;
for (const name of ['SIGINT', 'SIGTERM']) {
	process.on(name, async () => {
		if (closing)
			return;
		closing = true;
		server.close();
		await runs.close();
		server.closeAllConnections?.();
		await pool.end();
	});
}

server.listen(Number(process.env.PORT ?? 8000), '127.0.0.1', () => {
	console.log(`${runs.runner} listens on http://127.0.0.1:${server.address().port}`);
});
// A name that is taken is known now, not with the first message.
await runs.start().catch((error) => console.error(error.message));
